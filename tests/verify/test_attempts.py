"""What failed is tried again where that was asked, and each attempt is recorded; a wrong answer never is."""

from __future__ import annotations

import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import fake
import pytest
import torch
from fake import FakeBackend, FakeSession, quiet

from harness import limits
from harness.arguments import classes
from harness.backends import BACKENDS, BuildReport, BuildRequest
from harness.errors import EngineFailed, EngineRefused, NoMemory, NotJudged, ParityError
from harness.records import Result, settled_result
from harness.settings import Settings
from harness.subject import Target
from harness.verify import verify

CRASH = EngineFailed("it died with signal 11", failure="crash")
DEVICE = NotJudged("the GPU has fallen off the bus", failure="device")


class Failing(FakeBackend):
    """Raises these, one at each build or run, and works after that."""

    def __init__(self, *errors: ParityError, in_build: bool = False, wrong: bool = False) -> None:
        super().__init__((lambda outputs, given, run: {n: 2 * t for n, t in outputs.items()}) if wrong else None)
        self.errors, self.in_build = list(errors), in_build

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        if self.in_build and self.errors:
            raise self.errors.pop(0)
        return super().build(request, engine, settings)

    def load(self, engine: Path) -> FakeSession:
        return FailingSession(self)


class FailingSession(FakeSession):
    """Raises what its backend still has."""

    def run(self, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert isinstance(self.backend, Failing)
        if not self.backend.in_build and self.backend.errors:
            raise self.backend.errors.pop(0)
        return super().run(given)


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def judge(backend: FakeBackend, **options: object) -> Result:
        monkeypatch.setitem(BACKENDS, "fake", backend)
        targets, settings = [Target("fake", "fp16")], quiet(tmp_path, **options)
        (result,) = verify(fake.subject(), targets=targets, cases=["one"], settings=settings)
        assert backend.open_sessions == 0
        return result

    return judge


@pytest.mark.parametrize("in_build", [False, True])
@pytest.mark.parametrize("error", [CRASH, DEVICE])
def test_an_engine_that_failed_once_passes_in_the_next_attempt_and_says_so(judged, error, in_build):
    result = judged(Failing(error, in_build=in_build), retries=1)
    verdict = "fail" if error is CRASH else "not_judged"
    assert (result.verdict, result.failure, result.attempts_allowed) == ("pass", "", 2)
    assert [(one.verdict, one.failure) for one in result.attempts] == [(verdict, error.failure), ("pass", "")]
    assert result.attempts[0].reason == str(error)
    assert result.notes[0] == f"passed at attempt 2 of 2; attempt 1: {error.failure}: {error}"
    assert settled_result(result.to_json())["verdict"] == "pass"


def test_attempts_end_with_the_last_one_that_is_allowed(judged):
    result = judged(Failing(CRASH, CRASH, CRASH), retries=2)
    assert (result.verdict, result.failure) == ("fail", "crash")
    assert [one.failure for one in result.attempts] == ["crash"] * 3
    assert result.notes[0].startswith("failed at attempt 3 of 3; attempt 1: crash")


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (CRASH, {}),
        (CRASH, {"retries": 1, "retry_on": ("device",)}),
        (NoMemory("no memory"), {"retries": 1}),
        (EngineRefused("no such op"), {"retries": 1}),
        (NotJudged("no weights"), {"retries": 1, "retry_on": ("refused", "crash", "device", "memory", "timeout")}),
    ],
)
def test_what_is_not_asked_for_is_not_tried_again(judged, error, options):
    result = judged(Failing(error), **options)
    assert (result.verdict != "pass", result.failure, result.attempts) == (True, error.failure, ())


def test_a_wrong_answer_is_not_tried_again(judged):
    backend = Failing(wrong=True)
    result = judged(backend, retries=3, retry_on=("refused", "crash", "device", "memory", "timeout"))
    assert (result.verdict, result.failure, result.attempts, backend.builds) == ("fail", "wrong_answer", (), 1)


def test_a_wrong_answer_after_a_crash_stays_one(judged):
    result = judged(Failing(CRASH, wrong=True), retries=3)
    assert (result.verdict, result.failure) == ("fail", "wrong_answer")
    assert [one.failure for one in result.attempts] == ["crash", "wrong_answer"]


def test_a_record_of_a_wrong_answer_that_was_tried_until_it_passed_is_contradictory(judged):
    data = judged(Failing(CRASH), retries=1).to_json()
    data["attempts"][0]["failure"] = "wrong_answer"
    settled = settled_result(data)
    assert (settled["verdict"], settled["failure"]) == ("fail", "wrong_answer")


@pytest.mark.parametrize("text", ["wrong_answer", "crash,wrong_answer", "wrong", "nonsense", "", ","])
def test_classes_that_cannot_be_tried_again(text):
    with pytest.raises(ArgumentTypeError):
        classes(text)


class Hanging(FakeBackend):
    """Builds until it is told to end, as TensorRT's child process does, so often; the time of an option passes then."""

    def __init__(self, option: str, *, times: int = 1) -> None:
        super().__init__()
        self.option, self.times = option, times

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        if self.builds >= self.times:
            return super().build(request, engine, settings)
        self.builds += 1
        engine.write_bytes(b"half")
        for limit in limits._applying():
            if limit.option == self.option:
                limit.ends = time.monotonic() - 0.01
        threading.Event().wait(limits.remaining_s())
        raise limits.out_of_time()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--build-timeout", "two-heads [fake-fp16]: building the engine took longer than 900 s (--build-timeout);"),
        ("--run-timeout", "two-heads took longer than 900 s (--run-timeout) while building the engine;"),
        ("--budget", "the budget of 900 s was spent (--budget) while building the engine;"),
    ],
)
def test_a_build_without_an_end_is_not_judged_and_leaves_nothing(judged, tmp_path, option, said):
    with limits.allowed(build=900, subject=900, budget=900):
        result = judged(Hanging(option))
    assert (result.verdict, result.failure, result.limit) == ("not_judged", "timeout", option)
    assert result.reason.startswith(said)
    assert {path.name for path in (tmp_path / "engines").iterdir() if path.is_file()} <= {
        "README.md", ".gitignore", "CACHEDIR.TAG",
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--build-timeout", "--run-timeout", "--budget"])
def test_only_a_build_that_took_too_long_may_be_tried_again(judged, option):
    with limits.allowed(build=900, subject=900, budget=900):
        result = judged(Hanging(option), retries=1, retry_on=("timeout",))
    attempts = ["timeout", ""] if option == "--build-timeout" else []
    assert [one.failure for one in result.attempts] == attempts


def test_what_the_budget_does_not_reach_is_not_begun(tmp_path, monkeypatch):
    backend = Failing()
    monkeypatch.setitem(BACKENDS, "fake", backend)
    targets = [Target("fake", "fp16"), Target("fake", "fp32")]
    with limits.allowed(budget=1, started=0):
        found = list(verify(fake.subject(), targets=targets, cases=["one", "two"], settings=quiet(tmp_path)))
    assert backend.builds == 0
    assert [one.reason for one in found] == ["the budget of 1 s was spent (--budget); give more, or 0 for no limit"] * 4
    assert {replace(one, case="", precision="").failure for one in found} == {"timeout"}
