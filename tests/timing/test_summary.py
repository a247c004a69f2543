"""One sample of times as one summary."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from harness.errors import NotJudged
from harness.timing import summary
from harness.timing.summary import summarise


def test_summary_of_a_known_sample():
    found = summarise(list(range(1000, 0, -1)))
    assert dataclasses.asdict(found) == {
        "n": 1000, "median": 500.5, "low": 469.0, "high": 532.0, "mean": 500.5, "minimum": 1.0,
        "cv": pytest.approx(np.std(np.arange(1, 1001), ddof=1) / 500.5), "p90": 900.0, "p95": 950.0, "p99": 990.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("n", "wanted"),
    [(99, (None, None, None)), (100, (90, None, None)), (200, (180, 190, None)), (999, (900, 950, None))],
)
def test_percentiles_only_where_the_sample_carries_them(n: int, wanted: tuple[float | None, ...]):
    found = summarise(range(1, n + 1))
    assert (found.p90, found.p95, found.p99) == wanted


times = st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=1500)


@settings(max_examples=60, deadline=None)
@given(times)
def test_summary_is_in_order_and_of_the_sample(samples: list[float]):
    found = summarise(samples)
    assert found.minimum == min(samples)
    assert found.minimum <= found.low <= found.median <= found.high <= max(samples)
    assert found.median == pytest.approx(np.median(samples))
    assert {found.low, found.high} <= set(samples)
    for percent, value in ((90, found.p90), (95, found.p95), (99, found.p99)):
        if value is not None:
            assert value in samples
            assert sum(sample <= value for sample in samples) >= len(samples) * percent / 100
            assert sum(sample < value for sample in samples) < len(samples) * percent / 100


@settings(max_examples=30, deadline=None)
@given(times, st.randoms())
def test_order_of_the_samples_does_not_matter(samples: list[float], shuffled):
    again = list(samples)
    shuffled.shuffle(again)
    assert summarise(again) == summarise(samples)


@settings(max_examples=200, deadline=None)
@given(st.integers(6, 5000))
def test_ranks_cover_the_median_with_95_percent_and_no_more_than_needed(n: int):
    from scipy.stats import binom

    found = summarise(range(1, n + 1))
    below = int(found.low) - 1
    assert found.high == n - below
    assert 2 * binom.cdf(below, n, 0.5) <= 0.05
    assert 2 * binom.cdf(below + 1, n, 0.5) > 0.05


@pytest.mark.parametrize("draw", ["normal", "exponential", "bimodal"])
def test_interval_covers_the_true_median(draw: str):
    rng = np.random.default_rng(6)
    centre = {"normal": 10.0, "exponential": 1 + math.log(2), "bimodal": 10.0}[draw]

    def sample() -> Sequence[float]:
        if draw == "exponential":
            return 1 + rng.exponential(size=60)
        return rng.normal(10, 1, 60) + (np.where(rng.random(60) < 0.5, -3, 3) if draw == "bimodal" else 0)

    covered = [found.low <= centre <= found.high for found in (summarise(sample()) for _ in range(1000))]
    assert np.mean(covered) >= 0.94


@pytest.mark.parametrize("n", range(1, 6))
def test_below_six_samples_the_interval_is_the_range(n: int):
    found = summarise(range(1, n + 1))
    assert (found.low, found.high) == (1, n)
    assert found.cv >= 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 0.0, -0.1])
def test_sample_that_is_no_time_is_not_summarised(wrong: float):
    with pytest.raises(NotJudged, match="one of 3 samples is"):
        summarise([1.0, wrong, 2.0])
    with pytest.raises(ValueError, match="no sample"):
        summarise([])


@pytest.mark.parametrize("n", [*range(1, 400), 999, 1000, 4321, 10**5, 10**6])
def test_the_rank_of_the_interval_is_the_binomial_one(n: int) -> None:
    """Largest k with P(B <= k) below 2.5 %, as SciPy has it."""
    expected = max(math.ceil(float(special.bdtrik(summary.TAIL, n, 0.5))) - 1, 0)
    assert summary._low_rank(n) == expected
