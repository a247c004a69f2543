"""Nothing stale is served: what is changed is built and computed again, what is the same is found."""

from __future__ import annotations

import functools
import shutil
from collections import Counter

import onnx
import onnx_ir as ir
import pytest
import torch
from fake import inputs, quiet, subject

from harness import Subject, targets
from harness.backends import BACKENDS, EngineCache
from harness.discovery import onnx_subject
from harness.errors import NotJudged
from harness.reference import OutputCache
from harness.verify import onnx_graph, subject_graph
from harness.verify import target as target_module
from harness.verify.target import Run
from harness.verify.verify import verify

ORT = targets("ort-cpu", precisions=("fp32",))
BOTH = targets("ort-cpu", precisions=("fp32", "fp16"))


def judge(given, tmp_path, **changes):
    (result,) = verify(given, targets=given.targets, cases=("one",), settings=quiet(tmp_path, **changes))
    return result


def engine_key(given, tmp_path, **options):
    run = Run(given, quiet(tmp_path))
    with run.target(given.targets[0]) as opened:
        return opened._key(**options)


class Branch(torch.nn.Module):
    """A constant in the body of a cond, and one in a region that autocast leaves alone."""

    def __init__(self, inside: float, region: float) -> None:
        super().__init__()
        self.inside, self.region = inside, region

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            x = x * self.region
        return torch.cond(x.sum() > -1e9, lambda x: x + self.inside, lambda x: x - 1, (x,))


@pytest.mark.parametrize("changed", [(2.0, 3.0), (1.0, 4.0)])
def test_a_constant_changed_in_a_body_is_built_and_computed_again(changed, tmp_path):
    first, second, again = (
        judge(subject(build=lambda constants=constants: Branch(*constants).eval(), targets=ORT), tmp_path)
        for constants in ((1.0, 3.0), changed, (1.0, 3.0))
    )
    assert [one.verdict for one in (first, second, again)] == ["pass"] * 3, second.reason
    assert [one.engine.cached for one in (first, second, again)] == [False, False, True]
    assert first.engine.sha256 == again.engine.sha256 != second.engine.sha256
    assert len(list((tmp_path / "engines" / "outputs").glob("*"))) == 4


def test_the_key_holds_the_code_the_packages_and_the_backends_version(tmp_path, monkeypatch):
    given = subject(targets=ORT)
    keys = [engine_key(given, tmp_path)]
    monkeypatch.setattr(target_module, "code_sha256", lambda: "other code")
    keys.append(engine_key(given, tmp_path))
    monkeypatch.setattr(target_module, "package_versions", lambda: {"torch": "0"})
    keys.append(engine_key(given, tmp_path))
    monkeypatch.setattr(BACKENDS["ort-cpu"], "version", lambda: "0.0")
    keys.append(engine_key(given, tmp_path))
    assert all(keys.count(key) == 1 for key in keys)


@pytest.mark.parametrize("name", ["code_sha256", "package_versions"])
def test_outputs_of_other_code_or_packages_are_computed_again(name, tmp_path, monkeypatch):
    said = []
    for version in ("1", "2", "1"):
        monkeypatch.setattr(f"harness.verify.references.{name}", lambda version=version: {"": version})
        run = Run(subject(), quiet(tmp_path, progress=said.append))
        run.prepared.references.reference("one", "fp32")
    assert sum("PyTorch fp32" in line for line in said) == 2


CHANGES = {
    "options": ({"options": {"keep_initializers_as_inputs": False}}, {"options": {"do_constant_folding": True}}),
    "sets": ({"options": {"a": {"x", "y", "z"}}}, {"options": {"a": {"x", "y"}}}),
    "ranges": (
        {"dynamic": {"x": {0: "n"}}, "ranges": {"n": (2, 9)}},
        {"dynamic": {"x": {0: "n"}}, "ranges": {"n": (2, 10)}},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_subject_declares_is_in_the_key(what, tmp_path):
    one, other = (engine_key(subject(targets=ORT, **changes), tmp_path) for changes in CHANGES[what])
    assert one == engine_key(subject(targets=ORT, **CHANGES[what][0]), tmp_path)
    assert one != other


def test_taps_and_marked_values_are_in_the_key(tmp_path):
    keys = [engine_key(subject(targets=ORT), tmp_path, **options)
            for options in ({}, {"taps": True}, {"marked": ("a",)}, {"marked": ("b",)})]  # fmt: skip
    assert all(keys.count(key) == 1 for key in keys)


def test_an_option_that_no_key_can_hold_keeps_nothing(tmp_path):
    said = []
    given = subject(targets=ORT, options={"custom_translation_table": {torch.ops.aten.digamma.default: lambda x: x}})
    results = [judge(given, tmp_path, progress=said.append) for _ in range(2)]
    assert [(one.verdict, one.engine.cached) for one in results] == [("pass", False)] * 2
    assert not list((tmp_path / "engines").rglob("*.engine"))
    assert not list((tmp_path / "engines").rglob("*.outputs"))
    assert any("nothing is kept" in line and "custom_translation_table" in line for line in said)


def onnx_file(path, scale=2.0):
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [8, 16]) for name in "xy")
    weight = onnx.helper.make_tensor("w", 1, [1], [scale])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def of_file(path):
    return Subject(name=path.stem, onnx=path, cases={"one": inputs}, targets=ORT, weights="file")


def test_a_file_that_was_renamed_and_moved_is_found_and_one_that_was_changed_is_not(tmp_path):
    path = onnx_file(tmp_path / "a" / "net.onnx")
    first = judge(of_file(path), tmp_path)
    moved = tmp_path / "b" / "renamed.onnx"
    moved.parent.mkdir()
    shutil.move(path, moved)
    second = judge(of_file(moved), tmp_path)
    onnx_file(moved, scale=3.0)
    third = judge(of_file(moved), tmp_path)
    assert [one.verdict for one in (first, second, third)] == ["pass"] * 3
    assert [one.engine.cached for one in (first, second, third)] == [False, True, False]
    assert first.engine.path == second.engine.path != third.engine.path


def test_two_files_of_one_name_have_two_engines(tmp_path):
    paths = [onnx_file(tmp_path / folder / "same.onnx", scale) for folder, scale in (("a", 2.0), ("b", 3.0))]
    engines = [judge(of_file(path), tmp_path).engine for path in paths]
    assert engines[0].path != engines[1].path
    assert len(EngineCache(tmp_path / "engines", limit_bytes=2**30).entries()) == 2


def counting(monkeypatch, owner, name, counts):
    """Count the calls of a function."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def counted(*args, **options):
        counts[name] += 1
        return real(*args, **options)

    monkeypatch.setattr(owner, name, counted)


def test_a_cached_run_of_a_file_reads_and_hashes_it_once_and_copies_writes_and_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.stamps.SETTLED_S", -1.0)
    path, counts = onnx_file(tmp_path / "net.onnx"), Counter()
    settings = quiet(tmp_path)

    def verdicts():
        given = onnx_subject(path, inputs=None, shapes={})
        return [one.verdict for one in verify(given, targets=BOTH, cases=["default"], settings=settings)]

    first = verdicts()
    for owner, name in (
        (ir, "load"), (ir.Model, "clone"), (onnx_graph, "graph_sha256"), (onnx_graph, "run_onnxruntime"),
        (subject_graph, "run_graph"), (target_module, "save_for_now"), (onnx_graph, "onnx_run_graph"),
    ):  # fmt: skip
        counting(monkeypatch, owner, name, counts)
    assert verdicts() == first == ["pass", "pass"]
    assert counts.pop("load", 0) <= 1  # none where the first run's model has not been freed yet
    assert counts == {"graph_sha256": 1}


def kept_outputs(tmp_path, change):
    """Change what an earlier run kept, as if its key had not told it from this one."""
    get = OutputCache.get

    def wrong(self, key, compute, device, *, anew=False):
        outputs, notes = get(self, key, compute, device, anew=anew)
        if anew or key["what"] == "exported program":
            return outputs, notes
        return {name: change(tensor) for name, tensor in outputs.items()}, notes

    return wrong


def test_outputs_that_turn_out_stale_are_named_and_computed_again(tmp_path, monkeypatch):
    given = subject(targets=ORT)
    judge(given, tmp_path)
    monkeypatch.setattr(OutputCache, "get", kept_outputs(tmp_path, lambda tensor: tensor + 1))
    result = judge(given, tmp_path)
    assert result.verdict == "pass"
    assert any("were stale" in note for note in result.notes)


class Drifting(torch.nn.Module):
    """Gives another result when PyTorch traces it than when it is called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2.0 if torch.compiler.is_exporting() else 3.0)


def test_a_module_that_is_not_its_program_is_not_called_stale(tmp_path):
    given = subject(build=lambda: Drifting().eval(), targets=ORT)
    for _ in range(2):
        result = judge(given, tmp_path)
        assert result.verdict == "not_judged"
        assert "two references disagree" in result.reason
    assert "nothing kept is stale" in result.reason


def test_a_stored_reference_that_the_program_gives_and_the_module_does_not_is_not_stale(tmp_path, monkeypatch):
    given = subject(build=lambda: Drifting().eval())
    run = Run(given, quiet(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("harness.verify.references.require_agreement", lambda *_, **__: ())
        run.prepared.references.save("one")
    with pytest.raises(NotJudged, match="the exported program gives the stored reference"):
        Run(given, quiet(tmp_path)).prepared.references.reference("one", "fp32")
