"""The difference of two means over the same samples, with its interval: how sure is it that two scores agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.records import Verdict
from harness.sentences import Sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch


RARE = 0.05
"""A loss in this share of the samples is to be seen: no interval can hold a loss that none of the samples shows."""
LEAST_SAMPLES = math.ceil(math.log(0.05) / math.log(1 - RARE))
"""The fewest samples of which 95 % of the draws show a loss in 1 of 20 samples: 59."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The mean of actual - expected over samples that belong together, in the metric's unit."""

    difference: float
    """Mean difference; NaN where a sample is not finite."""
    low: float
    """Lower end of the interval at ``confidence``; minus infinity with fewer than ``LEAST_SAMPLES``."""
    high: float
    """Upper end of it."""
    confidence: float
    """The share of such intervals that hold the true mean, such as 0.95."""
    samples: int
    """Number of pairs."""

    def within(self, limit: float) -> tuple[Verdict, str]:
        """Return whether the difference is at most ``limit`` in either direction, and why in one sentence.

        It passes when the whole interval lies within the limit and fails when the mean difference lies outside it. Too
        few samples to tell, or an interval that reaches outside, is not judged.
        """
        found = Sentence("paired_differs", difference=self.difference, limit=limit)
        if not abs(self.difference) <= limit:
            return "fail", found
        if self.samples < LEAST_SAMPLES:
            few = Sentence("too_few_samples", samples=self.samples, rare=1 / RARE, chance=(1 - RARE) ** self.samples)
            return "not_judged", Sentence("but_few", found=found, few=few, least=LEAST_SAMPLES)
        found += Sentence(
            "paired_interval", confidence=self.confidence, low=self.low, high=self.high, samples=self.samples
        )
        if -limit <= self.low and self.high <= limit:
            return "pass", found
        return "not_judged", Sentence("interval_beyond", found=found)


def paired_difference(
    actual: Sequence[float] | torch.Tensor,
    expected: Sequence[float] | torch.Tensor,
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Paired:
    """Return the mean of actual - expected per sample, with its interval; [n] and [n] in.

    Samples are drawn in pairs, so what makes one sample harder than another cancels. Each end of the interval is the
    wider of Student's t and of the studentised bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    12.5: the quantiles of t over resamples of the pairs, each with its own standard error). Fewer than LEAST_SAMPLES
    have no interval: it is infinite. The same ``seed`` gives the same interval. Raises UsageError when the lengths
    differ or nothing is given.
    """
    import numpy as np

    left, right = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (actual, expected))
    if left.size != right.size or not left.size:
        raise UsageError(f"paired samples: {left.size} against {right.size}; give the same number, at least one")
    with np.errstate(invalid="ignore"):  # of two infinities; the mean is NaN then
        differences = left - right
    mean, samples = float(differences.mean()), int(differences.size)
    low, high = -math.inf, math.inf
    if not math.isfinite(mean):
        low = high = math.nan
    elif samples >= LEAST_SAMPLES:
        error = float(differences.std(ddof=1)) / math.sqrt(samples)
        below, above = _studentised(differences, error, confidence, resamples, seed)
        low, high = mean - above * error, mean - below * error
    return Paired(difference=mean, low=low, high=high, confidence=confidence, samples=samples)


def _studentised(
    differences: np.ndarray, error: float, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the two quantiles of t = (mean - true mean) / standard error, for samples like these."""
    import numpy as np
    from scipy import stats

    tail, samples = (1 - confidence) / 2, differences.size
    student = float(stats.t.ppf(1 - tail, samples - 1))
    if error <= 1e-12 * float(np.abs(differences).max()):  # all alike, but for rounding: any quantile times no error
        return -student, student
    generator = np.random.default_rng(seed)
    found = np.empty(resamples)
    rows = max(1, 1_000_000 // samples)  # so many resamples at once: 8 MB
    for first in range(0, resamples, rows):
        count = min(rows, resamples - first)
        drawn = differences[generator.integers(0, samples, (count, samples))]
        away, spread = drawn.mean(axis=1) - differences.mean(), drawn.std(axis=1, ddof=1) / math.sqrt(samples)
        # A resample without spread has missed what is rare: its t is as far out as can be.
        is_spread = spread > 1e-12 * error
        found[first : first + count] = np.where(
            is_spread, away / np.where(is_spread, spread, 1), np.copysign(np.inf, away)
        )
    # An order statistic, not between two: one of them may be infinite.
    below = float(np.quantile(found, tail, method="lower"))
    above = float(np.quantile(found, 1 - tail, method="higher"))
    return min(below, -student), max(above, student)
