"""Steps (change points) and slow drift (a monotone trend) in a series of session medians.

Both are reported and never fail: the verdict compares a session with its accepted baseline alone. Values are positive
times, oldest first; NaN is a missing session. All figures are deterministic and computed on logarithms, so a change is
a ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.records import Age

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


P_VALUE = 0.001
"""Largest p value of Student's t between the levels on both sides of a change."""
WEAK = 10.0
"""Candidates may have this many times P_VALUE; they are tested again between their final neighbours."""
WINDOW = 50
"""Points that are searched at a time: an old large step then does not hide a new small one."""
FEWEST_POINTS = 5
"""Points of the shortest level; fewer are outliers."""
SHORTEST = 2
"""Points of the shortest stretch: an energy distance needs pairs."""
LEAST_CHANGE = 0.01
"""Smaller relative changes are not reported, whatever their p value."""
TREND_P_VALUE = 0.01
TREND_POINTS = 60
"""A trend is computed from at most this number of the last points."""
TREND_FEWEST = 10
RECENT = 5
"""Sessions whose median says where a series stands now."""


@dataclass(frozen=True, kw_only=True)
class ChangePoint:
    """A lasting change of the level of a series."""

    index: int
    """Position of the first value of the new level in the given series."""
    before: float
    """Geometric mean of the level before, back to the change before this one."""
    after: float
    """Geometric mean of the level after, up to the next change."""
    change: float
    """after / before - 1; above 0 is slower."""
    p_value: float
    """Of Student's t-test between the two levels; too small, because the position was searched."""
    points_after: int
    """Values of the new level, without outliers."""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Whether a series moves in one direction; a change point has that effect too."""

    points: int
    """Values that were used."""
    p_value: float | None
    """Mann-Kendall, two-sided (Kendall's tau against time); None below TREND_FEWEST points."""
    change: float | None
    """Theil-Sen: relative change from the first value to the last; above 0 is slower."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end of it."""
    drifts: bool
    """Whether the p value is below 1 % and the whole interval of the change is beyond 1 %."""


def change_points(values: Sequence[float]) -> tuple[ChangePoint, ...]:
    """Return the changes of level in a series, oldest first.

    E-divisive proposes the split with the largest energy distance (Matteson and James, JASA 2014) and Student's t-test
    decides, without random permutations, as in Hunter (arXiv 2301.03034). Unlike Hunter's, the test corrects for the
    correlation of neighbouring sessions. A stretch of fewer than ``FEWEST_POINTS`` values is left out before the levels
    around it are compared. Raises ValueError for a value that is zero, negative or infinite.
    """
    import numpy as np

    logs, places = _clean(values)
    found = list(_significant(logs, _candidates(logs)))
    levels = [(a, b) for a, b in pairwise([0, *found, len(logs)]) if b - a >= FEWEST_POINTS]
    stays = [place for a, b in levels for place in range(a, b)]
    logs, places = logs[stays], [places[place] for place in stays]
    edges = list(accumulate(b - a for a, b in levels))
    tests = _significant(logs, edges[:-1])
    edges = [0, *tests, len(logs)]
    points = []
    for start, index, end in zip(edges, edges[1:], edges[2:], strict=False):
        before, after = (math.exp(np.mean(part)) for part in (logs[start:index], logs[index:end]))
        change = after / before - 1
        if abs(change) >= LEAST_CHANGE:
            place, p, length = places[index], tests[index], end - index
            points.append(
                ChangePoint(index=place, before=before, after=after, change=change, p_value=p, points_after=length)
            )
    return tuple(points)


def trend_of(values: Sequence[float]) -> Trend:
    """Return whether the last values move in one direction (Mann 1945, Kendall 1975; Theil 1950, Sen 1968).

    Time is the position in the series, including missing sessions. Raises ValueError for a value that is zero, negative
    or infinite.
    """
    from scipy.stats import kendalltau, theilslopes

    logs, places = _clean(values)
    logs, places = logs[-TREND_POINTS:], places[-TREND_POINTS:]
    if len(logs) < TREND_FEWEST:
        return Trend(points=len(logs), p_value=None, change=None, low=None, high=None, drifts=False)
    if (logs == logs[0]).all():
        return Trend(points=len(logs), p_value=1.0, change=0.0, low=0.0, high=0.0, drifts=False)
    p = float(kendalltau(places, logs).pvalue)
    slope = theilslopes(logs, places, alpha=0.95)
    span = places[-1] - places[0]
    change, low, high = (float(math.expm1(s * span)) for s in (slope.slope, slope.low_slope, slope.high_slope))
    least = 1 + LEAST_CHANGE
    beyond = 1 + low > least or 1 + high < 1 / least
    return Trend(points=len(logs), p_value=p, change=change, low=low, high=high, drifts=p < TREND_P_VALUE and beyond)


def age_of(accepted: Sequence[float], since: Sequence[float], *, days: float) -> Age:
    """Return the age of a baseline from its times and those of the sessions since, oldest first.

    The new session must not be among them. Raises ValueError for a value that is zero, negative or infinite.
    """
    logs, _ = _clean(since)
    recent, level = logs[-RECENT:], median(accepted)
    change = float(math.exp(median(recent)) / level - 1) if len(recent) else None
    trend = trend_of([level, *since])
    return Age(days=days, sessions=len(logs), change=change, trend=trend.change if trend.drifts else None)


def has_moved(age: Age) -> bool:
    """Return whether a series is no longer where its baseline is."""
    return age.trend is not None or abs(age.change or 0.0) > LEAST_CHANGE


def age_words(age: Age) -> str:
    """Return ``34 days and 17 sessions old; since then +1.2 %, a drift of +2.0 %``."""
    words = f"{age.days:.0f} days and {age.sessions} sessions old"
    parts = [] if age.change is None else [f"since then {age.change:+.1%}"]
    parts += [] if age.trend is None else [f"a drift of {age.trend:+.1%}"]
    return "; ".join([words, ", ".join(parts)]) if parts else words


def _clean(values: Sequence[float]) -> tuple[Array, list[int]]:
    """Return the logarithms of the values that are not NaN, and their positions."""
    import numpy as np

    places = [place for place, value in enumerate(values) if not math.isnan(value)]
    wrong = [place for place in places if not 0 < values[place] < math.inf]
    if wrong:
        raise ValueError(f"value {wrong[0]} of the series is {values[wrong[0]]}: a time is positive and finite")
    return np.log(np.array([values[place] for place in places], dtype=np.float64)), places


def _candidates(logs: Array) -> list[int]:
    """Return change points that pass the weak test, from windows that overlap by half."""
    found: list[int] = []
    start = 0
    while len(logs) - start >= 2 * SHORTEST:
        end = min(start + WINDOW, len(logs))
        found += _bisect(logs, start, end)
        if end == len(logs):
            break
        start = max(start + WINDOW // 2, max(found, default=0))
    return sorted(set(found))


def _bisect(logs: Array, start: int, end: int) -> list[int]:
    """Return the change points of one stretch: the best split, and those of the parts on both sides of it."""
    if end - start < 2 * SHORTEST:
        return []
    split, until = _best_split(logs[start:end])
    split, until = start + split, start + until
    if not _t_test(logs[start:split], logs[split:until]) <= WEAK * P_VALUE:
        return []
    return [*_bisect(logs, start, split), split, *_bisect(logs, split, end)]


def _best_split(part: Array) -> tuple[int, int]:
    """Return ``split`` and ``until`` for which part[:split] and part[split:until] have the largest energy distance.

    mn/(m+n) (2 E|X-Y| - E|X-X'| - E|Y-Y'|) with unbiased means (equations 5 and 6 of Matteson and James).
    """
    import numpy as np

    n = len(part)
    sums = np.zeros((n + 1, n + 1))
    sums[1:, 1:] = np.abs(part[:, None] - part[None, :]).cumsum(0).cumsum(1)
    own = np.diagonal(sums)  # distances among the first i values, each pair twice
    split, until = (axis.astype(np.float64) for axis in np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"))
    m, k = split, until - split
    across = sums - own[:, None]  # between the first `split` values and those from there to `until`
    right = own[None, :] - own[:, None] - 2 * across
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = 2 * across / (m * k) - own[:, None] / (m * (m - 1)) - right / (k * (k - 1))
        distance *= m * k / (m + k)
    allowed = (m >= SHORTEST) & (k >= SHORTEST)
    best = int(np.argmax(np.where(allowed, distance, -np.inf)))
    return best // (n + 1), best % (n + 1)


def _significant(logs: Array, found: list[int]) -> dict[int, float]:
    """Return the significant candidates with their p values; the weakest is removed until all are significant.

    What a removal changes is computed anew, and nothing else: a long series has many candidates.
    """
    import numpy as np

    edges = [0, *found, len(logs)]
    means = [float(logs[a:b].mean()) if b > a else 0.0 for a, b in pairwise(edges)]
    rest = logs - np.repeat(means, np.diff(edges))
    squares = [float((rest[a:b] ** 2).sum()) for a, b in pairwise(edges)]
    neighbours = float((rest[1:] * rest[:-1]).sum())
    while len(edges) > 2:
        lengths = np.diff(edges)
        p = _p_values(lengths, np.array(means), np.array(squares), _dependence(sum(squares), neighbours))
        weakest = int(np.argmax(p))
        if p[weakest] <= P_VALUE:
            return dict(zip(edges[1:-1], p.tolist(), strict=True))
        start, end = edges[weakest], edges[weakest + 2]
        around = slice(max(start - 1, 0), end + 1)
        neighbours -= float((rest[around][1:] * rest[around][:-1]).sum())
        mean = float(logs[start:end].mean())
        rest[start:end] = logs[start:end] - mean
        neighbours += float((rest[around][1:] * rest[around][:-1]).sum())
        del edges[weakest + 1]
        means[weakest : weakest + 2] = [mean]
        squares[weakest : weakest + 2] = [float((rest[start:end] ** 2).sum())]
    return {}


def _dependence(squares: float, neighbours: float) -> float:
    """Return how many sessions equal one independent session: (1 + r) / (1 - r) for AR(1), at least 1.

    r is the correlation of neighbours about their levels: the sum of products of neighbours over that of squares.
    Without this factor 1 of 2 stationary series of 60 sessions with r = 0.5 shows a false change; with it, 1 of 10.
    """
    r = min(max(neighbours / squares, 0.0), 0.9) if squares else 0.0
    return (1 + r) / (1 - r)


def _t_test(left: Array, right: Array) -> float:
    """Return the two-sided p value of Student's t-test with one spread."""
    import numpy as np

    parts = (left, right)
    lengths = np.array([len(part) for part in parts])
    means = np.array([part.mean() for part in parts])
    squares = np.array([((part - part.mean()) ** 2).sum() for part in parts])
    return float(_p_values(lengths, means, squares, 1.0)[0])


def _p_values(lengths: Any, means: Array, squares: Array, repeats: float) -> Array:
    """Return the p value of Student's t-test between each part and the next; ``repeats`` values count as one.

    ``squares`` are the sums of squares about the means.
    """
    import numpy as np
    from scipy.special import stdtr

    freedom = lengths[:-1] + lengths[1:] - 2
    difference = np.abs(means[:-1] - means[1:])
    spread = (squares[:-1] + squares[1:]) / freedom
    error = np.sqrt(spread * (1 / lengths[:-1] + 1 / lengths[1:]) * repeats)
    is_rounding = (error <= 1e-12 * difference) | (difference <= 1e-12)  # one of the two is only rounding
    t = np.divide(difference, error, out=np.zeros_like(error), where=~is_rounding)
    p = 2 * stdtr(np.maximum(freedom / repeats, 2.0), -t)
    found: Array = np.where(is_rounding, np.where(difference > 1e-12, 0.0, 1.0), p)
    return found
