"""A machine with two states: sessions are compared within one of them, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated import quiet

from benchmarks.latency_verdict import session
from harness.latency.modes import two_modes
from harness.latency.verdict import compare_sessions
from harness.records.latency import Session

FAST, SLOW = 1980.0, 1755.0


def at(clock: float, level: float = 1.0, identity: str = "new") -> Session:
    return quiet(level * FAST / clock, identity, clock=clock)


def split(identity: str, level: float = 1.0, slow: int = 2) -> Session:
    """Return a session whose last processes ran at the slow clock."""
    clocks = np.where(np.arange(5) < 5 - slow, FAST, SLOW)
    medians = level * FAST / clocks * (1 + 0.002 * np.linspace(-1, 1, 5))
    return session(medians, identity, clocks_mhz=clocks)


def two_clocks(fast: int, slow: int) -> list[Session]:
    return [at(FAST if i < fast else SLOW, 1 + 0.001 * (-1) ** i, f"b{i}") for i in range(fast + slow)]


@pytest.mark.parametrize("clock", [FAST, SLOW])
@pytest.mark.parametrize(("level", "verdict"), [(1.0, "equivalent"), (1.05, "regressed")])
def test_sessions_at_two_clocks_are_compared_at_one(clock: float, level: float, verdict: str):
    result = compare_sessions(at(clock, level), two_clocks(5, 4))
    assert (result.verdict, len(result.baseline)) == (verdict, 5 if clock == FAST else 4)
    assert any(f"compared at {clock:.0f} MHz" in note for note in result.notes)


def test_processes_at_two_clocks_are_compared_at_one():
    result = compare_sessions(split("new"), two_clocks(5, 0))
    assert result.verdict == "equivalent"
    assert any(
        "two modes: SM clock 1755 and 1980 MHz; compared at 1980 MHz: 3 of 5 processes" in n for n in result.notes
    )
    assert compare_sessions(split("new", 1.05), two_clocks(5, 0)).verdict == "regressed"


def test_where_no_clock_is_shared_nothing_is_judged():
    one = split("new", slow=1)
    lonely = replace(one, runs=one.runs[2:])  # two fast processes and a slow one
    result = compare_sessions(lonely, [at(SLOW, 1.0, f"b{i}") for i in range(4)])
    assert (result.verdict, result.ratio) == ("invalid_environment", None)
    assert "two modes" in result.rule


def test_one_clock_against_the_other_is_a_slower_clock_and_not_a_mode():
    assert compare_sessions(at(SLOW), two_clocks(5, 0)).verdict == "slower_clock"


def by_time(*levels: float) -> list[Session]:
    return [quiet(level, f"b{i}") for i, level in enumerate(levels)]


TWO = (1.0, 1.001, 0.999, 1.0, 1.001, 0.999, 1.03, 1.031)


def test_two_modes_by_time():
    fast, slow = two_modes(list(np.log(TWO)))  # type: ignore[misc]
    assert (sorted(fast), sorted(slow)) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert two_modes(list(np.log(TWO[:5]))) is None
    assert two_modes(list(np.log(TWO[:7]))) is None, "one session is an outlier and no mode"
    rng = np.random.default_rng(0)
    assert sum(two_modes(list(rng.normal(0, 0.005, 8))) is not None for _ in range(2000)) <= 10


def test_a_session_in_the_slower_mode_is_not_judged_by_its_time():
    """A slower engine in the faster state of the machine looks the same."""
    old = by_time(*TWO)
    assert compare_sessions(quiet(1.0), old).verdict == "equivalent"
    unclear = compare_sessions(quiet(1.03), old)
    assert unclear.verdict == "invalid_environment"
    assert "two modes, 1 ms (6 sessions) and 1.03 ms (2)" in unclear.rule.replace("1.0305", "1.03")
    assert unclear.next_step
    assert compare_sessions(quiet(1.1), old).verdict == "regressed"
