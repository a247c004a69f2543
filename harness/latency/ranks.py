"""Two samples of processes measured in turns, compared by ranks: exact whatever the noise looks like.

Where both sides are the same engine, every order of their processes is equally likely, be the times normal, of two
modes or full of outliers. The p value is the share of orders that are at least as extreme (Mann and Whitney, Annals of
Mathematical Statistics 1947); the ratio is the median over all pairs, its interval that of the same test (Hodges and
Lehmann 1963).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from math import comb
from statistics import median


def slower_p(new: Sequence[float], control: Sequence[float], margin: float = 0.0) -> float:
    """Return the one-sided p value of ``new`` exceeding ``control`` by more than ``margin``; ties count against it."""
    wins = sum(a - margin > b for a in new for b in control)
    return _shares(len(new), len(control))[len(new) * len(control) - wins]


def shift(new: Sequence[float], control: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return the median of all differences new - control, and both ends of its interval."""
    differences = sorted(a - b for a in new for b in control)
    shares = _shares(len(new), len(control))
    outside = sum(share <= (1 - confidence) / 2 for share in shares)  # with few processes none: the whole range
    cut = max(outside - 1, 0)
    return median(differences), differences[cut], differences[-1 - cut]


@cache
def _shares(n: int, m: int) -> tuple[float, ...]:
    """Return the share of orders of n and m values with at most 0, 1, 2, ... pairs in the wrong order."""
    counts = [1, *[0] * (n * m)]  # the Gaussian binomial coefficient: product of (1 - q^(m+i)) / (1 - q^i)
    for i in range(1, n + 1):
        for k in range(n * m, m + i - 1, -1):
            counts[k] -= counts[k - m - i]
        for k in range(i, n * m + 1):
            counts[k] += counts[k - i]
    return tuple(count / comb(n + m, n) for count in accumulate(counts))
