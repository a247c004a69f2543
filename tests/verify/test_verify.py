"""The order of the steps, end to end on the CPU: from a module or a file to verdicts, and again from the caches."""

from __future__ import annotations

import errno
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fake import FakeBackend, inputs, noise, quiet, subject
from onnx import TensorProto, helper, numpy_helper

from harness import Subject, Target, UsageError, targets
from harness.backends import BACKENDS
from harness.backends.base import BuildRequest
from harness.backends.runtime_file import runtime_file
from harness.reference.store import StaleReference
from harness.verify.result import next_step
from harness.verify.target import Run
from harness.verify.verify import update_references, verify


def judge(given, tmp_path, *, ask=("one",), **changes):
    settings = quiet(tmp_path, **changes)
    return list(verify(given, targets=given.targets, cases=ask, settings=settings))


def test_a_pytorch_subject_on_onnx_runtime_and_pytorch(tmp_path):
    given = subject(targets=targets("ort-cpu", "torch", precisions=("fp32", "fp16")))
    results = judge(given, tmp_path, ask=("one", "two"))
    assert [(r.target, r.case, r.verdict) for r in results] == [
        (str(target), case, "pass") for target in given.targets for case in ("one", "two")
    ]
    engine, provenance = results[0].engine, results[0].provenance
    assert engine is not None
    assert (engine.cached, engine.bytes > 0, len(engine.sha256)) == (False, True, 64)
    assert provenance is not None
    assert (provenance.weights, provenance.inputs, provenance.device) == ("random", "random", "CPU")
    assert [output.name for output in results[0].outputs] == ["left", "right"]


def test_a_second_run_builds_and_exports_nothing(tmp_path):
    given = subject(targets=(Target("ort-cpu", "fp16"),))
    first = judge(given, tmp_path)[0]
    said: list[str] = []
    second = judge(given, tmp_path, progress=said.append)[0]
    assert (first.engine.cached, second.engine.cached) == (False, True)
    assert first.outputs == second.outputs
    assert not [line for line in said if "building" in line or "exporting" in line or "PyTorch" in line]


def test_two_runners_share_an_engine_and_what_loading_it_compiled(tmp_path, monkeypatch):
    class Compiling(FakeBackend):
        driver = "570"
        compiled = 0

        def runtime_key(self):
            return {"gpu": "H200", "driver": self.driver}

        def load(self, engine):
            file = runtime_file(engine, self.runtime_key())
            self.compiled += not file.read()
            file.write(b"kernels")
            return super().load(engine)

    shared = {"engines_remote": str(tmp_path / "shared"), "engines_remote_mode": "read-write"}
    backend = Compiling()
    monkeypatch.setitem(BACKENDS, "fake", backend)
    (first,) = judge(subject(), tmp_path / "a", **shared)
    (second,) = judge(subject(), tmp_path / "b", **shared)
    assert (first.engine.origin, second.engine.origin) == ("built", "remote")
    assert second.engine.fetched_from == str(tmp_path / "shared")
    assert first.outputs == second.outputs
    assert (backend.builds, backend.compiled) == (1, 1)
    backend.driver = "580"
    judge(subject(), tmp_path / "c", **shared)
    assert (backend.builds, backend.compiled) == (1, 2)


def test_without_the_cache_everything_is_made_afresh_and_nothing_is_left(tmp_path):
    given = subject(targets=(Target("ort-cpu", "fp16"),))
    for _ in range(2):
        assert judge(given, tmp_path, engine_cache=False)[0].engine.cached is False
    assert not list((tmp_path / "engines").glob("**/*.engine"))


def test_a_plan_keeps_a_module_in_fp32(tmp_path):
    plan = tmp_path / "mixed.toml"
    plan.write_text('precision = "fp16"\nkeep_fp32 = ["left"]\n')
    given = subject(targets=(Target("ort-cpu", str(plan)), Target("torch", "fp16"), Target("torch", str(plan))))
    results = judge(given, tmp_path)
    assert [result.verdict for result in results] == ["pass", "pass", "pass"]
    assert results[0].precision == "mixed"
    half, mixed = ({o.name: o.stats.relative_l2 for o in result.outputs} for result in results[1:])
    assert mixed["left"] < half["left"]
    assert mixed["right"] == half["right"]


@pytest.mark.parametrize(("layers", "shown"), [(12, "12 network layers"), (None, "MB")])
def test_an_engine_that_cannot_run_here_is_built_and_not_judged(tmp_path, monkeypatch, layers, shown):
    class Builder(FakeBackend):
        def build(self, *asked):
            return replace(super().build(*asked), network_layers=layers, notes=("7 network layers are odd",))

        def cannot_run(self):
            return "no GPU"

    monkeypatch.setitem(BACKENDS, "fake", Builder())
    (result,) = judge(subject(), tmp_path)
    assert result.verdict == "not_judged"
    assert "no GPU" in result.reason
    assert shown in result.reason
    assert "7 network layers" not in result.reason, "the figure is asked for, no note is searched"


def test_a_plan_that_names_nothing_is_an_error_even_where_its_engine_is_cached(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('precision = "fp16"\nkeep_fp32 = ["lefft"]\n')
    with pytest.raises(UsageError, match="left"):
        judge(subject(targets=(Target("torch", str(plan)),)), tmp_path)


def test_a_plan_under_another_name_is_the_same_floor(tmp_path):
    for name in ("first", "second"):
        plan = tmp_path / f"{name}.toml"
        plan.write_text('precision = "fp16"\nkeep_fp32 = ["left"]\n')
        said: list[str] = []
        result = judge(subject(targets=(Target("torch", str(plan)),)), tmp_path, progress=said.append)[0]
        assert (result.precision, result.verdict) == (name, "pass")
        assert ("two-heads/one: PyTorch fp16 on cpu" in said) == (name == "first")


def test_only_an_engine_is_known_to_be_repeatable(tmp_path):
    results = judge(subject(targets=(Target("torch", "fp16"), Target("ort-cpu", "fp16"))), tmp_path)
    assert [(result.verdict, result.repeatable) for result in results] == [("pass", None), ("pass", True)]


def test_a_verdict_says_where_its_time_went(tmp_path):
    given = subject(targets=(Target("ort-cpu", "fp16"),))
    first, second = judge(given, tmp_path, ask=("one", "two"))
    assert set(first.timings_s) == {"judge", "building", "loading", "running"}
    assert set(second.timings_s) == {"judge", "running"}, "the engine is there"
    assert all(0 < sum(took.values()) - took["judge"] <= took["judge"] for took in (first.timings_s, second.timings_s))


class Twice(torch.nn.Module):
    """Returns one value under two names, and a view of it."""

    def forward(self, x):
        hidden = x.sin()
        return {"hidden": hidden, "again": hidden, "first": hidden[:, 0]}


def test_outputs_that_share_memory_are_judged_and_stored(tmp_path):
    given = subject(
        build=lambda: Twice().eval(),
        cases={"one": lambda: {"x": torch.ones(1, 16) / 3}},
        targets=(Target("ort-cpu", "fp32"),),
    )
    list(update_references(given, ["one"], quiet(tmp_path)))
    for _ in range(2):
        assert [output.verdict for output in judge(given, tmp_path)[0].outputs] == ["pass"] * 3


@pytest.mark.parametrize(("error", "words"), [(KeyError("ids"), "KeyError: 'ids'"), (OSError(), "OSError: OSError")])
def test_a_case_that_raises_is_a_reason(tmp_path, error, words):
    asked = []

    def case():
        asked.append(error)
        raise error

    given = subject(cases={"one": case}, targets=targets("ort-cpu", precisions=("fp32", "fp16")))
    results = judge(given, tmp_path)
    reason = f"two-heads: case 'one' raised {words}"
    assert [(result.verdict, result.reason) for result in results] == [("not_judged", reason)] * 2
    assert len(asked) == 1


def test_a_floor_that_fails_without_a_word_is_a_reason(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise NotImplementedError

    monkeypatch.setattr("harness.verify.subject_graph.run_graph", refuse)
    result = judge(subject(targets=(Target("torch", "fp16"),)), tmp_path)[0]
    assert result.verdict == "not_judged"
    assert "NotImplementedError: NotImplementedError" in result.reason


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Not enough free space to write 52428800 bytes after offset 1370816512"),  # NumPy's own
    ],
)
def test_no_room_for_the_graph_is_not_the_engine_folders_fault(error, tmp_path, monkeypatch):
    def full(model, path, *, linked):
        raise error

    monkeypatch.setattr("harness.verify.target.save_for_now", full)
    result = judge(subject(targets=(Target("ort-cpu", "fp16"),)), tmp_path)[0]
    words = f"no space left in {tempfile.gettempdir()} for the graph of two-heads; free some, or set TMPDIR"
    assert result.verdict == "not_judged"
    assert words in result.reason


def test_references_are_written_and_used(tmp_path):
    given = subject(targets=(Target("torch", "fp16"),))
    paths = list(update_references(given, ["one", "two"], quiet(tmp_path)))
    assert all(path.exists() for path in paths)
    assert "stored, made in FP32 on cpu" in judge(given, tmp_path)[0].provenance.reference


def test_a_stale_reference_names_a_command_that_reaches_the_subject(tmp_path):
    given = replace(subject(targets=(Target("torch", "fp16"),)), locator="models:NET")
    list(update_references(given, ["one"], quiet(tmp_path)))
    other = replace(given, cases={"one": lambda: inputs(5)})
    with pytest.raises(StaleReference, match=r"the inputs .* changed; run: parity reference models:NET --case one$"):
        Run(other, quiet(tmp_path)).prepared.references.reference("one", "fp32")


def onnx_file(folder: Path) -> Path:
    """Write a small network whose weights lie in a file beside it, as PyTorch's exporter leaves them."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (16, 64)), ("w2", (64, 4)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["batch", 16]), ("y", ["batch", 4]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    return path


def onnx_subject(path: Path, *chosen: Target) -> Subject:
    return Subject(name="net", onnx=path, cases={"one": inputs}, targets=chosen, weights="file")


def test_an_onnx_file_with_its_weights_beside_it(tmp_path):
    given, said = onnx_subject(onnx_file(tmp_path), *targets("ort-cpu", precisions=("fp32", "fp16"))), []
    results = judge(given, tmp_path, progress=said.append)
    assert [result.verdict for result in results] == ["pass", "pass"]
    assert "PyTorch fp32 loses" in results[0].reason
    assert "PyTorch fp16 loses" in results[1].reason
    assert all(f"net/one: PyTorch {precision} on cpu" in said for precision in ("fp32", "fp64", "fp16"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_onnx_file_runs_in_pytorch_in_every_precision(tmp_path, precision):
    (result,) = judge(onnx_subject(onnx_file(tmp_path), Target("torch", precision)), tmp_path)
    (output,) = result.outputs
    assert result.verdict == "pass"
    assert output.stats == output.floor
    roundoff = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
    assert roundoff / 8 < output.stats.relative_l2 < roundoff * 8


def test_an_onnx_file_has_no_stored_reference(tmp_path):
    given = onnx_subject(onnx_file(tmp_path), Target("torch", "fp16"))
    with pytest.raises(UsageError, match="is an ONNX file"):
        list(update_references(given, ["one"], quiet(tmp_path)))


def test_typed_graph_is_whole_wherever_it_is_written(tmp_path, monkeypatch):
    from harness.backends import BACKENDS

    seen: list[BuildRequest] = []
    build = BACKENDS["ort-cpu"].build

    def watch(request, engine, settings):
        seen.append(request)
        onnx.checker.check_model(onnx.load(request.onnx), full_check=True)
        return build(request, engine, settings)

    monkeypatch.setattr(BACKENDS["ort-cpu"], "build", watch)
    monkeypatch.setattr(
        "harness.graph.onnx_file.EXTERNAL_DATA_BYTES", 100
    )  # and with the weights beside the graph again
    judge(onnx_subject(onnx_file(tmp_path), Target("ort-cpu", "fp32")), tmp_path)
    assert [request.shapes["x"].optimum for request in seen] == [(8, 16)]


FAULTS = {
    "scale": lambda outputs, given, run: {**outputs, "left": outputs["left"] * 1.25},
    "swapped": lambda outputs, given, run: {"left": outputs["right"].clone(), "right": outputs["right"]},
    "random": lambda outputs, given, run: {**outputs, "left": outputs["left"] + (run % 2) * noise(8, 16, seed=run)},
    "slice": lambda outputs, given, run: {**outputs, "left": outputs["left"] * (torch.arange(16) != 3)},
    "unknown": lambda outputs, given, run: {**outputs, "left": noise(8, 16)},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_an_output_that_failed_says_what_its_error_looks_like(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", FakeBackend(FAULTS[kind]))
    [result] = judge(subject(), tmp_path)
    outputs = {output.name: output for output in result.outputs}
    assert [outputs[name].verdict for name in ("left", "right")] == ["fail", "pass"]
    assert outputs["right"].looks_like is None
    found = outputs["left"].looks_like
    assert found.kind == kind
    assert {"scale": found.factor, "swapped": found.other, "slice": found.entries}.get(kind) == {
        "scale": pytest.approx(1.25, rel=1e-2), "swapped": "right", "slice": ((3, 3),),
    }.get(kind)  # fmt: skip


def test_an_engine_that_gives_the_case_before_again_is_stale(tmp_path, monkeypatch):
    kept = {}

    def fault(outputs, given, run):
        return {name: kept.setdefault(name, tensor).clone() for name, tensor in outputs.items()}

    monkeypatch.setitem(BACKENDS, "fake", FakeBackend(fault))
    first, second = judge(subject(), tmp_path, ask=("one", "two"))
    assert (first.verdict, second.verdict) == ("pass", "fail")
    assert {(output.looks_like.kind, output.looks_like.other) for output in second.outputs} == {("stale", "one")}


def test_an_output_of_another_shape_looks_like_nothing(tmp_path, monkeypatch):
    fault = lambda outputs, given, run: {**outputs, "left": outputs["left"][:4].clone()}  # noqa: E731
    monkeypatch.setitem(BACKENDS, "fake", FakeBackend(fault))
    [result] = judge(subject(), tmp_path)
    assert [(output.verdict, output.looks_like) for output in result.outputs if output.name == "left"] == [
        ("fail", None)
    ]


def test_a_failure_names_the_next_command(tmp_path):
    with Run(replace(subject(), locator="models:NET"), quiet(tmp_path)).target(Target("torch", "fp16")) as opened:
        assert next_step(opened, "one") == "parity bisect models:NET -b torch -p fp16 --case one"


@pytest.mark.gpu
def test_tensorrt_for_rtx_on_the_gpu(tmp_path):
    from harness.backends import BACKENDS

    if reason := BACKENDS["rtx"].unavailable():
        pytest.skip(reason)
    results = judge(subject(targets=targets("rtx", precisions=("tf32", "fp16", "bf16"))), tmp_path, device="cuda")
    assert [result.verdict for result in results] == ["pass", "pass", "pass"], [result.reason for result in results]
    assert results[0].provenance.device == torch.cuda.get_device_name()
