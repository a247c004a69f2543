"""The second look: ranks that hold their level in any noise, and what the verdict becomes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from simulated import base, quiet, with_runs

from benchmarks.latency_verdict import WORLDS, World, rates, session
from harness.latency.ranks import shift, slower_p
from harness.latency.second_look import (
    ACCEPTED,
    LEVELS,
    ROUNDS,
    Control,
    has_control_moved,
    is_suspicious,
    judged_again,
)
from harness.latency.verdict import compare_sessions
from harness.records.latency import Age, Comparison, Session


def eight(level: float, identity: str = "again") -> Session:
    return quiet(level, identity, k=ROUNDS[0])


def accepted(level: float = 1.0, then: float = 1.0) -> Control:
    """Return the accepted engine as it is now, and as it was."""
    old = base(4, level=then)
    return Control(name=ACCEPTED, now=eight(level, "control"), then=[(one, one) for one in old])


def beside_pytorch(level: float, *, spread: float = 0.001) -> Control:
    """Return PyTorch, three times as slow as the engine, ``level`` times as slow as it was."""
    old = base(4)
    then = [(one, quiet(3.0 * (1 + spread * (-1) ** i), f"p{i}")) for i, one in enumerate(old)]
    return Control(name="eager fp32", now=eight(3.0 * level, "control"), then=then)


def judged(new: float, control: Control, *, last: bool = False, first: float | None = None) -> Comparison | None:
    return judged_again(compare_sessions(quiet(first or new), base(4)), eight(new), control, last=last)


# Ranks


@pytest.mark.parametrize(("n", "m"), [(8, 8), (16, 16), (5, 9)])
def test_ranks_are_those_of_mann_and_whitney(n: int, m: int):
    rng = np.random.default_rng(n)
    new, control = list(rng.normal(0.5, 1, n)), list(rng.normal(0, 1, m))
    theirs = mannwhitneyu(new, control, alternative="greater", method="exact").pvalue
    assert slower_p(new, control) == pytest.approx(theirs, rel=1e-9)
    assert slower_p(new, control, margin=100.0) == pytest.approx(1.0)
    assert slower_p([1.0] * 8, [1.0] * 8) == pytest.approx(1.0), "ties are no evidence"


def test_the_interval_holds_the_shift_nineteen_times_in_twenty():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(1000):
        _, low, high = shift(list(rng.standard_cauchy(8) + 1), list(rng.standard_cauchy(8)), 0.95)
        inside += low <= 1 <= high
    assert 0.94 <= inside / 1000 <= 0.975


def test_levels_add_up_to_the_error_of_the_design():
    assert 20 * sum(LEVELS) <= 0.01
    full = list(range(ROUNDS[0]))
    assert slower_p([value + 100.0 for value in full], full) <= LEVELS[0], "else the first look could never decide"


# Verdicts


def test_slower_than_the_accepted_engine_is_confirmed():
    found = judged(1.03, accepted())
    assert found is not None
    assert (found.verdict, found.repeated) == ("regressed", True)
    assert found.second_look is not None
    assert found.second_look.ratio == pytest.approx(1.03, rel=1e-3)
    assert found.second_look.low > 1.01
    assert "in turns with the accepted engine 1.03" in found.rule
    assert found.notes[-1].startswith("by stored times alone inconclusive: 1.03")


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "equivalent"), (0.95, "improved")])
def test_not_slower_in_turns_is_no_regression(ratio: float, verdict: str):
    found = judged(ratio, accepted(), first=1.05)
    assert found is not None
    assert (found.verdict, found.repeated) == (verdict, False)


def test_where_the_accepted_engine_is_as_slow_the_machine_has_changed():
    found = judged(1.05, accepted(1.05))
    assert found is not None
    assert (found.verdict, found.repeated) == ("machine_changed", False)
    assert found.second_look is not None
    assert found.second_look.control_ratio == pytest.approx(1.05, rel=3e-3)
    assert "accept" in found.next_step
    both = judged(1.08, accepted(1.05))
    assert both is not None
    assert (both.verdict, both.repeated) == ("regressed", True), "a slow day excuses no slow engine"


def test_an_unclear_look_goes_on_and_ends_inconclusive():
    wide = session(np.linspace(0.9, 1.2, ROUNDS[0]), "again")
    first = compare_sessions(quiet(1.05), base(4))
    assert judged_again(first, wide, accepted(), last=False) is None
    found = judged_again(first, wide, accepted(), last=True)
    assert found is not None
    assert (found.verdict, found.repeated) == ("inconclusive", False)
    assert found.next_step


def test_the_long_round_is_run_where_the_ranks_promise_a_decision():
    first, control = compare_sessions(quiet(1.05), base(4)), quiet(1.0, "c", k=ROUNDS[1])
    side = Control(name=ACCEPTED, now=control)
    half_slower = session([1.03] * 11 + [0.999] * 5, "again")
    assert judged_again(first, half_slower, side, last=False) is None
    few_slower = session([1.06] * 5 + [0.96] * 11, "again")
    found = judged_again(first, few_slower, side, last=False)
    assert found is not None
    assert found.verdict == "inconclusive"


def test_against_pytorch_a_slow_down_has_to_show_in_the_processes_of_the_look():
    first = compare_sessions(quiet(1.05), base())
    two_modes = session([1.0, 1.06] * 4, "again")  # its median is 3 % above sessions that agree by chance
    found = judged_again(first, two_modes, beside_pytorch(1.0), last=True)
    assert found is not None
    assert (found.verdict, found.repeated) == ("inconclusive", False)


def test_pytorch_stands_for_the_machine():
    same, slower, day = judged(1.0, beside_pytorch(1.0), first=1.05), judged(1.06, beside_pytorch(1.0)), judged(
        1.06, beside_pytorch(1.06)
    )  # fmt: skip
    assert [one and (one.verdict, one.repeated) for one in (same, slower, day)] == [
        ("equivalent", False), ("regressed", True), ("machine_changed", False),
    ]  # fmt: skip


def test_a_spoilt_second_look_decides_nothing():
    spoilt = with_runs(eight(1.05), 3, invalid=("a stranger computes",))
    found = judged_again(compare_sessions(quiet(1.05), base()), spoilt, accepted(), last=False)
    assert found is not None
    assert (found.verdict, found.repeated) == ("invalid_environment", False)
    assert "a stranger computes" in found.rule


def test_what_is_looked_at_again():
    verdicts = [compare_sessions(quiet(level), base()) for level in (0.95, 1.0, 1.05)]
    assert [is_suspicious(one) for one in verdicts] == [True, False, True]
    moved = replace(verdicts[1], age=Age(days=9.0, sessions=5, change=-0.02))
    assert is_suspicious(moved), "a faster machine may hide a slower engine"
    assert not is_suspicious(compare_sessions(quiet(), ()))
    assert not is_suspicious(compare_sessions(with_runs(quiet(), 0, invalid=("x",)), base()))


def test_a_control_that_moved_makes_every_engine_suspicious():
    then = [quiet(3.0 * (1 + 0.002 * (-1) ** i), f"p{i}") for i in range(4)]
    assert [has_control_moved(quiet(3.0 * level), then) for level in (0.97, 1.0, 1.005, 1.03)] == [
        True,
        False,
        False,
        True,
    ]
    wide = [quiet(3.0 * level, f"p{i}") for i, level in enumerate((1.0, 1.04, 0.97, 1.02))]
    assert not has_control_moved(quiet(3.1), wide)
    assert not has_control_moved(quiet(9.0), then[:3])


# The whole design, in the noise of the benchmark


@pytest.mark.parametrize("name", WORLDS)
def test_no_noise_fails_a_run_of_equal_engines(name: str):
    found = rates(WORLDS[name], 2, baseline=4, gap=60)
    assert found["run"] == 0.0


@pytest.mark.parametrize(("baseline", "change"), [(8, 0.03), (4, 0.05)])
def test_a_slower_engine_is_found(baseline: int, change: float):
    assert rates(World(), 10, baseline=baseline, gap=0)[change] >= 0.9  # type: ignore[index]
