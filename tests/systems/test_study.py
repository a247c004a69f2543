"""A second system beside canny2image: an encoder and a greedy decoder that write texts, on ONNX Runtime."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet

from harness import EngineFailed, NotJudged, UsageError
from harness.cli import commands as cli
from harness.records import load, settled_study
from harness.report.facts import tradeoff_points
from harness.report.text import study_text
from harness.systems import Networks, Variant, Written, check_finite, first_difference, run_study, same_tokens

sys.path.insert(0, str(Path(__file__).parent))
from scribe import Scribe, ScribeSystem


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return Networks(ScribeSystem(), quiet(tmp_path_factory.mktemp("scribe")))


def study(networks: Networks, system: ScribeSystem | None = None, **options: Any) -> Any:
    given = {"cases": 2, "backend": "ort-cpu", "settings": networks.settings, "folder": Path("unused"), **options}
    *_, last = run_study(system or ScribeSystem(), networks=networks, **given)
    return last


@pytest.fixture(scope="module")
def found(networks: Networks) -> Any:
    return study(networks)


def poison(monkeypatch: pytest.MonkeyPatch, network: str, precision: str, change: Any) -> None:
    """Change what one PyTorch network gives."""
    honest = Networks._pytorch

    def poisoned(self: Networks, name: str, subject: Any, dtype: str) -> Any:
        run = honest(self, name, subject, dtype)
        return (lambda inputs: change(run(inputs))) if (name, dtype) == (network, precision) else run

    monkeypatch.setattr(Networks, "_pytorch", poisoned)


def torch_variant(name: str, **fields: Any) -> Variant:
    return Variant(**{"name": name, "backend": "torch", "precision": "fp16", "steps": 6, **fields})


def system_of(*variants: Variant, limit: float | None = 0.5) -> ScribeSystem:
    system = ScribeSystem(limit)
    system.variants = variants
    return system


def test_texts_steps_and_stages_are_recorded(found: Any):
    reference, fp32, fp16, mixed, short = found.variants
    assert (found.name, found.weights, found.device, found.inputs) == ("scribe", "random", "CPU", "random")
    assert reference.verdict == "not_judged"
    assert "two runs of the reference gave the same texts" in reference.notes
    assert [text.case for text in fp32.texts] == ["noise-0", "noise-1"]
    assert all(text.text == text.expected and text.first_difference is None for text in fp32.texts)
    assert (fp32.texts[0].tokens, short.texts[0].tokens, short.texts[0].first_difference) == (7, 4, 4)
    assert (fp32.verdict, fp16.settings["precision"], fp16.settings["backend"]) == ("pass", "fp16", "ort-cpu")
    assert mixed.settings["precisions"] == {"decoder": "fp32"}
    assert set(fp32.stages_ms) == {"encoder", "decoder"}
    assert not fp32.pictures
    assert fp32.speed_up == pytest.approx(reference.latency_ms / fp32.latency_ms)


def test_the_error_of_each_step_is_measured_free_and_forced(found: Any):
    _, fp32, fp16, _, short = found.variants
    assert [step.timestep for step in fp16.steps] == list(range(6))
    assert 1e-5 < max(step.forced for step in fp16.steps) < 1e-2
    assert max(step.free for step in fp32.steps) < 1e-5
    assert len(short.steps) == 3
    assert any("against the reference with 3 steps" in note for note in short.notes)


def test_a_limit_holds_for_the_worst_case(networks: Networks, found: Any):
    short = found.variants[-1]
    assert [(m.name, m.verdict, m.bound, m.direction) for m in short.metrics] == [
        ("same tokens mean", "pass", "at_least", "higher"),
        ("same tokens min", "pass", "at_least", "higher"),
    ]
    assert short.metrics[1].actual == pytest.approx(4 / 7)
    (_, strict) = study(networks, system_of(found_variant("short"), limit=0.9)).variants
    assert strict.verdict == "fail"
    (_, shown) = study(networks, system_of(found_variant("short"), limit=None)).variants
    assert (shown.verdict, [metric.name for metric in shown.metrics]) == ("not_judged", ["same tokens"])


def found_variant(name: str) -> Variant:
    return next(variant for variant in ScribeSystem.variants if variant.name == name)


def test_nan_fails_although_it_has_an_argmax(networks: Networks, monkeypatch: pytest.MonkeyPatch):
    poison(monkeypatch, "decoder", "fp16", lambda out: {"logits": out["logits"] * math.nan})
    _, bad, good = study(networks, system_of(torch_variant("bad"), torch_variant("good", precision="fp32"))).variants
    assert (bad.verdict, good.verdict) == ("fail", "pass")
    assert bad.reason == (
        "noise-0: the decoder gave 24 NaN and 0 infinite values of 24 in 'logits' at token 0, from inputs that were "
        "finite"
    )


def test_a_network_that_fails_is_named_and_the_study_goes_on(networks: Networks, monkeypatch: pytest.MonkeyPatch):
    def fail(outputs: Any) -> Any:
        raise EngineFailed("the kernel hung")

    poison(monkeypatch, "encoder", "fp16", fail)
    graph, plan = torch_variant("graph", cuda_graph=True, precision="fp32"), torch_variant("plan", precision="p.toml")
    _, bad, replayed = study(networks, system_of(torch_variant("bad"), graph)).variants
    assert (bad.verdict, bad.reason) == ("fail", "noise-0: the encoder: the kernel hung")
    assert (replayed.verdict, "there is no GPU here" in replayed.reason) == ("not_judged", True)
    with pytest.raises(UsageError, match=r"runs fp32, tf32, fp16, bf16, not 'p\.toml'"):
        study(networks, system_of(plan))


def test_runs_that_differ_are_noted(networks: Networks, monkeypatch: pytest.MonkeyPatch):
    runs = []

    def drift(outputs: Any) -> Any:
        runs.append(1)
        return {"memory": outputs["memory"] * (-5 if len(runs) == 1 else 1)}

    poison(monkeypatch, "encoder", "bf16", drift)
    system = system_of(torch_variant("drifting", precision="bf16"), limit=None)
    assert any("two runs differ: noise-0" in note for note in study(networks, system, cases=1).variants[1].notes)


def test_without_its_reference_a_study_is_not_judged(networks: Networks, monkeypatch: pytest.MonkeyPatch):
    def fail(self: Any, case: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory\nlong")

    monkeypatch.setattr(Scribe, "make", fail)
    with pytest.raises(NotJudged, match=r"the reference, PyTorch FP32, cannot be had: CUDA out of memory$"):
        study(networks)


def test_what_cannot_be_asked_for_is_refused_before_a_network_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(Networks, "open", lambda *_: pytest.fail("a network was made"))
    for options, sentence in (({"steps": 99}, "99 tokens are too many"), ({"variants": ("fp61",)}, "did you mean fp")):
        with pytest.raises(UsageError, match=sentence):
            list(run_study(ScribeSystem(), settings=quiet(tmp_path), folder=tmp_path, **options))


def test_the_table_of_a_system_of_texts(found: Any):
    data = found.to_json()
    assert tradeoff_points(data)[1:] == ("same tokens mean", False)
    text = study_text(data)
    heading = text.splitlines()[1].split()
    assert "PD" not in heading
    assert "same tokens mean" in text.splitlines()[1]
    assert "short: token 4 of 4 differs" in text
    json.dumps(data, allow_nan=False)


def test_the_command_runs_a_system_and_reports_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "suites" / "scribe").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "scribe.py", tmp_path / "suites" / "scribe" / "study.py")
    assert cli.main(["study", "suites/scribe", "--list"]) == 0
    assert capsys.readouterr().out.split() == [variant.name for variant in ScribeSystem.variants]
    options = ["-b", "ort-cpu", "--device", "cpu", "--cases", "1", "--steps", "2", "--variants", "fp32,short"]
    assert cli.main(["study", "suites/scribe", *options, "--engines", "engines"]) == 0
    assert "2 variants: 2 passed" in capsys.readouterr().out
    (document,) = load([tmp_path / "reports"]).documents
    assert document.study is not None
    assert [variant["settings"]["steps"] for variant in document.study["variants"]] == [2, 2, 3]
    assert [len(variant["notes"]) for variant in document.study["variants"]] == [1, 0, 1], "as many steps need no note"
    assert document.study["charts"].keys() == {"same tokens against latency", "error over steps"}
    assert cli.main(["report", "reports", "--html", "-o", "page"]) == 0
    page = next(tmp_path.glob("page/**/*.html")).read_text(encoding="utf-8")
    assert "Texts by case" in page


def test_a_study_recorded_before_there_were_texts_is_read(found: Any, tmp_path: Path):
    data = found.to_json()
    for variant in data["variants"]:
        del variant["texts"]
    record = {"schema": "parity/1", "command": "study", "study": data}
    path = tmp_path / "old.json"
    path.write_text(json.dumps(record))
    (document,) = load([path]).documents
    assert document.study is not None
    assert document.study["variants"][1]["texts"] == []
    assert study_text(settled_study(document.study))


def test_first_differences():
    def written(*tokens: int) -> Written:
        return Written(tokens=tokens)

    assert first_difference(written(1, 2), written(1, 2)) is None
    assert first_difference(written(1, 2), written(1, 3)) == 1
    assert first_difference(written(1), written(1, 3)) == 1
    assert same_tokens(written(), written()) == 1
    assert same_tokens(written(1, 2), written(1, 3, 4)) == pytest.approx(1 / 3)


def test_what_is_not_finite_is_said_without_inputs_that_nobody_saw():
    nan = {"y": torch.tensor([1.0, math.nan, math.inf])}
    said = "the unet gave 1 NaN and 1 infinite values of 3 in 'y'"
    for inputs, where, sentence in (
        ({}, "", said),
        ({}, "of the picture", f"{said} of the picture"),
        (nan, "", f"{said}, from inputs that were not finite"),
        ({"x": torch.ones(1)}, "at time step 1", f"{said} at time step 1, from inputs that were finite"),
    ):
        with pytest.raises(EngineFailed) as caught:
            check_finite("unet", inputs, nan, where=where)
        assert str(caught.value) == sentence
