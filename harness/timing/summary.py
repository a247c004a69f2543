"""The times of one process as one summary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.errors import NotJudged
from harness.records import Summary
from harness.sentences import Sentence

PERCENTILES = {90: 100, 95: 200, 99: 1000}
"""Samples that a percentile needs: ten lie beyond it."""
TAIL = 0.025
"""Probability on each side of the interval of the median."""


def summarise(samples_ms: Sequence[float]) -> Summary:
    """Return the summary of the times of one process, in milliseconds.

    The median of an even number of samples is the mean of the middle two. A percentile is the smallest sample that at
    least p % of them do not exceed, as in trtexec, without interpolation; it is None below ``PERCENTILES`` samples.
    ``low`` and ``high`` are order statistics that cover the median with at least 95 % for independent samples of any
    distribution; below six samples, which is too few for that, they are the extremes. ``cv`` uses the standard
    deviation with n - 1. Raises NotJudged when a time is not positive and finite.
    """
    import numpy as np

    times = np.sort(np.asarray(samples_ms, dtype=np.float64))
    n = len(times)
    if not n:
        raise ValueError("no sample to summarise")
    if not (np.isfinite(times).all() and times[0] > 0):
        wrong = next(value for value in samples_ms if not (math.isfinite(value) and value > 0))
        raise NotJudged(Sentence("no_time", n=n, wrong=wrong))
    low = _low_rank(n)
    mean = float(times.mean())
    tails: Mapping[int, float | None] = {
        p: float(times[n - 1 - n * (100 - p) // 100]) if n >= fewest else None for p, fewest in PERCENTILES.items()
    }
    return Summary(
        n=n,
        median=float(np.median(times)),
        low=float(times[low]),
        high=float(times[n - 1 - low]),
        mean=mean,
        minimum=float(times[0]),
        cv=float(times.std(ddof=1)) / mean if n > 1 else 0.0,
        p90=tails[90],
        p95=tails[95],
        p99=tails[99],
    )


def _low_rank(n: int) -> int:
    """Return the largest index k with P(B <= k) below ``TAIL``, B binomial with n and 1/2; 0 where there is none.

    SciPy has it as ``bdtrik``, and takes a quarter of a second to import, in every fresh process that times.
    """
    rank = max(0, math.floor((n - 1.96 * math.sqrt(n)) / 2))  # near it: the normal approximation
    while rank > 0 and _binomial(rank, n) >= TAIL:
        rank -= 1
    while _binomial(rank + 1, n) < TAIL:
        rank += 1
    return rank


def _binomial(k: int, n: int) -> float:
    """Return P(B <= k), B binomial with n and 1/2: the terms from the k-th down, which fall ever faster."""
    term = math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
    total = 0.0
    while k >= 0 and term > total * 1e-17:
        total += term
        term *= k / (n - k + 1)
        k -= 1
    return total
