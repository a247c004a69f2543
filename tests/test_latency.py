"""The median time of a run, and that an engine is warm before it is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import pytest
import torch

from harness import latency
from harness.errors import EngineFailed
from harness.latency import FEWEST, median_ms


class Sleeper:
    """A session whose runs take what a function of their number says, in seconds."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds, self.runs = seconds, 0

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        time.sleep(self.seconds(self.runs))
        self.runs += 1
        return {"y": inputs["x"] + 1}

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


INPUTS = {"x": torch.ones(2)}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for as short a time as the fewest runs take."""
    monkeypatch.setattr(latency, "WARM_UP_S", 0.0)
    monkeypatch.setattr(latency, "MEASURE_S", 0.0)


def test_milliseconds_of_one_run() -> None:
    session = Sleeper(lambda run: 0.01)
    assert 10 <= median_ms(session, INPUTS) < 30
    assert session.runs == 2 * FEWEST


def test_the_first_runs_do_not_count() -> None:
    assert median_ms(Sleeper(lambda run: 0.02 if run < FEWEST else 0.0), INPUTS) < 10


def test_a_few_slow_runs_do_not_count() -> None:
    assert median_ms(Sleeper(lambda run: 0.05 if run % 5 == 0 else 0.0), INPUTS) < 25


def test_it_measures_as_long_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MEASURE_S", 0.1)
    session = Sleeper(lambda run: 0.0)
    started = time.perf_counter()
    median_ms(session, INPUTS)
    assert time.perf_counter() - started >= 0.1
    assert session.runs > 2 * FEWEST


def test_what_a_run_raises_comes_out() -> None:
    def fail(run: int) -> float:
        raise EngineFailed("kernel 7 failed")

    with pytest.raises(EngineFailed, match="kernel 7 failed"):
        median_ms(Sleeper(fail), INPUTS)


def test_on_a_gpu_the_time_is_that_between_two_events(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Event:
        def __init__(self, **options: Any) -> None:
            assert options == {"enable_timing": True}

        def record(self) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("synchronize")

        def elapsed_time(self, other: Event) -> float:
            return 7.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert latency._gpu_ms(Sleeper(lambda run: calls.append("run") or 0.0), INPUTS) == 7.0
    assert calls == ["record", "run", "record", "synchronize"]
