"""Change points and trends in series whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.history import trends as drift
from harness.history.trends import (
    FEWEST_POINTS,
    Trend,
    _best_split,
    age_of,
    age_words,
    change_points,
    has_moved,
    trend_of,
)

TRIALS = 100


def series(shape: np.ndarray, *, noise: float = 0.01, seed: int = 0) -> list[float]:
    """Return times about 2 ms with this log shape and normal noise."""
    return list(2.0 * np.exp(shape + noise * np.random.default_rng(seed).standard_normal(len(shape))))


def step(n: int, at: int, size: float) -> np.ndarray:
    return np.where(np.arange(n) >= at, math.log1p(size), 0.0)


def share(find, shape: np.ndarray, *, ar: float = 0.0, noise: float = 0.01) -> float:
    """Return the share of seeded series in which ``find`` is true."""
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(TRIALS):
        errors = rng.standard_normal(len(shape))
        for i in range(1, len(shape)):
            errors[i] = ar * errors[i - 1] + errors[i] * math.sqrt(1 - ar**2)
        found += bool(find(list(np.exp(shape + noise * errors))))
    return found / TRIALS


def test_step_is_found_where_it_is():
    (point,) = change_points(series(step(60, 40, 0.05)))
    assert abs(point.index - 40) <= 1
    assert point.change == pytest.approx(0.05, abs=0.01)
    assert point.before == pytest.approx(2.0, rel=0.01)
    assert point.after == pytest.approx(2.1, rel=0.01)
    assert point.p_value < 0.001
    assert point.points_after == 60 - point.index


def test_improvement_is_negative():
    (point,) = change_points(series(step(40, 20, -0.05)))
    assert point.change == pytest.approx(-0.05, abs=0.01)


def test_up_and_down_again_are_two_changes():
    shape = step(60, 20, 0.04) - step(60, 40, 0.04)
    first, second = change_points(series(shape))
    assert abs(first.index - 20) <= 1
    assert abs(second.index - 40) <= 1
    assert first.change > 0 > second.change
    assert first.points_after == second.index - first.index
    assert first.after == second.before


def test_old_large_step_does_not_hide_a_new_small_one():
    shape = step(150, 30, 0.5) + step(150, 120, 0.03)
    places = [point.index for point in change_points(series(shape))]
    assert len(places) == 2
    assert abs(places[0] - 30) <= 1
    assert abs(places[1] - 120) <= 2


def test_nothing_changes_without_a_reason():
    assert share(change_points, np.zeros(60)) <= 0.06
    assert share(change_points, np.zeros(60), noise=0.003) <= 0.01
    assert share(lambda values: trend_of(values).drifts, np.zeros(60)) <= 0.02


def test_neighbours_that_resemble_each_other_are_no_change():
    assert share(change_points, np.zeros(60), ar=0.5) <= 0.2


def test_power_for_three_percent_in_one_percent_noise():
    assert share(change_points, step(60, 53, 0.03)) >= 0.9
    assert share(change_points, step(60, 50, 0.02)) >= 0.9


def test_slow_ramp_is_a_trend():
    assert share(lambda values: trend_of(values).drifts, np.linspace(0, math.log1p(0.03), 60)) >= 0.9


@pytest.mark.parametrize("after", range(1, FEWEST_POINTS))
def test_change_is_reported_only_with_enough_points_after(after: int):
    flat = step(60, 60 - after, 0.05)
    assert not change_points(series(flat, noise=0.001))
    assert len(change_points(series(np.append(flat, [math.log1p(0.05)] * (FEWEST_POINTS - after)), noise=0.001))) == 1


def test_few_bad_sessions_are_no_level_and_do_not_move_the_one_around_them():
    pulse = step(60, 20, 0.1) - step(60, 23, 0.1)
    assert not change_points(series(pulse, noise=0.002))
    (point,) = change_points(series(pulse + step(60, 40, 0.03), noise=0.002))
    assert point.index == 40
    assert point.before == pytest.approx(2.0, rel=0.002)


def test_single_outlier_is_no_change():
    for place in (0, 5, 30, 55, 59):
        values = series(np.zeros(60), noise=0.002)
        values[place] *= 1.5
        assert not change_points(values)
        assert not trend_of(values).drifts


def test_changes_below_one_percent_are_not_reported(monkeypatch: pytest.MonkeyPatch):
    values = series(step(60, 30, 0.005), noise=0.0005)
    assert not change_points(values)
    monkeypatch.setattr(drift, "LEAST_CHANGE", 0.001)
    assert len(change_points(values)) == 1


def test_two_clocks_in_turn_are_no_change():
    clocks = np.where(np.random.default_rng(2).random(60) < 0.5, 0.06, 0.0)
    assert not change_points(series(clocks, noise=0.002))


def test_missing_sessions_keep_the_places():
    values = series(step(60, 30, 0.05), noise=0.002)
    for place in (3, 10, 28, 29, 40):
        values[place] = math.nan
    (point,) = change_points(values)
    assert point.index == 30
    assert point.points_after == 29
    assert trend_of(values).points == 55


def test_constant_series_and_exact_step():
    assert change_points([1.5] * 40) == ()
    assert trend_of([1.5] * 40) == Trend(points=40, p_value=1.0, change=0.0, low=0.0, high=0.0, drifts=False)
    (point,) = change_points([1.5] * 20 + [1.6] * 20)
    assert (point.index, point.p_value) == (20, 0.0)


@pytest.mark.parametrize("n", [0, 1, 2 * FEWEST_POINTS - 1])
def test_short_series_has_no_change_and_no_trend(n: int):
    values = series(step(n, n // 2, 0.5))
    assert change_points(values) == ()
    assert trend_of(values) == Trend(points=n, p_value=None, change=None, low=None, high=None, drifts=False)


def test_trend_gives_the_total_change_of_the_last_points(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drift, "TREND_POINTS", 51)
    found = trend_of(series(np.linspace(0, math.log1p(0.05), 100), noise=0.001))
    assert found.points == 51
    assert found.change == pytest.approx(1.05 ** (50 / 99) - 1, abs=0.002)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.change <= found.high
    assert found.drifts


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf])
@pytest.mark.parametrize("find", [change_points, trend_of])
def test_value_that_is_no_time_is_an_error(find, wrong: float):
    with pytest.raises(ValueError, match="value 1 of the series"):
        find([1.0, wrong, 1.0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.5, 2.0), min_size=4, max_size=14))
def test_best_split_is_that_of_the_definition(values: list[float]):
    part = np.array(values)

    def distance(left: np.ndarray, right: np.ndarray) -> float:
        m, n = len(left), len(right)
        across = np.abs(left[:, None] - right).sum() * 2 / (m * n)
        own = [np.abs(side[:, None] - side).sum() / (len(side) * (len(side) - 1)) for side in (left, right)]
        return m * n / (m + n) * (across - sum(own))

    every = {(a, b): distance(part[:a], part[a:b]) for b in range(4, len(part) + 1) for a in range(2, b - 1)}
    assert every[_best_split(part)] == pytest.approx(max(every.values()), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_unit_does_not_matter_and_nothing_is_random(seed: int, unit: float):
    values = series(step(40, 20, 0.04), seed=seed)
    once, again = change_points(values), change_points([unit * value for value in values])
    assert change_points(values) == once
    assert [point.index for point in again] == [point.index for point in once]


def test_agrees_with_apache_otava():
    analysis = pytest.importorskip("otava.analysis", reason="apache-otava is not installed: not compared")
    for seed in range(10):
        values = series(step(60, 35, 0.05), seed=seed)
        theirs, _ = analysis.compute_change_points(values, window_len=50, max_pvalue=0.001, min_magnitude=0.01)
        assert [point.index for point in change_points(values)] == [int(point.index) for point in theirs]


def test_the_age_of_a_baseline_is_what_came_since():
    base = [1.0, 1.001, 0.999, 1.0]
    fresh = age_of(base, [], days=0.0)
    assert (fresh.sessions, fresh.change, fresh.trend, has_moved(fresh)) == (0, None, None, False)
    still = age_of(base, [1.0, 1.2, 1.001, 0.999, 1.0], days=3.0)
    assert still.change == pytest.approx(0.0, abs=1e-3), "one outlier does not move it"
    assert not has_moved(still)
    moved = age_of(base, [1.0] * 10 + [1.02] * 5, days=40.0)
    assert moved.change == pytest.approx(0.02, rel=1e-6)
    assert has_moved(moved)
    assert age_words(moved).startswith("40 days and 15 sessions old; since then +2.0%")
    drift = age_of(base, list(np.linspace(1.0, 1.03, 20)), days=20.0)
    assert drift.trend == pytest.approx(0.03, abs=0.004)
