"""Changes of ratios whose truth is known; benchmarks/accuracy_trend.py measures how often they are found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.history import RUNS_BEFORE, ratio_changes
from harness.records import RatioChange

CREEP = list(np.linspace(1.1, 2.9, 21)[1:])


def noisy(levels: list[float], sigma: float, seed: int = 0) -> list[float]:
    return list(np.array(levels) * np.exp(sigma * np.random.default_rng(seed).standard_normal(len(levels))))


def the_change(ratios: list[float]) -> RatioChange:
    (change,) = ratio_changes(ratios)
    return change


@pytest.mark.parametrize("before", [RUNS_BEFORE, 20, 90])
def test_a_step_of_an_engine_that_repeats_its_bits_is_found_with_two_runs(before: int):
    assert ratio_changes([1.1] * before + [1.5]) == ()
    found = the_change([1.1] * before + [1.5, 1.5])
    assert (found.index, found.before, found.after, found.shape, found.runs_after) == (before, 1.1, 1.5, "step", 2)


def test_tiny_jitter_does_not_hide_a_step():
    ratios = [1.1] * 30
    ratios[7], ratios[19] = 1.1005, 1.0993
    assert the_change([*ratios, 1.5, 1.5]).index == 30


def test_a_step_in_jitter_is_found_with_three_runs():
    ratios = noisy([1.1] * 20 + [2.9] * 3, 0.05)
    assert ratio_changes(ratios[:-1]) == ()
    assert the_change(ratios).index == 20


def test_a_creep_is_found_with_where_it_began_and_where_it_stands():
    found = the_change([1.1] * 20 + CREEP)
    assert (found.index, found.before, found.after, found.shape) == (20, 1.1, 2.9, "creep")
    assert ratio_changes([1.1] * 20 + CREEP[:6])[-1].index == 20, "long before its end"


def test_a_creep_in_jitter_is_found_about_where_it_began():
    for seed in range(5):
        found = ratio_changes(noisy([1.1] * 20 + CREEP, 0.1, seed))[-1]
        assert found.after > 2
        assert abs(found.index - 20) <= 6


def test_a_series_that_is_nothing_but_a_creep():
    found = the_change(list(np.linspace(1.1, 2.9, 20)))
    assert (found.index, found.before, found.after, found.shape) == (1, 1.1, 2.9, "creep")


def test_a_fall_and_a_rise_are_two_changes():
    found = ratio_changes([2.0] * 20 + [1.1] * 20 + [2.9] * 5)
    assert [(one.index, one.before, one.after) for one in found] == [(20, 2.0, 1.1), (40, 1.1, 2.9)]


@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.1, 0.3])
def test_nothing_changes_without_a_reason(sigma: float):
    for seed in range(10):
        ratios = noisy([1.1] * 100, sigma, seed)
        assert [n for n in range(7, 101, 3) if ratio_changes(ratios[:n])] == []


def test_outliers_are_no_change():
    ratios = [1.1] * 60
    for place in (10, 30, 31, 50, 59):
        ratios[place] = 3.0
    assert [n for n in range(7, 61) if n != 32 and ratio_changes(ratios[:n])] == []


def test_small_changes_and_those_far_below_the_floor_are_none():
    assert ratio_changes([1.1] * 30 + [1.3] * 30) == ()
    assert ratio_changes([0.001] * 30 + [0.09] * 30) == ()


def test_another_machine_is_not_taken_for_a_change_at_once():
    ratios = [1.1] * 20 + [1.6] * 3
    assert ratio_changes(ratios, ["a"] * 20 + ["b"] * 3) == ()
    assert the_change([*ratios, 1.6]).index == 20
    assert ratio_changes(ratios, ["a"] * 21 + ["b"] * 2)[-1].index == 20, "seen on the machine of before as well"
    pods = [f"pod-{number}" for number in range(23)]
    assert ratio_changes(ratios, pods)[-1].index == 20, "names that never return say nothing"
    assert ratio_changes([1.1] * 30 + [1.6] * 12, ["a"] * 30 + ["b"] * 12)[-1].index == 30, "and lasting it is one"


def test_missing_figures_keep_the_places():
    ratios = [1.1] * 20 + [1.5] * 4
    for place in (3, 19, 20):
        ratios[place] = math.nan
    assert the_change(ratios).index == 21


def test_too_few_runs_tell_nothing():
    assert ratio_changes([]) == ()
    assert ratio_changes([1.0, 1.0, 1.0, 2.9, 2.9]) == ()


@pytest.mark.parametrize("wrong", [-1.0, math.inf])
def test_a_ratio_that_is_none_is_refused(wrong: float):
    with pytest.raises(ValueError, match="finite and not negative"):
        ratio_changes([1.0, wrong])
