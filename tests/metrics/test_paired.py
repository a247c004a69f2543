"""The paired interval against a plain one: every resample by itself, quantiles by sorting."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from harness.metrics.paired import LEAST_SAMPLES, Paired, paired_difference


def plain(differences: np.ndarray, confidence: float = 0.95, resamples: int = 4000, seed: int = 0) -> list[float]:
    """Return both ends: the wider of Student's t and the studentised bootstrap, for samples that are not all alike."""
    samples, mean = len(differences), differences.mean()
    root = math.sqrt(samples)
    error = differences.std(ddof=1) / root
    found = []
    for row in np.random.default_rng(seed).integers(0, samples, (resamples, samples)):
        drawn = differences[row]
        away, spread = drawn.mean() - mean, drawn.std(ddof=1) / root if np.ptp(drawn) else 0.0
        found.append(away / spread if spread else math.copysign(math.inf, away))
    found.sort()
    tail = (1 - confidence) / 2
    below, above = found[math.floor(tail * (resamples - 1))], found[math.ceil((1 - tail) * (resamples - 1))]
    student = stats.t.isf(tail, samples - 1)
    return [mean - max(above, student) * error, mean - min(below, -student) * error]


GENERATOR = np.random.default_rng(3)
DIFFERENCES = {
    "normal": GENERATOR.standard_normal(LEAST_SAMPLES),
    "skewed": GENERATOR.lognormal(size=80),
    "one loss": np.array([-20.0] + [0.0] * (LEAST_SAMPLES - 1)),  # a third of the resamples miss it: all alike
    "one gain": np.array([0.0] * LEAST_SAMPLES + [20.0]),
}


@pytest.mark.parametrize("options", [{}, {"confidence": 0.8, "resamples": 500, "seed": 4}], ids=["usual", "other"])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_ends_are_those_of_the_definition(name: str, options: dict[str, Any]):
    differences = DIFFERENCES[name]
    found = paired_difference(differences + 7.0, np.full(len(differences), 7.0), **options)
    assert [found.low, found.high] == pytest.approx(plain((differences + 7.0) - 7.0, **options), rel=1e-9)
    assert found.confidence == options.get("confidence", 0.95)
    assert found.samples == len(differences)


def test_so_many_samples_that_resamples_are_drawn_in_several_pieces():
    differences = np.random.default_rng(5).standard_normal(40_000)
    found = paired_difference(differences, np.zeros(40_000), resamples=60)
    generator, error = np.random.default_rng(0), differences.std(ddof=1) / 200
    drawn = [differences[generator.integers(0, 40_000, 40_000)] for _ in range(60)]
    t = sorted((row.mean() - differences.mean()) / (row.std(ddof=1) / 200) for row in drawn)
    assert found.low == pytest.approx(differences.mean() - max(t[58], stats.t.isf(0.025, 39_999)) * error)
    assert found.high == pytest.approx(differences.mean() - min(t[1], stats.t.ppf(0.025, 39_999)) * error)


@pytest.mark.parametrize(
    ("difference", "low", "high", "verdict"),
    [
        (1.0, -1.0, 1.0, "pass"),
        (-1.0, -1.0, 1.0, "pass"),
        (0.0, -1.0, 0.5, "pass"),
        (0.0, -0.5, 1.0, "pass"),
        (0.0, -1.01, 0.0, "not_judged"),
        (0.0, 0.0, 1.01, "not_judged"),
        (1.01, 1.0, 1.02, "fail"),
        (-1.01, -1.02, -1.0, "fail"),
        (math.nan, math.nan, math.nan, "fail"),
    ],
)
def test_the_limit_itself_is_within(difference: float, low: float, high: float, verdict: str):
    paired = Paired(difference=difference, low=low, high=high, confidence=0.9, samples=100)
    found, reason = paired.within(1.0)
    assert found == verdict
    assert f"differs by {difference:+.3g} (allowed 1)".replace("+nan", "nan") in reason
    assert (f"90% interval {low:+.3g} to {high:+.3g} over 100 samples" in reason) is (verdict != "fail")


def test_samples_of_any_type_and_shape():
    """Differences are taken in FP64; codes do not wrap round."""
    low, high = torch.zeros(60, 1, dtype=torch.uint8), torch.arange(60, dtype=torch.uint8)[:, None]
    flat = paired_difference([0.0] * 60, [float(i) for i in range(60)])
    assert paired_difference(low, high) == flat
    assert flat.difference == -29.5


def test_a_sample_that_is_not_finite_leaves_no_interval():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired_difference([math.inf] + [0.0] * 59, [math.inf] + [0.0] * 59)
    assert all(math.isnan(value) for value in (found.difference, found.low, found.high))
    assert found.samples == 60
