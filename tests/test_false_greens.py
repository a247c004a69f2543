"""The worst bug this product can have is a green that is not. Every fault here must fail, with the right words."""

from __future__ import annotations

import math

import pytest
import torch
from fake import FakeBackend, build, inputs, quiet, subject

from harness import NotJudged, Target, Tolerance, UsageError
from harness.backends import BACKENDS
from harness.results import exit_status
from harness.verify import Run, verify


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
            results = [target.judge(case) for case in ask]
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
        pytest.param(raising, "raised RuntimeError: illegal instruction in kernel 7", id="raises"),
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


def test_an_fp16_engine_does_not_pass_as_fp32(judged):
    result = judged(precision="fp32")[0]
    assert result.verdict == "fail"
    assert "TF32-sized" in result.reason  # FP16 and TF32 have the same significand


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build": lambda: Draws().eval()}, "not repeatable"),
        ({"build": lambda: torch.nn.Dropout().train()}, "training mode"),
        ({"build": lambda: 1 / 0}, "build() raised ZeroDivisionError"),
        ({"cases": {"one": lambda: {"x": torch.full((8, 16), math.nan)}}}, "holds 128 NaN"),
    ],
)
def test_a_subject_that_proves_nothing_is_never_green(judged, changes, words):
    results = judged(**changes)
    assert [result.verdict for result in results] == ["not_judged"]
    assert words in results[0].reason
    assert exit_status(results) == 3


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
