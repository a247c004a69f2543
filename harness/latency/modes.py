"""Sessions of a machine with two states: found by clock or by time, and compared within one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from harness.latency.comparable import FEWEST_PROCESSES
from harness.latency.estimate import variance
from harness.records import Session
from harness.sentences import Sentence

CLOCKS = {"sm_mhz": Sentence("sm_clock"), "memory_mhz": Sentence("memory_clock")}
CLOCK_GAP, CLOCK_SPREAD = 1.02, 1.01
"""Two clocks are two modes when they are at least this far apart, and each holds within this."""
FEWEST_OF_MODES = 6
"""Sessions in which modes are looked for by time: among four, two and two are chance."""
MODE_GAP, MODE_SPREADS = 0.015, 6.0
"""Modes are apart by at least this (in logarithms), and by this many times the spread within them."""


@dataclass(frozen=True, kw_only=True)
class WithinMode:
    """Sessions, of those with two modes the part that can be compared."""

    new: Session
    old: list[Session]
    note: str = ""
    problem: str = ""
    """Why nothing can be compared; empty where something can."""


def within_clock(new: Session, old: Sequence[Session]) -> WithinMode:
    """Return the processes that ran at the one of two clocks that most of the baseline shares with the new session.

    All are kept where there is one clock or it is not known, and where the baseline has one clock and the new session
    the other: that is a slower clock and leaves no choice.
    """
    for field, words in CLOCKS.items():
        every = [getattr(run.conditions, field) for one in (new, *old) for run in one.runs]
        clocks = _two_clocks(every)
        if clocks is None:
            continue
        mine = [_at(new, field, clock) for clock in clocks]
        theirs = [[part for one in old if len((part := _at(one, field, clock)).runs) > 1] for clock in clocks]
        of_new, of_old = ({bool(part) for part in parts} for parts in ([one.runs for one in mine], theirs))
        if of_new == of_old == {True, False} and bool(mine[0].runs) != bool(theirs[0]):
            continue
        shared = [i for i, part in enumerate(mine) if len(part.runs) >= FEWEST_PROCESSES and theirs[i]]
        what = Sentence("two_modes_clocks", words=words, clocks=clocks[0], clocks_2=clocks[1])
        if not shared:
            return WithinMode(new=new, old=list(old), problem=Sentence("two_modes_apart", what=what))
        best = max(shared, key=lambda i: (len(theirs[i]), len(mine[i].runs)))
        note = Sentence(
            "two_modes_compared",
            what=what,
            clocks=clocks[best],
            count=len(mine[best].runs),
            count_2=len(new.runs),
            count_3=len(theirs[best]),
            count_4=len(old),
        )
        return WithinMode(new=mine[best], old=theirs[best], note=note)
    return WithinMode(new=new, old=list(old))


def two_modes(values: Sequence[float]) -> tuple[list[int], list[int]] | None:
    """Return the positions of the faster and of the slower sessions of two modes, by log time; None for one mode.

    Each has two sessions or more.
    """
    if len(values) < FEWEST_OF_MODES:
        return None
    order = sorted(range(len(values)), key=values.__getitem__)
    gaps = [values[b] - values[a] for a, b in pairwise(order)]
    split = max(range(1, len(gaps) - 1), key=gaps.__getitem__) + 1
    halves = order[:split], order[split:]
    squares = sum((len(half) - 1) * variance([values[i] for i in half]) for half in halves)
    spread = (squares / (len(values) - 2)) ** 0.5
    return halves if gaps[split - 1] >= max(MODE_GAP, MODE_SPREADS * spread) else None


def _two_clocks(known: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the lower ends of two modes; None where a clock is not known, and where they are one or scattered."""
    clocks = sorted(clock for clock in known if clock)
    if len(clocks) < max(len(known), 2 * FEWEST_PROCESSES):
        return None
    split = max(range(1, len(clocks)), key=lambda i: clocks[i] / clocks[i - 1])
    low, high = clocks[:split], clocks[split:]
    tight = all(half[-1] <= half[0] * CLOCK_SPREAD for half in (low, high))
    apart = high[0] >= low[-1] * CLOCK_GAP and min(len(low), len(high)) >= FEWEST_PROCESSES
    return (low[0], high[0]) if tight and apart else None


def _at(session: Session, field: str, clock: float) -> Session:
    """Return the session with its processes of one mode alone."""
    runs = [run for run in session.runs if clock <= getattr(run.conditions, field) <= clock * CLOCK_SPREAD]
    return replace(session, runs=tuple(runs))
