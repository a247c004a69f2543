"""The difference of two means over the same samples, with its interval: how sure is it that two scores agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


LEAST_SAMPLES = 10
"""A bootstrap of fewer samples says nothing about the next ones."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The mean of actual - expected over samples that belong together, in the metric's unit."""

    difference: float
    """Mean difference; NaN where a sample is not finite."""
    low: float
    """Lower end of the interval at ``confidence``; NaN with fewer than two samples."""
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
        found = f"differs by {self.difference:+.3g} (allowed {limit:.3g})"
        if not abs(self.difference) <= limit:
            return "fail", found
        if self.samples < LEAST_SAMPLES:
            return "not_judged", f"{found}, but {self.samples} samples are too few; give at least {LEAST_SAMPLES}"
        found += f", {self.confidence:.0%} interval {self.low:+.3g} to {self.high:+.3g} over {self.samples} samples"
        if -limit <= self.low and self.high <= limit:
            return "pass", found
        return "not_judged", f"{found}: it reaches beyond the limit; give more samples"


def paired_difference(
    actual: Sequence[float] | torch.Tensor,
    expected: Sequence[float] | torch.Tensor,
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Paired:
    """Return the mean of actual - expected per sample, with a bootstrap interval; [n] and [n] in.

    Samples are drawn in pairs, so what makes one sample harder than another cancels. The interval is the expanded
    percentile interval (Hesterberg, What Teachers Should Know About the Bootstrap, 2015): percentiles widened to the
    t-distribution, without which 10 samples would have about 90 % coverage. The same ``seed`` gives the same interval.
    Raises UsageError when the lengths differ or nothing is given.
    """
    import numpy as np

    left, right = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (actual, expected))
    if left.size != right.size or not left.size:
        raise UsageError(f"paired samples: {left.size} against {right.size}; give the same number, at least one")
    differences = left - right
    mean, samples = float(differences.mean()), int(differences.size)
    low = high = math.nan
    if samples > 1 and math.isfinite(mean):
        generator = np.random.default_rng(seed)
        means = [float(differences[generator.integers(0, samples, samples)].mean()) for _ in range(resamples)]
        tail = _expanded_tail(samples, confidence)
        low, high = (float(value) for value in np.quantile(means, (tail, 1 - tail)))
    return Paired(difference=mean, low=low, high=high, confidence=confidence, samples=samples)


def _expanded_tail(samples: int, confidence: float) -> float:
    """Return the percentile, as a fraction, that stands for each tail of the interval."""
    from scipy import stats

    quantile = stats.t.ppf((1 - confidence) / 2, samples - 1)
    return float(stats.norm.cdf(math.sqrt(samples / (samples - 1)) * quantile))
