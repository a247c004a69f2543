"""The smallest set or interval for which an oracle says yes; the oracle is slow and need not be monotone.

Nothing here depends on engines. Only a set or interval that was itself asked is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from harness.bisect.oracle import Answer, Oracle, Stage

Passes = Callable[[Sequence[frozenset[str]]], Sequence[Answer]]
Fails = Callable[[int, int], Answer]
_TOP = 4
"""Ranks among which a unit that does harm is searched first."""


@dataclass(frozen=True, kw_only=True)
class SetFound:
    """The smallest set that passed."""

    best: frozenset[str] | None
    """None when no set passed."""
    minimal: bool
    """Whether the set failed without each one of its units."""
    complete: bool
    """False when the search was interrupted or ran out of calls."""
    interrupted: bool
    """Whether a KeyboardInterrupt ended the search."""
    calls: int
    """Distinct sets that were asked; those known before do not count."""


@dataclass(frozen=True, kw_only=True)
class IntervalFound:
    """The smallest interval that showed the fault."""

    start: int
    """Its first position."""
    stop: int
    """The position after its last; the end of the whole when nothing smaller showed the fault."""
    complete: bool
    """False when the search was interrupted or ran out of calls."""
    interrupted: bool
    """Whether a KeyboardInterrupt ended the search."""
    calls: int
    """Distinct intervals that were asked."""


def smallest_set(
    ranked: Sequence[str],
    passes: Passes,
    *,
    max_calls: int,
    width: int = 1,
    known: Mapping[frozenset[str], Answer] | None = None,
    size: Callable[[frozenset[str]], int] = len,
    failing: int = 0,
) -> SetFound:
    """Return a smallest set of units for which the oracle passes.

    ``ranked`` are the units, the likeliest first. ``passes`` is given a batch of sets and returns one answer for each:
    True, False, or None where it could not be judged, which counts as neither. The empty set is taken to fail unless
    ``known`` says otherwise, and so are the prefixes of up to ``failing`` units. ``size`` says how large a set is.

    Prefixes of the ranking of 1, 2, 4, ... units are tried and bisected between the last that fails and the first that
    passes; then units are removed, least likely first, in chunks that double while they can be removed and halve when
    they cannot, until no single removal passes. Nothing is inferred from monotonicity: when no prefix passes, or only
    one of more than half the units, single units, prefixes without one unit and (in the first case) segments are tried
    as well.

    Calls, at ``width=1`` and if supersets of a passing set pass: with k units in the answer, the last of them at rank
    m, and runs of g_1, g_2, ... other units between and before them, at most 2 log2(m) + 1 + 2 k + 2 sum log2(g_i + 1).
    With n units that is within 2 log2(n) + 2 k + 3 as long as m (g_1 + 1) (g_2 + 1) ... <= 2 n. A bad ranking costs
    about 2 log2(n / k) calls more for every unit of the answer; it changes the price, not what is reported. A prefix of
    more than half the units costs at most log2(n) + 5 calls more. Where no set passes, up to about 3 n are tried.

    With a larger ``width``, a batch also holds the questions that would follow each answer. A batch then saves time
    but spends calls on questions that turn out not to matter.

    Raises ValueError for a unit ranked twice, a negative ``max_calls``, a ``width`` below 1, and a wrong number of
    answers, and TypeError for an answer of another kind. What ``passes`` raises escapes, except KeyboardInterrupt: that
    ends the search with what was found.
    """
    units = tuple(ranked)
    if len(set(units)) < len(units):
        raise ValueError(f"ranked must name every unit once: {len(units)} names, {len(set(units))} different")
    own = {trial: answer for trial, answer in (known or {}).items() if trial <= set(units)}
    oracle = Oracle(passes, size, max_calls=max_calls, width=width, known={frozenset[str](): False, **own})
    return _set_found(oracle, partial(_search_set, oracle, units, failing))


def smallest_part(
    ranked: Sequence[str], shows: Callable[[frozenset[str]], Answer], *, max_calls: int, whole: bool = False
) -> SetFound:
    """Return a smallest set of values that shows a fault on its own.

    ``ranked`` are the values, the nearest to the fault first; ``whole`` says that all together are known to show it.
    Prefixes of 1, 2, 4, ... values are tried and bisected, then values are left out, the farthest first, until none
    can be. Nothing else is tried where no prefix shows it: what is farther away is another fault.
    """
    units = tuple(ranked)
    known: dict[frozenset[str], Answer] = {frozenset(): False, **({frozenset(units): True} if whole else {})}
    oracle = Oracle(lambda batch: [shows(part) for part in batch], len, max_calls=max_calls, known=known)

    def search() -> None:
        if not whole:
            oracle.run(partial(_gallop, units, len(units) + 1))
        while (best := oracle.best) is not None:
            oracle.run(partial(_prune, [unit for unit in units if unit in best]))
            if oracle.best == best:
                break

    return _set_found(oracle, search)


def _set_found(oracle: Oracle[frozenset[str]], search: Callable[[], None]) -> SetFound:
    """Run a search and return the smallest set that it found."""
    ending = oracle.search(search)
    best = oracle.best
    return SetFound(
        best=best,
        minimal=best is not None and all(oracle.answers.get(best - {unit}) is False for unit in best),
        complete=ending == "done",
        interrupted=ending == "interrupted",
        calls=oracle.calls,
    )


def smallest_interval(count: int, fails: Fails, *, max_calls: int) -> IntervalFound:
    """Return a smallest interval of the positions 0 to ``count - 1`` that shows the fault on its own.

    ``fails(start, stop)`` says whether the region [start, stop) shows it; None, where that could not be judged, counts
    as no. The whole is known to show it and is not asked. While one half shows the fault alone it is halved, the first
    half first; when neither does, the fault straddles the cut, and the left end and then the right end are bisected.
    It ends when the region shows the fault no longer without its first or without its last position.

    About 2 log2(count) + 4 calls when every region that contains the faulty position, or the window of adjacent
    positions that makes the fault, shows it; more where that does not hold.

    Raises ValueError for a ``count`` below 1 and a negative ``max_calls``. What ``fails`` raises escapes, except
    KeyboardInterrupt: that ends the search with what was found.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    whole = (0, count)
    oracle = Oracle(
        lambda batch: [fails(start, stop) for start, stop in batch],
        lambda interval: interval[1] - interval[0],
        max_calls=max_calls,
        known={whole: True},
    )
    ending = oracle.search(partial(oracle.run, partial(_narrow, count)))
    start, stop = oracle.best or whole
    return IntervalFound(
        start=start, stop=stop, complete=ending == "done", interrupted=ending == "interrupted", calls=oracle.calls
    )


def _search_set(oracle: Oracle[frozenset[str]], units: tuple[str, ...], failing: int) -> None:
    """Gallop, probe where that found nothing small, prune until no smaller set passes."""
    oracle.run(partial(_gallop, units, len(units) + 1 if oracle.best is None else len(oracle.best), failing))
    if oracle.best is None or 2 * len(oracle.best) > len(units):
        limit = len(units) + 1 if oracle.best is None else len(oracle.best)
        trials = _probes(units, thorough=oracle.best is None)
        oracle.run(partial(_first_of, [trial for trial in trials if len(trial) < limit]))
    while (best := oracle.best) is not None:
        oracle.run(partial(_prune, [unit for unit in units if unit in best]))
        if oracle.best == best:
            break


def _gallop(units: Sequence[str], below: int, failed: int = 0) -> Stage[frozenset[str]]:
    """Ask prefixes of more than ``failed`` and fewer than ``below`` units: growing until one passes, then bisecting."""
    for size in [failed + more for more in _doubling(len(units) - failed)]:
        if size >= below:
            return
        if (yield frozenset(units[:size])):
            break
        failed = size
    else:
        return
    while size - failed > 1:
        middle = (failed + size) // 2
        if (yield frozenset(units[:middle])):
            size = middle
        else:
            failed = middle


def _doubling(count: int) -> list[int]:
    """Return 1, 2, 4, ... below ``count``, then ``count``; nothing for 0."""
    return [2**power for power in range(max(count - 1, 0).bit_length())] + [count] * (count > 0)


def _probes(units: Sequence[str], *, thorough: bool) -> Iterator[frozenset[str]]:
    """Yield sets that may pass although the prefixes around them do not."""
    for unit in units[: math.ceil(math.log2(len(units) + 1))]:
        yield frozenset({unit})
    yield from _without_one(units[:_TOP])
    if not thorough:
        return
    for parts in (2, 4):
        cuts = [len(units) * part // parts for part in range(parts + 1)]
        yield from (frozenset(units[start:stop]) for start, stop in pairwise(cuts) if start < stop)
    for size in _doubling(len(units)):
        if size > _TOP:
            yield from _without_one(units[:size])


def _without_one(units: Sequence[str]) -> Iterator[frozenset[str]]:
    return (frozenset(units) - {unit} for unit in units)


def _first_of(trials: Sequence[frozenset[str]]) -> Stage[frozenset[str]]:
    """Ask sets in turn until one passes."""
    for trial in trials:
        if (yield trial):
            return


def _prune(units: Sequence[str]) -> Stage[frozenset[str]]:
    """Ask for a passing set without some of its units, from the last unit to the first."""
    kept, stop, chunk = list(units), len(units), 1
    while stop > 0:
        size = min(chunk, stop)
        if (yield frozenset(kept[: stop - size] + kept[stop:])):
            del kept[stop - size : stop]
            stop, chunk = stop - size, 2 * size
            continue
        # The last of these units that cannot go; what is behind it is removed on the way.
        while size > 1:
            half = size // 2
            if (yield frozenset(kept[: stop - half] + kept[stop:])):
                del kept[stop - half : stop]
                stop, size = stop - half, size - half
            else:
                size = half
        stop, chunk = stop - 1, 1


def _narrow(count: int) -> Stage[tuple[int, int]]:
    """Ask ever smaller intervals inside [0, count), until neither end can be moved."""
    start, stop = 0, count
    while stop - start > 1:
        middle = (start + stop) // 2
        if (yield start, middle):
            stop = middle
        elif (yield middle, stop):
            start = middle
        else:
            start, stop = yield from _trim(start, stop, middle)
            if (yield start + 1, stop):
                start += 1
            elif (yield start, stop - 1):
                stop -= 1
            else:
                return


def _trim(start: int, stop: int, middle: int) -> Generator[tuple[int, int], bool, tuple[int, int]]:
    """Bisect the left end of an interval up to the cut, then the right end down to it; return what said yes last."""
    inside = middle
    while inside - start > 1:
        cut = (start + inside) // 2
        if (yield cut, stop):
            start = cut
        else:
            inside = cut
    inside = middle
    while stop - inside > 1:
        cut = (inside + stop) // 2
        if (yield start, cut):
            stop = cut
        else:
            inside = cut
    return start, stop
