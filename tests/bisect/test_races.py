"""Engines whose kernels overlap that must not: told by a run with one kernel at a time."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bisecting import TWO_KERNELS, Bisect
from fake import quiet
from planted import PLANTED, PlantedBackend, install

from harness import Target
from harness.backends import BACKENDS
from harness.bisect import bisection, races
from harness.bisect.context import Context
from harness.bisect.findings import Findings
from harness.bisect.races import Alone, Race, race_in, race_in_fp32, run_alone
from harness.errors import EngineFailed
from harness.records.accuracy import OutputResult, Result
from harness.verify.target import OpenTarget, Run

FP16, FP32 = Target("planted", "fp16"), Target("planted", "fp32")
NO_RUN: Any = None


def alone(together: float, alone: float, verdict: Any) -> Alone:
    """Return an engine that is wrong by so much as it runs, and with one kernel at a time."""
    ones = torch.ones(4)
    judged = (OutputResult(name="y", verdict=verdict, reason="relative error 0.05"),)
    return Alone(together={"y": ones + together}, alone={"y": ones + alone}, expected={"y": ones}, judged=judged)


@pytest.mark.parametrize(
    ("together", "by_itself", "expected"),
    [
        (0.5, 0.5 + 1e-6, False), (0.5, 0.3, False), (0.5, 0.1, True), (0.5, 0.0, True), (0.5, 0.5, False),
        (math.inf, 0.5, True), (math.inf, math.nan, False),
    ],
)  # fmt: skip
def test_only_kernels_that_do_better_alone_are_said_not_to_wait(
    together: float, by_itself: float, expected: bool, monkeypatch: pytest.MonkeyPatch
):
    found = alone(together, by_itself, "pass" if by_itself < 0.2 else "fail")
    monkeypatch.setattr(races, "run_alone", lambda *_: found)
    race = race_in(NO_RUN, FP16, "one")
    assert race.races is expected
    [asked] = race.questions
    assert asked.answer == ("yes" if together == by_itself else "no")
    assert ("passes" in asked.detail) is (by_itself < 0.2)


def test_where_no_kernels_overlap_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PLANTED["wrong_kernel"])
    run = Run(PLANTED["wrong_kernel"].subject, quiet(tmp_path))
    assert race_in(run, FP16, "one") == race_in_fp32(run, FP32, "one") == Race()


@pytest.mark.parametrize("ask", [race_in, race_in_fp32])
def test_a_run_that_fails_answers_nothing(ask: Any, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise EngineFailed("the engine did not end within 600 s")

    monkeypatch.setattr(races, "run_alone", fail)
    race = ask(NO_RUN, FP32, "one")
    assert not race.races
    assert [(asked.answer, asked.detail) for asked in race.questions] == [
        ("not asked", "the engine did not end within 600 s")
    ]


@pytest.mark.parametrize("right", [True, False])
def test_the_run_with_one_kernel_at_a_time_is_judged_as_the_engine_is(
    right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, PLANTED["wrong_kernel"])
    run = Run(PLANTED["wrong_kernel"].subject, quiet(tmp_path))
    expected = run.prepared.references.reference("one", "fp32")
    made = {name: tensor * (1 if right else 2) for name, tensor in expected.items()}
    monkeypatch.setattr(OpenTarget, "on_gpu", True)
    monkeypatch.setattr(OpenTarget, "device_name", "a GPU")
    monkeypatch.setattr(OpenTarget, "gpu_uuid", "")
    monkeypatch.setattr(races, "run_serialised", lambda *_: made)
    found = run_alone(run, FP16, "one")
    assert found is not None
    assert [output.verdict for output in found.judged] == ["pass" if right else "fail"]
    assert race_in(run, FP16, "one").races is right


@pytest.mark.parametrize(
    ("repeatable", "by_itself", "answers", "right"),
    [
        (False, "pass", ["no", "yes"], True),
        (False, "fail", ["no", "no"], False),
        (True, "pass", ["no"], False),  # every run is as wrong: the order of kernels is not the question
    ],
)
def test_an_fp32_engine_that_is_wrong_now_and_then_is_asked_with_one_kernel_at_a_time(
    repeatable: bool, by_itself: Any, answers: list[str], right: bool, monkeypatch: pytest.MonkeyPatch
):
    wrong = OutputResult(name="y", verdict="fail", reason="relative error 0.1")
    fp32 = Result(
        subject="s", case="one", backend="planted", precision="fp32", verdict="fail", reason="wrong", outputs=(wrong,),
        repeatable=repeatable,
    )  # fmt: skip
    monkeypatch.setitem(BACKENDS, "planted", PlantedBackend())
    monkeypatch.setattr(races, "run_alone", lambda *_: alone(0.1, 0.05, by_itself))
    context: Any = SimpleNamespace(run=None, case="one", judge=lambda target: SimpleNamespace(result=fp32))
    before = Findings(target=FP16, result=dataclasses.replace(fp32, precision="fp16"))
    found = bisection.judge_fp32(context, before)
    assert [asked.answer for asked in found.questions] == answers
    assert (found.fp32_races, found.fp32_right) == (right, right)
    assert found.result == (before.result if right else fp32)
    assert found.target.precision == ("fp16" if right else "fp32"), "the figures are of the engine that is searched"


@pytest.mark.parametrize("fp32_races", [True, False])
def test_no_plan_is_looked_for_where_fp32_races_as_well(
    fp32_races: bool, bisected: Bisect, monkeypatch: pytest.MonkeyPatch
):
    def judge_fp32(context: Context, found: Findings) -> Findings:
        return dataclasses.replace(bisection.judge_fp32(context, found), fp32_races=fp32_races)

    steps = [judge_fp32 if step is bisection.judge_fp32 else step for step in bisection.STEPS]
    monkeypatch.setattr(bisection, "STEPS", tuple(steps))
    monkeypatch.setattr(bisection, "race_in", lambda *_: Race(races=True))
    found, _ = bisected(TWO_KERNELS)
    assert found.kind == "engine"
    assert "kernels overlap" in found.finding
    assert (found.plan is None) is fp32_races
    assert bool([trial for trial in found.trials if trial.where == "engine"]) is not fp32_races
    assert any("no plan was searched" in note for note in found.notes) is fp32_races
    assert any("use the plan" in advice.action for advice in found.advice) is not fp32_races
    assert any("may pass by chance" in note for note in found.notes) is not fp32_races
    assert found.region
    assert ["CUDA_LAUNCH_BLOCKING=1" in advice.action for advice in found.advice].count(True) == 1
