"""What an error looks like, computed from the value and the one it should be.

Each kind is fitted and must explain nearly all of the squared error; what remains must be rounding, or next to nothing.
The first that does is named, simplest first, and where none does the shape is unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch

from harness.compare.shape_fits import MOST, Fit, Whole, first_fit
from harness.compare.shape_places import (
    constants,
    instead,
    other_axis,
    ranges,
    scales,
    shifts,
    slices,
    transposed,
)
from harness.compare.shape_values import everywhere, functions, rounded, rounding
from harness.records import ErrorShape

RANDOM = 0.5
"""Runs that differ by more than this share of the squared error are what is wrong."""
DENSE = 0.5
"""Share of the elements of some entries that must not be finite, or it is no matter of these entries."""
_NONE: Mapping[str, torch.Tensor] = MappingProxyType({})
UNKNOWN = ErrorShape(kind="unknown")


def error_shape(
    actual: torch.Tensor,
    expected: torch.Tensor,
    low: torch.Tensor | None = None,
    *,
    precision: str,
    others: Mapping[str, torch.Tensor] = _NONE,
    previous: Mapping[str, torch.Tensor] = _NONE,
    runs: Sequence[torch.Tensor] = (),
    made_here: bool = True,
) -> ErrorShape:
    """Return what the error of ``actual`` looks like; ``unknown`` where it is nothing that has a name.

    ``low`` is PyTorch's value in the engine's ``precision``, which says how much of an error is rounding. ``others``
    are what other outputs or values should be, ``previous`` what this one should be in other cases, both by name;
    ``runs`` are other runs of the engine on the same inputs. An error that is not ``made_here`` has come through other
    operations, where any small one looks like rounding in the end: it is not called so by its size.
    """
    if actual.shape != expected.shape or not actual.numel():
        return UNKNOWN
    actual, expected = actual.detach(), expected.detach()
    if not expected.is_floating_point():
        return _decision_shape(actual, expected, runs)
    actual = actual.to(expected.device)
    whole = Whole(actual, expected, low, precision)
    if runs and (fit := first_fit(instead(whole, "stale", previous))) is not None and fit.is_near:
        return fit.named()  # what the run before left differs from run to run too
    found = _random(actual, expected, runs) or _not_finite(actual, expected)
    if found is not None:
        return found
    pair = whole.pair()
    replaced = itertools.chain(instead(whole, "swapped", others), instead(whole, "stale", previous))
    fit = first_fit(itertools.chain(everywhere(pair), replaced, _places(whole)))
    if fit is None or not fit.is_near:
        if (found := rounded(pair)) is not None:
            return found
        function = first_fit(functions(pair))
        if function is not None and (fit is None or function.is_near):
            fit = function
        elif fit is None:
            return (rounding(pair) if made_here else None) or UNKNOWN
    return fit.named() if fit is not None else UNKNOWN


def _places(whole: Whole) -> Iterator[Fit]:
    """Yield what an error may be that depends on where an element lies, the fewest figures first."""
    several = []
    for fit in slices(whole):
        if len(fit.shape.entries) == 1:
            yield fit
        else:
            several.append(fit)
    yield from itertools.chain(
        constants(whole), shifts(whole), transposed(whole), other_axis(whole), several, scales(whole)
    )


def _random(actual: torch.Tensor, expected: torch.Tensor, runs: Sequence[torch.Tensor]) -> ErrorShape | None:
    runs = [run.to(actual.device) for run in runs if run.shape == actual.shape]
    if any(not torch.equal(run.isfinite(), actual.isfinite()) for run in runs):
        return ErrorShape(kind="random", explained=1.0)
    apart = max((_squared_distance(run, actual) for run in runs), default=0.0)
    squared = _squared_distance(actual, expected) if apart else 0.0
    random = squared and apart >= RANDOM * squared
    return ErrorShape(kind="random", explained=min(1.0, apart / squared)) if random else None


def _squared_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    if torch.equal(one, other):
        return 0.0
    wide = torch.float64 if one.numel() <= MOST else torch.float32
    return float((one.to(wide) - other.to(wide)).nan_to_num_(0, 0, 0).square_().sum(dtype=torch.float64))


def _not_finite(actual: torch.Tensor, expected: torch.Tensor) -> ErrorShape | None:
    bad = ~actual.isfinite() & expected.isfinite()
    count = int(bad.sum())
    if not count:
        return None
    shape = ErrorShape(kind="non_finite", explained=1.0, count=count, elements=bad.numel())
    found = []
    for axis, size in enumerate(bad.shape):
        entries = bad.movedim(axis, 0).reshape(size, -1).any(1).nonzero().flatten().tolist()
        if 2 * len(entries) <= size and count >= DENSE * len(entries) * (bad.numel() // size):
            found.append((len(entries) / size, axis, size, ranges(entries)))
    if not found:
        return shape
    _, axis, size, places = min(found)
    return ErrorShape(
        kind="non_finite", explained=1.0, count=count, elements=bad.numel(), axis=axis, size=size, entries=places
    )


def _decision_shape(actual: torch.Tensor, expected: torch.Tensor, runs: Sequence[torch.Tensor]) -> ErrorShape:
    actual = actual.to(expected.device)
    differ = actual != expected
    count = int(differ.sum())
    if not count:
        return UNKNOWN
    moved = max((int((run.to(actual.device) != actual).sum()) for run in runs if run.shape == actual.shape), default=0)
    if moved >= RANDOM * count:
        return ErrorShape(kind="random", explained=min(1.0, moved / count))
    wrong, right = (t[differ].to(torch.float64) for t in (actual, expected))
    every = count == differ.numel()
    if every and count > 1 and (expected.dtype == torch.bool or bool((wrong == -right).all())):
        return ErrorShape(kind="decision", explained=1.0, count=count, elements=count, part="scale", factor=-1.0)
    apart = wrong - right
    known = (
        expected.dtype != torch.bool and bool((apart == apart[0]).all()) and (count > 1 or abs(float(apart[0])) == 1)
    )
    return ErrorShape(
        kind="decision", explained=1.0, count=count, elements=differ.numel(), part="offset" if known else None,
        factor=float(apart[0]) if known else None,
    )  # fmt: skip
