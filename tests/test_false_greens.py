"""The worst bug this product can have is a green that is not. Every fault here must fail, with the right words."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decided
import latencies
import pytest
import torch
from fake import FakeBackend, ModuleBackend, build, inputs, quiet, subject

from harness import NotJudged, Target, Tolerance, UsageError
from harness.backends import BACKENDS
from harness.checks import PROPERTY, LatencyTiming, Parity
from harness.cli import commands as cli
from harness.discovery import find_subject
from harness.errors import no_exit, suite_code
from harness.history.history import open_history
from harness.latency import benchmark, turns
from harness.latency.options import Options
from harness.ledger import Entry, Ledger, as_known
from harness.metrics.binding import Metric
from harness.metrics.binding import judge as judge_metric
from harness.metrics.perceptual_distance import perceptual_distance
from harness.records import exit_status
from harness.records.latency import Measured, ProcessRun, Session
from harness.records.layers import LayerReport
from harness.records.writer import document, save_json
from harness.report.text import results_table
from harness.verify.references import References
from harness.verify.target import Run
from harness.verify.verify import verify, verify_case


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The subject, exported once: what differs between most tests is only the engine."""
    return Run(subject(), quiet(tmp_path_factory.mktemp("shared")))


@pytest.fixture
def judged(tmp_path, monkeypatch, prepared):
    """Return a function that verifies the fake engine with a fault and returns the results of the cases asked for."""

    def run(fault=None, *, precision="fp16", ask=("one",), settings=None, **changes):
        backend = FakeBackend(fault)
        monkeypatch.setitem(BACKENDS, "fake", backend)
        shared = prepared if settings is None and not changes else Run(subject(**changes), settings or quiet(tmp_path))
        with shared.target(Target("fake", precision)) as target:
            results = [verify_case(target, case).result for case in ask]
        assert backend.open_sessions == 0
        return results

    return run


def add_noise(outputs, given, run):
    generator = torch.Generator().manual_seed(0)
    return {name: t + 0.05 * torch.randn(t.shape, generator=generator) for name, t in outputs.items()}


def one_nan(outputs, given, run):
    outputs["left"][3, 4] = math.nan
    return outputs


def one_infinity(outputs, given, run):
    outputs["left"][3, 4] = math.inf
    return outputs


def swapped(outputs, given, run):
    return {"left": outputs["right"], "right": outputs["left"]}


def only_left(change):
    return lambda outputs, given, run: {**outputs, "left": change(outputs["left"])}


stale: list[torch.Tensor] = []


def last_runs_outputs(outputs, given, run):
    """Return what the run before computed; the first run returns an uninitialised buffer."""
    stale.append(outputs["left"])
    return {**outputs, "left": torch.full_like(outputs["left"], 0.1) if run == 1 else stale[-2]}


def half_written(outputs, given, run):
    """Leave the last row as the poisoned buffer had it."""
    outputs["left"][-1] = 1e30
    return outputs


def raising(outputs, given, run):
    raise RuntimeError("illegal instruction in kernel 7")


@pytest.mark.parametrize(
    ("fault", "changes", "verdict"),
    [
        pytest.param(add_noise, {}, "known", id="as it says"),
        pytest.param(None, {}, "fail", id="it passes"),
        pytest.param(add_noise, {"at_most": 1.5}, "fail", id="it is worse"),
        pytest.param(add_noise, {"expires": date(2020, 1, 1)}, "fail", id="it is expired"),
        pytest.param(add_noise, {"kind": "refused", "at_most": None}, "fail", id="it fails in another way"),
        pytest.param(one_nan, {}, "fail", id="nan"),
        pytest.param(only_left(torch.zeros_like), {}, "fail", id="zeros"),
        pytest.param(raising, {}, "fail", id="it raises"),
    ],
)
def test_the_ledger_makes_nothing_green_and_hides_nothing_else(judged, fault, changes, verdict):
    fields = {"at_most": 1e4, "reason": "tactic 7", "issue": "https://example.com/7", "expires": date(9999, 1, 1)}
    entry = Entry(number=1, subject="two-heads", target=("fake-fp16",), **{**fields, **changes})
    (result,) = judged(fault)
    found = as_known(result, Ledger(entries=(entry,)), entry)
    assert found.verdict == verdict
    assert exit_status([found]) == (0 if verdict == "known" else 1)
    assert exit_status([replace(found, verdict="known", known=None)]) == 1, "a record alone knows nothing"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(add_noise, "PyTorch fp16 loses", id="noise"),
        pytest.param(one_nan, "1 of 128 elements are NaN, the first non-finite one at [3, 4]", id="nan"),
        pytest.param(one_infinity, "infinite on one side only", id="infinity"),
        pytest.param(only_left(torch.zeros_like), "all zeros", id="zeros"),
        pytest.param(only_left(lambda t: torch.full_like(t, 0.2)), "constant", id="constant"),
        pytest.param(only_left(lambda t: t * 0.3), "variance vanished", id="faded"),
        pytest.param(only_left(lambda t: -t), "relative error 2", id="sign"),
        pytest.param(swapped, "relative error", id="swapped"),
        pytest.param(only_left(lambda t: t.t().reshape(t.shape)), "relative error", id="permuted"),
        pytest.param(only_left(lambda t: t.flip(0)), "relative error", id="rows-flipped"),
        pytest.param(only_left(lambda t: t.roll(1, 1)), "relative error", id="shifted"),
        pytest.param(only_left(lambda t: t[:-1]), "shape", id="truncated"),
        pytest.param(only_left(lambda t: t[None]), "shape", id="extra-dimension"),
        pytest.param(only_left(lambda t: t[:0]), "shape", id="empty"),
        pytest.param(lambda o, g, r: {"left": o["left"]}, "missing ['right'], unexpected []", id="missing"),
        pytest.param(lambda o, g, r: {}, "missing ['left', 'right']", id="nothing"),
        pytest.param(lambda o, g, r: {**o, "up": o["left"]}, "unexpected ['up']", id="extra"),
        pytest.param(lambda o, g, r: {"left": o["left"], "Right": o["right"]}, "missing ['right']", id="renamed"),
        pytest.param(only_left(lambda t: t.half()), "is float16, but float32 is declared", id="dtype"),
        pytest.param(only_left(lambda t: t.double()), "is float64, but float32 is declared", id="wider-dtype"),
        pytest.param(lambda o, g, r: {**o, "left": g["x"]}, "shares its memory with 'x'", id="aliases-input"),
        pytest.param(lambda o, g, r: {**o, "left": g["x"].clone()}, "relative error", id="returns-input"),
        pytest.param(last_runs_outputs, "left", id="last-run"),
        pytest.param(half_written, "relative error", id="half-written"),
        pytest.param(raising, "a kernel faulted on the GPU while running the fake engine", id="raises"),
    ],
)
def test_fault_fails(judged, fault, words):
    stale.clear()
    results = judged(fault)
    assert [result.verdict for result in results] == ["fail"]
    assert words in results[0].reason
    assert exit_status(results) == 1


def test_the_same_engine_without_a_fault_passes(judged):
    results = judged(ask=("one", "two"))
    assert [result.verdict for result in results] == ["pass", "pass"]
    assert all(result.repeatable for result in results)
    assert exit_status(results) == 0


def test_a_floor_of_another_shape_is_no_floor_and_no_fault_of_the_engine(judged, monkeypatch, tmp_path):
    floor = References.floor

    def shorter(prepared, case, plan):
        found = floor(prepared, case, plan)
        return replace(found, outputs={**found.outputs, "left": found.outputs["left"][:-1]})

    monkeypatch.setattr(References, "floor", shorter)
    [result] = judged(settings=quiet(tmp_path))
    assert (result.verdict, [output.verdict for output in result.outputs]) == ("not_judged", ["not_judged", "pass"])
    assert "no floor for left: PyTorch in fp16 gives shape [7, 16], and the reference has [8, 16]" in result.notes
    limits = {"left": Tolerance(why="a test", relative_l2=0.01)}
    assert judged(tolerances=limits)[0].verdict == "pass"
    assert judged(only_left(torch.neg), tolerances=limits)[0].verdict == "fail"


@pytest.mark.parametrize(("precisions", "said"), [(("fp32", "tf32"), True), (("fp32",), False)])
def test_an_fp16_engine_does_not_pass_as_fp32(precisions, said, judged, monkeypatch):
    monkeypatch.setattr(FakeBackend, "precisions", precisions)
    result = judged(precision="fp32")[0]
    assert result.verdict == "fail"
    assert ("TF32-sized" in result.reason) is said  # FP16 and TF32 have the same significand


def first_row_is_padding(given: Any) -> torch.Tensor:
    """Return the mask of a case whose first row does not count."""
    return (torch.arange(len(given["x"])) > 0)[:, None]


@pytest.mark.parametrize(
    ("row", "verdict"), [pytest.param(0, "pass", id="in padding"), pytest.param(3, "fail", id="where it counts")]
)
def test_nan_passes_in_padding_alone(judged, row, verdict):
    def fault(outputs, given, run):
        outputs["left"][row] = math.nan
        return outputs

    valid = {"left": first_row_is_padding, "right": first_row_is_padding}
    (result,) = judged(fault, valid=valid)
    assert result.verdict == verdict
    assert "valid 112 of 128 elements (16 left out)" in result.reason
    assert all(output.valid == 112 for output in result.outputs)


def test_a_wider_mask_is_not_judged_by_what_a_narrower_one_left(judged):
    def fault(outputs, given, run):
        outputs["left"][0] += 1
        return outputs

    narrow, wide = {"left": first_row_is_padding}, {"left": lambda given: torch.ones(1, 1, dtype=torch.bool)}
    assert [judged(fault, valid=valid)[0].verdict for valid in (narrow, wide)] == ["pass", "fail"]


def test_outputs_of_the_other_case_fail(judged):
    module = build()

    def cached(outputs, given, run):
        return {name: t.detach().half().float() for name, t in module(**inputs(0)).items()}

    assert [result.verdict for result in judged(cached, ask=("one", "two"))] == ["pass", "fail"]


def test_an_engine_that_is_right_every_other_time_fails(judged):
    def flaky(outputs, given, run):
        return {name: t + (0.3 if run % 2 == 0 else 0) for name, t in outputs.items()}

    result = judged(flaky)[0]
    assert result.verdict == "fail"
    assert result.repeatable is False


def test_an_engine_that_is_wrong_in_one_run_of_many_fails(judged, monkeypatch):
    monkeypatch.setattr("harness.verify.run.RUNS_ON_CPU", 8)

    def racing(outputs, given, run):
        return {name: t + (0.3 if run == 5 else 0) for name, t in outputs.items()}

    result = judged(racing)[0]
    assert result.verdict == "fail"
    assert result.repeatable is False
    words = "not repeatable: 1 of 8 runs of the engine differ"
    assert words in result.reason
    assert any(note.startswith(words) for note in result.notes)


def test_a_fault_in_one_run_of_ten_is_found_with_enough_runs_and_what_few_miss_is_said(judged, tmp_path):
    def racing(outputs, given, run):
        return {name: t + (0.3 if run % 10 == 9 else 0) for name, t in outputs.items()}

    [few] = judged(racing)
    assert (few.verdict, few.runs) == ("pass", 2)
    assert "2 runs of " in (text := results_table([few.to_json()]))
    assert "1 of 10 with 81%" in text
    [many] = judged(racing, settings=quiet(tmp_path, runs=20))
    assert (many.verdict, many.repeatable, many.runs) == ("fail", False, 20)


def test_a_wrong_run_that_a_later_one_overwrites_fails(judged, monkeypatch):
    monkeypatch.setattr("harness.verify.run.RUNS_ON_CPU", 3)
    buffer = torch.empty(8, 16)

    def reused(outputs, given, run):
        if run == 1:
            return outputs
        return {**outputs, "left": buffer.copy_(outputs["left"] + (0.3 if run == 2 else 0))}

    result = judged(reused)[0]
    assert result.verdict == "fail"
    assert "shares its memory with 'left', an input or an earlier output" in result.reason


def test_a_buffer_that_the_next_run_overwrites_fails(judged):
    buffer = torch.empty(8, 16)

    def reused(outputs, given, run):
        return {**outputs, "left": buffer.copy_(outputs["left"])}

    result = judged(reused)[0]
    assert result.verdict == "fail"
    assert "shares its memory with 'left'" in result.reason


def test_no_tolerance_lets_nan_or_zeros_pass(judged):
    loose = {"fp16": Tolerance(relative_l2=1e6, why="to show that it does not help")}
    assert judged(one_nan, tolerances=loose)[0].verdict == "fail"
    assert judged(only_left(torch.zeros_like), tolerances=loose)[0].verdict == "fail"


class Nothing(torch.nn.Module):
    def forward(self, x):
        return {}


def test_a_subject_without_outputs_is_refused(judged):
    with pytest.raises(UsageError, match="no outputs"):
        judged(build=lambda: Nothing().eval())


class Draws(torch.nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Zero(torch.nn.Module):
    def forward(self, x):
        return x * 0


class Changes(torch.nn.Module):
    """Gives the same result again after it has changed its input."""

    def forward(self, x):
        return x.abs_() * 2


class Keeps(torch.nn.Module):
    """Returns what it keeps: both runs return one tensor."""

    def __init__(self):
        super().__init__()
        self.total = torch.zeros(8, 16)

    def forward(self, x):
        return self.total.add_(x)


class Counts(torch.nn.Module):
    """Gives the same result for a hundred runs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x):
        self.runs += 1
        return x * (2 + (self.runs > 100))


class Weighted(torch.nn.Module):
    """Decides by a weight that is NaN: the best is the same for everybody, and none of the outputs is NaN."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(16).index_fill(0, torch.tensor([5]), math.nan))

    def forward(self, x):
        return {"best": (x * self.scale).argmax(1)}


class Undecided(torch.nn.Module):
    """Decides by NaN that it computes itself."""

    def forward(self, x):
        return {"best": (-x.abs() - 1).log().argmax(1) + 3}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build": lambda: Draws().eval()}, "not repeatable"),
        ({"build": lambda: torch.nn.Dropout().train()}, "training mode"),
        ({"build": lambda: 1 / 0}, "build() raised ZeroDivisionError"),
        ({"cases": {"one": lambda: {"x": torch.full((8, 16), math.nan)}}}, "holds 128 NaN"),
        ({"build": lambda: Changes().eval()}, "changes its input 'x' in place"),
        ({"build": lambda: Keeps().eval()}, "not repeatable"),
        ({"build": lambda: Counts().eval()}, "changes the buffer 'runs'"),
        ({"build": lambda: Weighted().eval()}, "weight 'scale' holds 1 NaN"),
    ],
)
def test_a_subject_that_proves_nothing_is_never_green(judged, changes, words):
    results = judged(**changes)
    assert [result.verdict for result in results] == ["not_judged"]
    assert words in results[0].reason
    assert exit_status(results) == 3


def test_a_module_and_an_engine_that_agree_on_nan_are_not_judged(judged, monkeypatch, tmp_path):
    given = {"build": lambda: Undecided().eval(), "targets": (Target("ort-cpu", "fp32"),)}
    [result] = verify(subject(**given), targets=given["targets"], cases=["one"], settings=quiet(tmp_path))
    assert result.verdict == "not_judged"
    assert "holds 128 NaN" in result.reason


class Cut(torch.nn.Module):
    """Gives no element of one output, and with ``beside`` all of another."""

    def __init__(self, beside: bool) -> None:
        super().__init__()
        self.beside = beside

    def forward(self, x):
        return {"none": x[:0], **({"all": 2 * x} if self.beside else {})}


@pytest.mark.parametrize(("beside", "verdict"), [(False, "not_judged"), (True, "pass")])
def test_a_run_whose_outputs_are_all_empty_is_never_green(monkeypatch, tmp_path, beside, verdict):
    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(lambda: Cut(beside).eval(), torch.float32))
    cut = subject(build=lambda: Cut(beside).eval())
    [result] = verify(cut, targets=cut.targets, cases=["one"], settings=quiet(tmp_path))
    assert (result.verdict, result.outputs[0].verdict) == (verdict, verdict)
    assert "empty" in result.outputs[0].reason
    assert ("nothing was compared" in result.reason) is not beside
    assert exit_status([result]) == (0 if beside else 3)


class Step(torch.nn.Module):
    """Appends to a past, as a decoder does."""

    def forward(self, x, past):
        return {"sum": x + 1, "past": [{name: torch.cat([it, x], 1) for name, it in layer.items()} for layer in past]}


class FlatStep(torch.nn.Module):
    """The same by paths, as an engine gives it."""

    def forward(self, **given):
        x = given.pop("x")
        return {"sum": x + 1, **{f"output.{path}": torch.cat([it, x], 1) for path, it in given.items()}}


def exchanged(one, other):
    return lambda outputs, given, run: outputs | {one: outputs[other], other: outputs[one]}


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (None, ""),
        (exchanged("output.past.0.key", "output.past.0.value"), "output.past.0."),
        (exchanged("output.past.0.key", "output.past.1.key"), "output.past."),
        (lambda outputs, given, run: outputs | {"output.past.1.value": given["past.1.value"].repeat(1, 2)}, "1.value"),
        (lambda outputs, given, run: {k.removeprefix("output."): it for k, it in outputs.items()}, "missing"),
    ],
)
def test_a_nested_output_in_the_place_of_another_fails_and_is_named(judged, monkeypatch, tmp_path, fault, named):
    def given():
        layers = ([inputs(seed)["x"] for seed in pair] for pair in ((1, 2), (3, 4)))
        return {"x": inputs(0)["x"], "past": [dict(zip(("key", "value"), pair, strict=True)) for pair in layers]}

    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(FlatStep, torch.float32, fault))
    step = subject(build=lambda: Step().eval(), cases={"one": given})
    [result] = verify(step, targets=step.targets, cases=["one"], settings=quiet(tmp_path))
    assert result.verdict == ("fail" if fault else "pass"), result.reason
    assert named in result.reason


def test_an_all_zero_reference_is_never_green(tmp_path):
    zero = subject(build=lambda: Zero().eval(), targets=(Target("torch", "fp16"),))
    results = list(verify(zero, targets=zero.targets, cases=["one"], settings=quiet(tmp_path)))
    assert [result.verdict for result in results] == ["not_judged"]
    assert "all zeros" in results[0].reason


def test_a_stale_reference_fails_and_says_what_changed(judged, tmp_path):
    assert judged(settings=quiet(tmp_path, update_references=True))[0].verdict == "pass"
    assert "stored" in judged(settings=quiet(tmp_path))[0].provenance.reference

    def other_weights():
        module = build()
        with torch.no_grad():
            module.left.bias += 1
        return module

    result = judged(build=other_weights)[0]
    assert result.verdict == "fail"
    assert "the weights" in result.reason
    assert "parity reference two-heads --case one" in result.reason


def test_a_damaged_reference_fails(judged, tmp_path):
    judged(settings=quiet(tmp_path, update_references=True))
    file = tmp_path / "references" / "two-heads" / "one.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    result = judged(settings=quiet(tmp_path))[0]
    assert result.verdict == "fail"
    assert "damaged" in result.reason


def test_trouble_in_one_target_leaves_the_others_to_run(tmp_path, monkeypatch):
    class Broken(FakeBackend):
        name = "broken"

        def build(self, request, engine, settings):
            raise ValueError("the builder lost its way")

    class Missing(FakeBackend):
        name = "missing"

        def unavailable(self):
            return "No module named 'missing'"

    for backend in (Broken(), Missing(), FakeBackend()):
        monkeypatch.setitem(BACKENDS, backend.name, backend)
    targets = [Target(name, "fp16") for name in ("broken", "missing", "fake")]
    results = list(verify(subject(), targets=targets, cases=["one"], settings=quiet(tmp_path)))
    assert [result.verdict for result in results] == ["fail", "not_judged", "pass"]
    assert "building the broken engine raised ValueError: the builder lost its way" in results[0].reason
    assert exit_status(results[1:], require=["missing"]) == 3


def test_a_backend_that_refuses_is_not_judged(tmp_path, monkeypatch):
    class Refuses(FakeBackend):
        def load(self, engine):
            raise NotJudged("out of GPU memory")

    monkeypatch.setitem(BACKENDS, "fake", Refuses())
    results = list(verify(subject(), targets=subject().targets, cases=["one", "two"], settings=quiet(tmp_path)))
    assert [result.verdict for result in results] == ["not_judged", "not_judged"]


# What is wrong in a part of an output. The norm of the whole hides every one of these.


class ManyParts(torch.nn.Module):
    """Boxes in pixels beside scores, a hidden state with one large channel, logits of which some are masked."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {"boxes": (16, 4), "scores": (16, 16), "hidden": (16, 48), "logits": (16, 64)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.randn(shape, generator=generator) / 4)
        self.register_buffer("scale", torch.ones(48).index_fill(0, torch.tensor([5]), 1000.0))
        self.register_buffer("mask", torch.zeros(64).index_fill(0, torch.arange(48, 64), -1e4))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        boxes, scores = torch.sigmoid(x @ self.boxes) * 640, torch.sigmoid(x @ self.scores * 1.5 - 6)
        return {
            "pred": torch.cat([boxes, scores], -1).transpose(0, 1)[None],
            "hidden": ((x @ self.hidden) * self.scale).reshape(4, -1, 48),
            "logits": (x @ self.logits)[:32] + self.mask,
        }


@pytest.fixture(scope="module")
def parts_prepared(tmp_path_factory):
    def given() -> dict[str, torch.Tensor]:
        return {"x": torch.randn(256, 16, generator=torch.Generator().manual_seed(1))}

    made = subject(name="many-parts", build=lambda: ManyParts().eval(), cases={"one": given})
    return Run(made, quiet(tmp_path_factory.mktemp("parts")))


def part(output: str, index: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    def fault(outputs: Any, given: Any, run: int) -> Any:
        outputs[output][index] = change(outputs[output][index])
        return outputs

    return fault


def noise(size: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda t: t + size * t.std() * torch.randn(t.shape, generator=torch.Generator().manual_seed(7))


EACH = slice(None)
OTHERS = [k for k in range(48) if k != 5]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(part("pred", (EACH, slice(4, None)), torch.zeros_like), "pred: ", id="scores-zero"),
        pytest.param(part("pred", (EACH, slice(4, None)), lambda t: t.roll(1, 2)), "pred: ", id="scores-of-others"),
        pytest.param(part("pred", (EACH, slice(4, None)), lambda t: t.flip(1)), "pred: ", id="classes-reversed"),
        pytest.param(part("pred", (EACH, 9), torch.zeros_like), "slice 9 of axis 1", id="one-class-zero"),
        pytest.param(part("pred", (EACH, 9), lambda t: t * 1.02), "slice 9 of axis 1", id="one-class-scaled"),
        pytest.param(
            part("pred", (EACH, 9), lambda t: t.mean().expand_as(t)), "slice 9 of axis 1", id="one-class-mean"
        ),
        pytest.param(part("pred", (EACH, 9), noise(0.05)), "slice 9 of axis 1", id="one-class-noise"),
        pytest.param(part("pred", (EACH, EACH, 33), lambda t: t * 1.05), "slice 33 of axis 2", id="one-anchor-scaled"),
        pytest.param(part("hidden", (..., OTHERS), torch.zeros_like), "hidden: ", id="other-channels-zero"),
        pytest.param(part("hidden", (..., OTHERS), lambda t: t.roll(1, 1)), "hidden: ", id="other-channels-rolled"),
        pytest.param(part("hidden", (..., OTHERS), lambda t: t * 1.02), "hidden: ", id="other-channels-scaled"),
        pytest.param(part("hidden", (..., OTHERS), noise(0.03)), "hidden: ", id="other-channels-noise"),
        pytest.param(part("hidden", (..., 7), torch.neg), "slice 7 of axis 2", id="one-channel-negated"),
        pytest.param(
            part("hidden", (..., 7), lambda t: t + 0.01 * t.std()), "slice 7 of axis 2", id="one-channel-biased"
        ),
        pytest.param(part("hidden", (2, EACH, OTHERS), noise(0.05)), "hidden: ", id="one-batch-entry"),
        pytest.param(part("logits", (EACH, slice(0, 48)), lambda t: t.flip(0)), "logits: ", id="unmasked-of-others"),
        pytest.param(part("logits", (EACH, slice(0, 48)), torch.zeros_like), "logits: ", id="unmasked-zero"),
        pytest.param(part("logits", (EACH, slice(0, 48)), lambda t: t * 1.01), "logits: ", id="unmasked-scaled"),
        pytest.param(part("logits", (EACH, slice(0, 48)), noise(0.03)), "logits: ", id="unmasked-noise"),
        pytest.param(part("logits", (3, slice(0, 48)), noise(0.1)), "logits: ", id="one-row-of-the-unmasked"),
        pytest.param(part("logits", (3, 5), lambda t: t + 0.3), "logits: ", id="one-logit"),
    ],
)
def test_a_part_that_is_wrong_fails(fault, words, parts_prepared, monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(lambda: ManyParts().eval(), torch.float16, fault))
    with parts_prepared.target(Target("fake", "fp16")) as target:
        result = verify_case(target, "one").result
    assert result.verdict == "fail"
    assert words in result.reason
    failed = next(output for output in result.outputs if output.verdict == "fail")
    assert [output.verdict for output in result.outputs].count("fail") == 1
    assert any(one.fails and one.kind != "whole" for one in failed.parts)
    assert "PyTorch fp16 loses" in failed.reason


def test_the_same_parts_without_a_fault_pass(parts_prepared, monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(lambda: ManyParts().eval(), torch.float16))
    with parts_prepared.target(Target("fake", "fp16")) as target:
        assert verify_case(target, "one").result.verdict == "pass"


# What a suite's test makes of it. A skipped test is shown with its reason; where the backend is required, it fails.

SKIPPED, FAILED = pytest.skip.Exception, pytest.fail.Exception


@pytest.fixture
def asked(monkeypatch, prepared):
    """Return a function that opens the fake engine as a test's ``parity``; what it records is in ``recorded``."""
    monkeypatch.setitem(BACKENDS, "fake", FakeBackend())

    @contextlib.contextmanager
    def ask(*, required: bool = False) -> Iterator[Parity]:
        item: Any = SimpleNamespace(user_properties=[], path=Path(__file__))
        with prepared.target(Target("fake", "fp16")) as target:
            yield Parity(target, "one", item, required=required, timing=LatencyTiming(processes=3, record=False))

    return ask


def recorded(parity: Parity) -> dict[str, Any]:
    """Return the result that the JSON of the run will hold."""
    return dict(parity._item.user_properties)[PROPERTY]


def as_pictures(outputs: Any) -> torch.Tensor:
    return outputs["left"].reshape(1, 1, 8, 16).sigmoid().expand(1, 3, 8, 16)


def no_number(actual: Any, expected: Any) -> float:
    return math.nan


def with_weights(actual: Any, expected: Any) -> Any:
    return perceptual_distance(as_pictures(actual), as_pictures(expected), device="cpu")


def breaks(actual: Any, expected: Any) -> float:
    raise ZeroDivisionError("no words at all")


@pytest.mark.parametrize("required", [False, True])
def test_a_metric_without_its_weights_is_not_judged(asked, tmp_path, monkeypatch, required):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with asked(required=required) as parity:
        parity.check()
        assert recorded(parity)["verdict"] == "pass"
        with pytest.raises(FAILED if required else SKIPPED, match="pd: "):
            parity.check_metric(Metric("pd", with_weights, at_most=100.0, why="a test"))
        assert recorded(parity)["verdict"] == "not_judged"
        parity.check_metric("mean", lambda outputs: outputs["left"].mean(), at_most=1.0)
        assert recorded(parity)["verdict"] == "not_judged", "a metric that passes does not make up for it"


@pytest.mark.parametrize(("function", "error"), [(no_number, AssertionError), (breaks, ZeroDivisionError)])
def test_a_metric_that_gives_no_number_fails(asked, function, error):
    with asked() as parity:
        parity.check()
        with pytest.raises(error):
            parity.check_metric(Metric("m", function, at_most=1e9, why="a test"))
        assert recorded(parity)["verdict"] == "fail"


def test_layers_of_which_none_was_seen_are_not_judged(asked, monkeypatch):
    def nothing_seen(opened, case):
        report = LayerReport(
            subject="two-heads", case=case, backend="fake", precision="fp16", mode="unfused", values=(), modules=(),
            observer=(), trusted=True,
        )  # fmt: skip
        return replace(verify_case(opened, case).result, layers=report)

    with asked() as parity, pytest.raises(SKIPPED, match="cannot be observed"):
        parity.check_layers()
    monkeypatch.setattr("harness.layers.judge_with_layers", nothing_seen)
    with asked() as parity, pytest.raises(SKIPPED, match="no value inside the engine"):
        parity.check_layers()
    with asked(required=True) as parity, pytest.raises(FAILED, match="no value inside the engine"):
        parity.check_layers()


# Latency


@pytest.fixture
def timed(monkeypatch, tmp_path) -> Callable[..., None]:
    """Return a function that pretends the processes of a session; the history is empty."""
    monkeypatch.setenv("PARITY_HISTORY", str(tmp_path / "history.sqlite"))

    def answer(run: Callable[[int], ProcessRun]) -> None:
        started: list[Any] = []

        class Worker:
            def __init__(self, request: Any) -> None:
                started.append(request)
                self.number = len(started)

            def ready(self) -> None: ...

            def go(self) -> None: ...

            def result(self) -> ProcessRun:
                return run(self.number)

            def close(self) -> None: ...

        monkeypatch.setattr(turns, "Worker", Worker)

    return answer


def usual(number: int, ms: float = 2.0, **changes: Any) -> ProcessRun:
    return latencies.process(ms * (1 + number % 5 / 1000), **changes)


def timings(prepared: Run, history: Any = None, **options: Any) -> list[Any]:
    chosen = Options(**{"processes": 3, "baselines": (), **options})
    with prepared.target(Target("fake", "fp16")) as target:
        return [benchmark.bench_opened(target, "one", chosen, history)]


def test_a_latency_without_a_baseline_is_not_judged(asked, timed):
    timed(usual)
    with asked() as parity, pytest.raises(SKIPPED, match=r"not judged.*no baseline"):
        parity.check_latency()


@pytest.mark.parametrize("required", [False, True])
def test_a_latency_in_an_invalid_environment_is_not_judged(asked, timed, prepared, required):
    timed(lambda number: usual(number, invalid=("a stranger computes",) if number % 3 == 2 else ()))
    with asked(required=required) as parity, pytest.raises(FAILED if required else SKIPPED, match="a stranger"):
        parity.check_latency()
    (found,) = timings(prepared)
    assert found.comparison.verdict == "invalid_environment"
    assert benchmark.exit_status([found]) == 3


def test_a_session_with_one_process_has_no_figures(asked, timed, prepared):
    def only_one(number: int) -> ProcessRun:
        if number > 1:
            raise NotJudged("no memory for another process")
        return usual(number)

    timed(only_one)
    (found,) = timings(prepared)
    assert not isinstance(found, Measured)
    assert benchmark.exit_status([found]) == 3
    timed(only_one)
    with asked(required=True) as parity, pytest.raises(FAILED, match="no memory for another process"):
        parity.check_latency()


def test_nothing_timed_is_not_a_pass():
    assert benchmark.exit_status([]) == 3


def accepted(prepared: Run, sessions: int, timed: Callable[..., None]) -> Session:
    """Record sessions of 2 ms and accept them; return the last."""
    timed(usual)
    with open_history() as history:
        found = [timings(prepared, history)[0].session for _ in range(sessions)]
        last = found[-1]
        history.accept(last.benchmark, last.machine.key, [s.id for s in found], "a test", "me", "")
    return last


def test_a_time_that_is_no_number_is_not_equivalent(asked, timed, prepared):
    accepted(prepared, 4, timed)
    timed(lambda number: usual(number, math.nan if number == 2 else 2.0))
    with open_history() as history:
        (found,) = timings(prepared, history, record=False)
    assert found.comparison.verdict == "inconclusive"
    timed(usual)
    with asked() as parity:
        assert parity.check_latency().comparison.verdict == "equivalent"  # so it was the NaN


def test_a_regression_stays_red_and_is_never_equivalent(asked, timed, prepared, monkeypatch):
    accepted(prepared, 4, timed)
    monkeypatch.setattr(FakeBackend, "content", b"slower")
    for path in prepared.settings.engines.glob("*.engine"):
        path.unlink()
    timed(lambda number: usual(number, 2.4))
    with asked() as parity, pytest.raises(SKIPPED, match="stored times alone"):
        parity.check_latency()  # nothing is there for a second look
    with open_history() as history:
        (found,) = timings(prepared, history)
    assert found.comparison.verdict == "regressed"
    assert benchmark.exit_status([found]) == 3
    with asked(required=True) as parity, pytest.raises(FAILED, match="stored times alone"):
        parity.check_latency()


# What is made of records


def reported(*paths: Path) -> tuple[int, dict[str, Any]]:
    """Return the exit status of ``parity report`` and the badge."""
    badge = Path("badge.json")
    status = cli.main(["report", *map(str, paths), "-o", "out", "--badge", str(badge)])
    return status, json.loads(badge.read_text(encoding="utf-8")) if badge.exists() else {}


@pytest.fixture
def passed(judged, tmp_path, monkeypatch) -> dict[str, Any]:
    """Return a result that passed; the working folder is empty."""
    (result,) = judged()
    monkeypatch.chdir(tmp_path)
    return result.to_json()


def saved(results: list[dict[str, Any]], name: str = "records/run.json", **changes: Any) -> Path:
    keys = {key: changes.pop(key) for key in ("study", "bench") if key in changes}
    save_json({**document(results, environment={}, command="parity", **changes), **keys}, Path(name))
    return Path(name)


def test_a_badge_over_all_that_passed_is_green(passed):
    assert reported(saved([passed]))[1]["color"] == "brightgreen"


def test_a_report_of_nothing_is_refused(passed, tmp_path):
    (tmp_path / "empty").mkdir()
    assert reported(tmp_path / "empty") == (2, {})
    assert reported(saved([]))[1]["color"] == "lightgrey"


@pytest.mark.parametrize(
    ("verdict", "changes"),
    [
        pytest.param("pass", {"complete": False}, id="unfinished"),
        pytest.param("pass", {"complete": False, "error": "interrupted"}, id="interrupted"),
        pytest.param("not_judged", {}, id="not-judged"),
        pytest.param("fail", {}, id="failed"),
    ],
)
def test_a_badge_is_green_for_a_whole_run_that_passed_and_for_nothing_else(passed, verdict, changes):
    second = {**passed, "case": "two", "verdict": verdict}
    assert reported(saved([passed, second], **changes))[1]["color"] in ("yellow", "red")


def test_a_badge_over_a_damaged_record_is_not_green(passed):
    path = saved([passed])
    Path("records/cut.json").write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert reported(Path("records"))[1]["color"] == "yellow"


def test_a_required_backend_without_a_verdict_leaves_no_green_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.discovery.find_subject", lambda *names, **options: subject())
    monkeypatch.setitem(BACKENDS, "fake", FakeBackend())
    folders = ["--engines", "engines", "--references", "references", "--device", "cpu"]
    command = ["verify", "two-heads", "--case", "one", "--json", "run.json", *folders]
    assert cli.main([*command, "--require", "rtx"]) == 3
    assert reported(Path("run.json"))[1]["color"] == "yellow"
    assert cli.main(command) == 0
    assert reported(Path("run.json"))[1]["color"] == "brightgreen"


STUDY = """
from harness.records import StudyResult, VariantResult


def variants():
    return ["fp16"]


def run(**asked):
    both = (
        VariantResult(name="reference", settings={}, verdict="pass", reason="it is", latency_ms=9.0),
        VariantResult(name="fp16", settings={}, verdict="not_judged", reason="no weights", latency_ms=2.0),
    )
    yield StudyResult(
        name="tiny", weights="random", weights_source="", inputs="random", device="CPU", score_rule="", variants=both
    )
"""


def shard(number: int, passed: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a shard of three, each of which has a case of its own."""
    names = {key: passed[key] for key in ("subject", "backend", "precision")}
    return {
        **document([{**passed, "case": str(number)}], environment={}, command="pytest"),
        "expected": [{**names, "case": str(number), "arrived": True}],
        "elsewhere": [{**names, "case": str(other), "shard": other} for other in {1, 2, 3} - {number}],
        "shard": {"index": number, "of": 3, "split_sha256": "s"},
    }


@pytest.mark.parametrize("there", [(1, 2), (2, 3), (1,), (1, 1, 2), (1, 2, 2, 3)])
def test_less_or_more_than_the_shards_of_a_run_is_not_green(passed, there):
    parts = [shard(number, passed) for number in there]
    for number, part in enumerate(parts):
        save_json(part, Path(f"records/{number}.json"))
    assert cli.main(["merge", "records", "-o", "whole.json"]) == 1
    assert reported(Path("whole.json"))[1]["color"] == "yellow"
    if set(there) != {1, 2, 3}:
        assert reported(Path("records"))[1]["color"] == "yellow"
    for number in (1, 2, 3):
        save_json(shard(number, passed), Path(f"all/{number}.json"))
    assert cli.main(["merge", "all", "-o", "whole.json"]) == 0
    assert reported(Path("whole.json"))[1]["color"] == "brightgreen"


def test_a_study_whose_variants_were_not_judged_is_no_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "study.py").write_text(STUDY, encoding="utf-8")
    assert cli.main(["study", ".", "-b", "ort-cpu", "--device", "cpu", "--json", "study.json"]) == 3
    assert reported(Path("study.json"))[1]["color"] in ("lightgrey", "yellow")


# A range that is declared, metrics of a set, and records


def batch_of(cut: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any, Any, int], Any]:
    """Return a fault that changes every output by ``cut``, whatever its rows are."""
    return lambda outputs, given, run: {name: cut(tensor.clone()) for name, tensor in outputs.items()}


def beyond_eight(tensor: torch.Tensor) -> torch.Tensor:
    tensor[8:] = 0
    return tensor


def only_of_one(tensor: torch.Tensor) -> torch.Tensor:
    return tensor * 1.5 if len(tensor) == 1 else tensor


def first_row_for_all(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:8].repeat(-(-len(tensor) // 8), 1)[: len(tensor)]


@pytest.mark.parametrize(
    ("cut", "case"), [(beyond_eight, "largest"), (only_of_one, "smallest"), (first_row_for_all, "largest")]
)
def test_an_engine_that_is_right_at_the_sizes_of_its_case_alone_fails(judged, cut, case):
    ranged = {"dynamic": {"x": {0: "batch"}}, "ranges": {"batch": (1, 20)}}
    one, found = judged(batch_of(cut), ask=("one", case), **ranged)
    assert one.verdict == "pass"
    assert found.verdict == "fail"
    assert "batch=" in found.generated


@pytest.mark.parametrize(
    ("limits", "values"),
    [
        ({"at_least": 30, "over": "mean"}, [math.inf, 7.8, 7.8, 7.7]),
        ({"at_least": 30}, [math.inf, 7.8]),
        ({"at_most": 1}, [-math.inf, 0.5]),
        ({"at_most": 1, "over": "mean"}, [0.5, math.nan]),
    ],
)
def test_one_sample_that_is_not_finite_passes_no_set(limits, values):
    result = judge_metric(Metric("m", lambda *_: 0, why="a test", **limits), torch.tensor(values))
    assert result.verdict == "fail"
    assert "sample " in result.reason


def test_twenty_samples_that_show_no_rare_loss_are_no_proof_of_none():
    metric = Metric("m", lambda *_: 0, difference=1, over="mean", why="a test")
    assert judge_metric(metric, torch.zeros(20), torch.zeros(20)).verdict == "not_judged"


def test_a_record_that_contradicts_itself_exits_1(judged):
    [result] = judged(add_noise)
    assert result.verdict == "fail"
    assert exit_status([replace(result, verdict="pass")]) == 1
    assert "contradictory" in results_table([replace(result, verdict="pass").to_json()])


# Decisions: indices, labels, booleans, codes, and what is in their order


@pytest.fixture(scope="module")
def deciding(tmp_path_factory):
    """A subject with decisions of every kind, exported once."""
    made = subject(name="decides", build=lambda: decided.Decides().eval(), cases={"one": decided.given})
    run = Run(made, quiet(tmp_path_factory.mktemp("decides")))
    assert run.prepared.graph.output_names
    return run


def without_a_place(outputs):
    return {**outputs, "where": outputs["where"][:-1].clone()}


def moved_beside_a_tie(outputs):
    outputs = decided.together(decided.swap((3, 4)))(outputs)
    outputs["corners"][0, 3] += 30
    return outputs


def set_to(name, place, value):
    return decided.altered(name, lambda tensor: tensor.__setitem__(place, value))


@pytest.mark.parametrize(
    ("fault", "output", "words"),
    [
        pytest.param(decided.altered("ids", decided.flip(20, by=977)), "ids", "at [20]", id="one-random-id"),
        pytest.param(decided.altered("ids", decided.flip(3)), "ids", "at [3]", id="the-next-id"),
        pytest.param(decided.altered("ids", decided.flip(6, by=1500)), "ids", "at [6]", id="the-tie-of-another-row"),
        pytest.param(set_to("ids", 11, -1), "ids", "at [11]", id="no-such-id"),
        pytest.param(decided.altered("ids", lambda ids: ids.copy_(ids.roll(1))), "ids", "ArgMax", id="ids-shifted"),
        pytest.param(decided.altered("shifted", lambda t: t.add_(1)), "shifted", "ArgMax", id="ids-off-by-one"),
        pytest.param(decided.altered("above", decided.flip(40)), "above", "at [40]", id="a-boolean"),
        pytest.param(decided.altered("above", lambda t: t.logical_not_()), "above", "Greater", id="negated"),
        pytest.param(decided.altered("band", decided.flip(41)), "band", "at [41]", id="two-conditions"),
        pytest.param(without_a_place, "where", "Greater", id="a-place-missing"),
        pytest.param(lambda o: {**o, "picture": o["cut"].clone()}, "picture", "Round", id="cut-off"),
        pytest.param(lambda o: {**o, "cut": o["picture"].clone()}, "cut", "Cast", id="rounded"),
        pytest.param(set_to("picture", (1, 2, 3), 255), "picture", "at [1, 2, 3]", id="a-white-pixel"),
        pytest.param(decided.altered("sorted", decided.swap((10, 11))), "sorted", "at [0, 10]", id="sorted-wrong"),
        pytest.param(set_to("sorted", (0, 4), 0), "sorted", "at [0, 4]", id="an-index-that-is-none"),
        pytest.param(decided.altered("order", decided.swap((3, 4))), "corners", "0.", id="indices-alone"),
        pytest.param(decided.altered("corners", decided.swap((3, 4))), "corners", "0.", id="boxes-alone"),
        pytest.param(decided.together(decided.swap((10, 12))), "order", "at [0, 10]", id="all-that-is-ordered"),
        pytest.param(moved_beside_a_tie, "corners", "0.", id="a-box-beside-a-tie"),
    ],
)
def test_wrong_decision_fails_and_is_named(deciding, monkeypatch, fault, output, words):
    backend = ModuleBackend(decided.Decides, torch.float32, lambda outputs, given, number: fault(outputs))
    monkeypatch.setitem(BACKENDS, "fake", backend)
    with deciding.target(Target("fake", "fp16")) as target:
        result = verify_case(target, "one").result
    failed = {found.name: found.reason for found in result.outputs if found.verdict == "fail"}
    assert result.verdict == "fail"
    assert words in failed[output]


def test_a_decision_of_a_tolerance_in_norms_is_refused(deciding, monkeypatch):
    loose = Tolerance(relative_l2=1e6, why="to show that it does not help")
    monkeypatch.setattr(deciding, "subject", replace(deciding.subject, tolerances={"ids": loose}))
    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(decided.Decides, torch.float32))
    with deciding.target(Target("fake", "fp16")) as target, pytest.raises(UsageError, match="counted, not normed"):
        verify_case(target, "one")


def test_a_recorded_pass_with_a_wrong_decision_is_not_green(deciding, monkeypatch, tmp_path):
    fault = decided.altered("ids", decided.flip(3))
    monkeypatch.setitem(
        BACKENDS, "fake", ModuleBackend(decided.Decides, torch.float32, lambda outputs, given, number: fault(outputs))
    )
    with deciding.target(Target("fake", "fp16")) as target:
        record = verify_case(target, "one").result.to_json()
    monkeypatch.chdir(tmp_path)
    edited = [{**output, "verdict": "pass"} for output in record["outputs"]]
    assert reported(saved([{**record, "verdict": "pass", "outputs": edited}]))[1]["color"] == "red"


ENDS = [lambda: sys.exit(0), lambda: os._exit(0), lambda: sys.exit()]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["build", "case", "forward"])
def test_a_suite_that_ends_the_process_is_not_judged(tmp_path, monkeypatch, capsys, where, end):
    class Ends(torch.nn.Module):
        def forward(self, x):
            if where == "forward":
                end()
            return 2 * x

    def built():
        if where == "build":
            end()
        return Ends().eval()

    def given():
        if where == "case":
            end()
        return {"x": torch.ones(2, 2)}

    ending = subject(build=built, cases={"one": given}, targets=(Target("torch", "fp32"),))
    monkeypatch.setattr("harness.discovery.find_subject", lambda text, **options: ending)
    monkeypatch.chdir(tmp_path)
    before = os._exit
    assert cli.main(["verify", "net"]) == 3
    assert os._exit is before
    assert "raised SystemExit" in capsys.readouterr().out


def test_a_child_that_a_suite_forks_may_end():
    with no_exit():
        child = os.fork()
        if child == 0:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_what_a_suite_closes_is_open_for_the_verdict(monkeypatch):
    monkeypatch.setattr(sys, "stdout", os.fdopen(os.dup(1), "w"))
    with suite_code("clip: build()"):
        sys.stdout.close()
    assert not sys.stdout.closed
    outer = sys.stdout
    with suite_code("clip: build()"):
        sys.stdout = None
        os.close(1)
    assert sys.stdout is outer
    os.fstat(1)


def test_a_command_that_something_ends_has_status_3(monkeypatch, capsys):
    monkeypatch.setattr("harness.discovery.list_subjects", lambda folder: sys.exit(0))
    assert cli.main(["list"]) == 3
    assert "status 0" in capsys.readouterr().err


def test_two_suites_with_one_name_cannot_be_asked_for_by_it(tmp_path):
    text = "import torch\nfrom harness import Subject, targets\nSUBJECT = Subject(name='net', build=torch.nn.ReLU, "
    text += "cases={'one': dict}, targets=targets('torch', precisions=('fp32',)), weights='random')\n"
    for name in ("a", "b"):
        (tmp_path / f"test_{name}.py").write_text(text)
    with pytest.raises(UsageError, match=r"test_a\.py and in .*test_b\.py"):
        find_subject("net", suites=tmp_path)
