"""Where the level of a series of ratios changed: at once, or little by little.

Ratios of an error to its floor are positive, heavy-tailed, and constant for an engine that gives the same bits each
time. So everything here is on logarithms, with medians and ranks, and deterministic. A change is found in one of two
ways. ``_is_apart``: the newest runs lie apart from all before, by many times their spread; two or three are enough.
``_is_in_ranks``: the ranks of the whole series resemble a step or a ramp more than chance allows; that takes more runs
and finds changes within the noise. Where it began is where levels, or a level and a line, fit best.
benchmarks/accuracy_trend.py measures false alarms and delays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from harness.records import RatioChange

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


LEAST_RISE = 1.25
"""A smaller change of the ratio is not reported."""
SMALLEST = 0.1
"""Ratios below count as this: an engine that loses a tenth of what PyTorch loses cannot get worse unseen."""
RUNS_BEFORE = 5
"""Runs that a level needs before it can change."""
APART = 6.0
"""Spreads (standard deviations, from the median deviation) between a level and the runs that lie apart from it."""
LEAST_SPREAD = 0.03
"""Relative; a series that varies less is taken to vary by this."""
CONSTANT = 0.02
"""Relative range of runs that count as one value; where all before and after are such, two runs after are enough."""
MOST_APART = 10
"""Runs after a change that ``_is_apart`` looks at; more are left to the ranks."""
RANKED_AFTER = 7
"""Runs that ``_is_in_ranks`` needs after a change."""
_ENOUGH = RUNS_BEFORE + RANKED_AFTER
P_VALUE = 1e-6
"""Of a correlation of ranks: small, because every step and ramp is tried, after every run."""


def ratio_changes(ratios: Sequence[float], hosts: Sequence[str] = ()) -> tuple[RatioChange, ...]:
    """Return the lasting changes of level, oldest first; NaN is a run without a figure.

    ``hosts`` are the computers that the runs were on: what is seen only on one that was not there before may be that
    computer, and waits for the ranks. Raises ValueError for a ratio that is negative or infinite.
    """
    import numpy as np

    places = [place for place, ratio in enumerate(ratios) if not math.isnan(ratio)]
    wrong = [place for place in places if not 0 <= ratios[place] < math.inf]
    if wrong:
        raise ValueError(f"ratio {wrong[0]} of the series is {ratios[wrong[0]]}: a ratio is finite and not negative")
    known = np.array([ratios[place] for place in places], dtype=np.float64)
    logs = np.log(np.maximum(known, SMALLEST))
    on = [hosts[place] for place in places] if hosts else [""] * len(places)
    starts = _starts(logs, on, 0, len(logs))
    edges = [0, *starts, len(logs)]
    found = []
    for start, index, end in zip(edges, edges[1:], edges[2:], strict=False):
        creeps = _is_creep(logs[start:end], index - start)
        after = float(known[end - 1]) if creeps else _median(known[index:end])
        found.append(
            RatioChange(
                index=places[index], before=_median(known[start:index]), after=after,
                shape="creep" if creeps else "step", runs_after=end - index,
            )
        )  # fmt: skip
    return tuple(found)


def _starts(logs: Array, hosts: Sequence[str], start: int, end: int) -> list[int]:
    """Return where levels begin in one stretch, where it has several.

    A level that lies between two others hides both changes from the whole, so parts are looked at as well.
    """
    half = (end - start) // 2
    whole = [(start, end)]
    parts = [(end - half, end), (start + half // 2, end - half // 2), (start, start + half)] if half >= _ENOUGH else []
    for first, last in (*whole, *parts):
        at = _first_of_new_level(logs[first:last], hosts[first:last])
        if at is not None:
            place = first + at
            creeps = last == end and _is_creep(logs[first:last], at)
            after = [] if creeps else _starts(logs, hosts, place, end)
            begin = first + _beyond(logs[first:last], at) if creeps else place
            return [*_starts(logs, hosts, start, place), begin, *after]
    return []


def _first_of_new_level(logs: Array, hosts: Sequence[str]) -> int | None:
    """Return where the level of a stretch changed: the place that fits it best; None where it did not."""
    if len(logs) < RUNS_BEFORE + 2 or float(logs.max() - logs.min()) < math.log(LEAST_RISE):
        return None
    if not (_is_apart(logs, hosts) or _is_apart(-logs, hosts) or _is_in_ranks(logs, hosts)):
        return None
    places = [place for place in range(1, len(logs) - 1) if _change(logs, place) >= math.log(LEAST_RISE)]
    return min(places, key=lambda place: _misfit(logs[:place]) + min(_misfits(logs, place)), default=None)


def _beyond(logs: Array, at: int) -> int:
    """Return the first run from ``at`` on that is not as those before it: the foot of a curved creep fits them too."""
    level = _median(logs[:at])
    within = max(2 * _spread(logs[:at]), LEAST_SPREAD)
    while at < len(logs) - RUNS_BEFORE and abs(float(logs[at]) - level) <= within:
        at += 1
    return at


def _is_apart(logs: Array, hosts: Sequence[str]) -> bool:
    """Return whether the last runs lie above all before them, and a host of theirs above its own.

    One earlier outlier among at least 20 runs may be as high. A spread that is known from few runs is known badly, so
    more of it is asked for.
    """
    import numpy as np

    for at in range(len(logs) - 2, max(len(logs) - MOST_APART, RUNS_BEFORE) - 1, -1):
        before, after = logs[:at], logs[at:]
        lowest = after.min()
        if lowest <= (np.partition(before, -2)[-2] if at >= 20 else before.max()):
            continue
        if len(after) == 2 and max(np.ptp(before), np.ptp(after)) > CONSTANT:
            continue
        far = APART * max(_spread(before) * (1 + 4 / at), LEAST_SPREAD)
        if lowest - _median(before) >= max(math.log(LEAST_RISE), far) and _is_seen_at_home(
            logs, hosts, at, alone=False
        ):
            return True
    return False


def _is_seen_at_home(logs: Array, hosts: Sequence[str], at: int, *, alone: bool) -> bool:
    """Return whether a host that was there before has left its own level; ``alone`` where none of them was.

    True where all are one, and where each run has a host of its own (a pod): such names say nothing.
    """
    if len(set(hosts)) == 1 or 2 * len(set(hosts[:at])) > at:
        return True
    both = set(hosts[:at]) & set(hosts[at:])
    for host in both:
        own = [i for i, name in enumerate(hosts) if name == host]
        old, new = (_median(logs[[i for i in own if (i < at) == before]]) for before in (True, False))
        if abs(new - old) >= math.log(LEAST_RISE):
            return True
    return alone and not both


def _is_in_ranks(logs: Array, hosts: Sequence[str]) -> bool:
    """Return whether the ranks resemble a step or a ramp, up or down, and what it comes to is large enough.

    A correlation of ranks has the p value of Student's t, as Spearman's has.
    """
    import numpy as np
    from scipy.special import stdtr

    freedom = len(logs) - 2
    if len(logs) < RUNS_BEFORE + RANKED_AFTER:
        return False
    _, place, count = np.unique(logs, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - count / 2)[place] - len(logs) / 2
    correlations = np.abs(_shapes(len(logs)) @ (ranks / np.linalg.norm(ranks)))
    best = int(np.argmax(correlations))
    r = min(float(correlations[best]), 1 - 1e-12)
    if float(stdtr(freedom, -r * math.sqrt(freedom / (1 - r * r)))) > P_VALUE:
        return False
    steps = len(logs) - RUNS_BEFORE - RANKED_AFTER + 1
    at, end = (RUNS_BEFORE + best, len(logs)) if best < steps else (1 + best - steps, RANKED_AFTER)
    is_large = abs(_median(logs[max(at, len(logs) - end) :]) - _median(logs[:at])) >= math.log(LEAST_RISE)
    return is_large and _is_seen_at_home(logs, hosts, at, alone=True)


@cache
def _shapes(length: int) -> Array:
    """Return every step, then every ramp, as rows of mean 0 and norm 1. A ramp may begin with the second run."""
    import numpy as np

    runs, last = np.arange(length)[None, :], length - RANKED_AFTER + 1
    steps = runs >= np.arange(RUNS_BEFORE, last)[:, None]
    ramps = np.maximum(runs - np.arange(1, last)[:, None] + 1, 0)
    rows = np.concatenate([steps.astype(np.float64), ramps.astype(np.float64)])
    rows -= rows.mean(axis=1, keepdims=True)
    shapes: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return shapes


def _change(logs: Array, at: int) -> float:
    """Return by how much the level after a place differs from that before; of a creep by how much the newest run."""
    newest = logs[-1] if _is_creep(logs, at) else _median(logs[at:])
    return abs(float(newest) - _median(logs[:at]))


def _is_creep(logs: Array, at: int) -> bool:
    """Return whether a line from the old level on fits the runs from ``at`` on better than a level: half the misfit."""
    flat, line = _misfits(logs, at)
    return len(logs) - at >= RUNS_BEFORE and line < 0.5 * flat


def _misfits(logs: Array, at: int) -> tuple[float, float]:
    """Return how far the runs from ``at`` on are from a level, and from a line that begins at the level before.

    A level that has few runs before it is none.
    """
    import numpy as np

    level, after = _median(logs[:at]), logs[at:]
    runs = np.arange(1.0, len(after) + 1)
    line = float(np.abs(after - level - _median((after - level) / runs) * runs).sum())
    return _misfit(after) if at >= RUNS_BEFORE else max(_misfit(after), line), line


def _misfit(part: Array) -> float:
    """Return the sum of the distances from the median."""
    return float(abs(part - _median(part)).sum())


def _spread(part: Array) -> float:
    """Return the standard deviation that the median distance from the median stands for."""
    return 1.4826 * _median(abs(part - _median(part)))


def _median(values: Array) -> float:
    """Return the median; of so few values several times as fast as numpy's."""
    ordered = sorted(values.tolist())
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
