"""Every part of an output against the floor of the same part.

A part may lose ``FACTOR`` times what PyTorch loses there, times what chance may add: c is the root of the quantile of
F(d, d'), the ratio of two mean squares with d and d' degrees of freedom, at a level that all parts of an output share
(FALSE_REDS). docs/verdicts.md says where each estimate comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.compare import Octaves, Slices, measure_octaves, measure_slices
from harness.lazy import special
from harness.records import Figure, PartResult
from harness.verify.chance import chance_factor, degrees_between, moderated
from harness.verify.copies import without_copies
from harness.verify.sizes import FEW, before_cancelling, softmax_axis, spread_of

if TYPE_CHECKING:
    from harness.compare import Array

FACTOR = 3.0
"""An engine may lose this many times what PyTorch loses: a fused kernel rounds elsewhere."""
MAX_FACTOR = 12.0
"""The same for the single largest error, against the largest that PyTorch makes anywhere."""
FALSE_REDS = 1e-3
"""Share of right engines that all parts of one output together may call wrong."""
MOST_DEGREES = 32.0
"""Degrees of freedom of a slice or octave, at most: the errors in it have causes in common."""
NEIGHBOURS = 4
"""Octaves on either side that say what an octave with few elements loses."""
PRIOR_DEGREES = 8.0
"""Degrees of freedom of what the neighbours say."""
LEAST = 2.0**-250
"""What FP64 has below this share of the largest number is taken for zero, as its fourth power is one."""
_ORDER = ("whole", "slice", "octave", "zeros")
_SHARE = FALSE_REDS / 5  # of the whole, the octaves, the slices, the single elements, the systematic parts


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What the octaves are given: squared error of an element, its degrees of freedom, and the tails' kurtosis."""

    fair: Array
    degrees: Array
    kurtosis: Array
    tail: float
    """The largest squared error of the floor over what its octave is given."""
    one: float
    """Over what its octave is given, the squared error that a single element may add to that of a part."""
    least: float
    """Size of the numbers that the format only just holds."""
    size: Array
    """Square of the size of the numbers that an element of each octave was computed from, usually."""
    largest: Array
    """The same at most."""
    spread: Array
    """How many roundings of an element one rounding of what it was computed from is."""


def judge_parts(
    actual: torch.Tensor, expected: torch.Tensor, floor: torch.Tensor, *, roundoff: float, step: float
) -> tuple[PartResult, ...]:
    """Return the norm of the whole, then the worst part that fails of each kind and figure.

    Slices come before octaves, as they say where to look. Where none fails, the one nearest to its limit is returned.

    All three have one shape; elements that are not finite on every side, and copies, are left out. ``roundoff`` is
    the largest relative error of one rounding of the format, ``step`` the distance of its smallest numbers.
    """
    if expected.dtype == torch.float64 and expected.numel():
        size = torch.where(expected.isfinite(), expected.abs(), 0.0)
        expected = torch.where(expected.abs() < LEAST * size.max(), 0.0, expected)
    (actual, expected, floor), kept = without_copies((actual, expected, floor))
    octaves = measure_octaves(actual, expected, floor)
    if not octaves.exponents:
        return ()
    softmax = softmax_axis(octaves, expected)
    table = _fair(octaves, step / 2 / roundoff, roundoff, softmax is not None)
    slices = measure_slices(actual, expected, floor, octaves, table.fair, table.size, table.spread)
    found = [*_octave_parts(octaves, table, roundoff), *_element_parts(octaves, table, roundoff)]
    degrees = [_slice_degrees(along, table) for along in slices]
    tests = sum(len(along.count) for along in slices)
    found.extend(_whole_parts(octaves, table, slices, degrees, roundoff))
    for along, own in zip(slices, degrees, strict=True):
        found.extend(_slice_parts(along, own, table, tests, roundoff, octaves.scale))
    if softmax is not None:
        found.extend(_row_parts(actual, expected, floor, softmax, roundoff))
    found = [
        part if part.axis not in kept or part.index is None else replace(part, index=kept[part.axis][part.index])
        for part in found
    ]
    found.sort(key=lambda part: -_excess(part))
    whole = [part for part in found if part.kind == "whole" and part.figure == "relative_l2"]
    rest = [part for part in found if part not in whole]
    worst: dict[tuple[str, str], PartResult] = {}
    for part in rest:
        if part.fails:
            worst.setdefault((part.kind, part.figure), part)
    failing = sorted(worst.values(), key=lambda part: _ORDER.index(part.kind))
    return (*whole, *(failing or rest[:1]))


def _excess(part: PartResult) -> float:
    if math.isnan(part.error):
        return math.inf
    return abs(part.error) / part.allowed if part.allowed else (math.inf if part.error else 0.0)


def _fair(octaves: Octaves, least: float, roundoff: float, softmax: bool) -> _Table:
    """Return what an element of each octave may lose: its floor, moderated by what its neighbours lose.

    Log-linear regression over NEIGHBOURS octaves on both sides, the octave itself left out, its slope between an error
    that is constant and one that is proportional. ``least`` is the size of numbers that the format only just holds.
    """
    count, squared = octaves.count, octaves.floor
    own = squared / count
    with np.errstate(divide="ignore", invalid="ignore"):
        kurtosis = np.where(squared > 0, count * octaves.floor_fourth / squared / squared, 1.0)
    usual = float(np.average(kurtosis, weights=count))
    kurtosis = np.maximum(kurtosis, usual)
    degrees = np.minimum(count, 2 * count / np.maximum(kurtosis - 1, 1e-9))
    fair, total = own.copy(), degrees.copy()
    places = np.array([np.nan if k is None else k for k in octaves.exponents], dtype=float)
    for i, place in enumerate(places):
        if math.isnan(place):
            near = (np.arange(len(places)) > i) & (np.arange(len(places)) <= i + NEIGHBOURS)
            x = np.zeros(len(places))
        else:
            near = (np.abs(places - place) <= NEIGHBOURS) & (places != place)
            x = np.nan_to_num(places) - place
        near &= own > 0
        if not near.any() and count[i] <= FEW:  # far ones say more of a single large element than nothing does
            near = (own > 0) & ~np.isnan(places) & (places != place)
        if not near.any():
            continue
        weight = degrees[near] / (1 + np.abs(x[near])) ** 2
        guess = _predicted(x[near], np.log(own[near]), weight)
        prior = min(PRIOR_DEGREES, float(weight.sum()))
        fair[i] = (prior * math.exp(guess) + degrees[i] * own[i]) / (prior + degrees[i])
        total[i] = prior + degrees[i]
    least = min(least * octaves.scale, 1e100)
    spread = spread_of(octaves, softmax, fair / roundoff**2, least)
    size = largest = spread**2 * octaves.reference / count
    if not softmax:  # no exponential is a difference
        size, largest = (np.maximum(size, before**2) for before in before_cancelling(octaves, _SHARE))
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = float(np.max(np.where(fair > 0, octaves.floor_largest / fair, 0.0)))
    # The largest of n normal errors squared is about 2 log 2n: beyond that, tails are heavy and maxima differ.
    heavy = max(tail / (2 * math.log(2 * count.sum() + 2)), 1.0)
    return _Table(
        fair=fair, degrees=total, kurtosis=kurtosis, tail=tail, one=tail * min(heavy, MAX_FACTOR / FACTOR) ** 2,
        least=least, size=np.maximum(size, least**2), largest=np.maximum(largest, least**2),
        spread=spread,
    )  # fmt: skip


def _row_parts(
    actual: torch.Tensor, expected: torch.Tensor, floor: torch.Tensor, axis: int, roundoff: float
) -> Iterator[PartResult]:
    """Yield the row of a softmax whose sum is farthest from one: an error of t hardly moves it."""
    right = expected.sum(axis, dtype=torch.float64)
    differences = (tensor.double().sum(axis) - right for tensor in (actual, floor))
    engine, lost = (difference.where(right.isfinite(), 0) for difference in differences)  # the others do not count
    worst = int(engine.abs().argmax())
    others = [k for k in range(expected.dim()) if k != axis and expected.shape[k] > 1]
    place = dict(
        zip(others, torch.unravel_index(torch.tensor(worst), [expected.shape[k] for k in others]), strict=True)
    )
    along = max(others, key=lambda k: expected.shape[k], default=None)
    yield PartResult(
        kind="whole" if along is None else "slice", axis=along, index=None if along is None else int(place[along]),
        figure="scale", error=float(engine.flatten()[worst]), floor=float(lost.flatten()[worst]),
        allowed=FACTOR * (roundoff + float(lost.abs().max())), elements=expected.shape[axis],
    )  # fmt: skip


def _predicted(x: Array, y: Array, weight: Array) -> float:
    """Return the value at 0 of a weighted regression line whose slope is between 0 and that of a square."""
    centre, level = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float(np.sum(weight * (x - centre) ** 2))
    slope = float(np.sum(weight * (x - centre) * (y - level))) / spread if spread else 0.0
    return float(level - min(max(slope, 0.0), math.log(4)) * centre)


def _octave_parts(octaves: Octaves, table: _Table, roundoff: float) -> Iterator[PartResult]:
    own = np.minimum(np.minimum(octaves.count, 2 * octaves.count / np.maximum(table.kurtosis - 1, 1e-9)), MOST_DEGREES)
    level = _SHARE / len(octaves.count)
    for i in np.flatnonzero(octaves.count > FEW).tolist():
        factor = FACTOR * chance_factor(own[i], min(table.degrees[i], MOST_DEGREES), level)
        zero = octaves.exponents[i] is None
        yield _octave_part(
            i, octaves, "rms_absolute" if zero else "relative_l2", octaves.engine[i], octaves.floor[i],
            max(_allowed(factor, table.fair[i] * octaves.count[i], table.fair[i], table),
                (FACTOR * roundoff) ** 2 * table.size[i] * octaves.count[i]),
            math.sqrt(octaves.count[i]) * octaves.scale if zero else math.sqrt(octaves.reference[i]),
        )  # fmt: skip


def _allowed(factor: float, floor: float, one: float, table: _Table) -> float:
    """Return the squared error that a part may have: times chance, or with one element as large as tails allow.

    ``one`` is what the octave of the part's largest elements is given.
    """
    return max(factor**2 * floor, FACTOR**2 * (floor + table.one * one))


def _octave_part(
    i: int, octaves: Octaves, figure: Figure, engine: float, floor: float, allowed: float, unit: float
) -> PartResult:
    """Return a figure of an octave from squares and the unit of their roots."""
    exponent = octaves.exponents[i]
    low, high = (None, None) if exponent is None else np.ldexp([1.0, 2.0], exponent) / octaves.scale
    error, lost, limit = (math.sqrt(x) / unit for x in (engine, floor, allowed))
    return PartResult(
        kind="zeros" if exponent is None else "octave", figure=figure, error=error, floor=lost, allowed=limit,
        elements=int(octaves.count[i]), low=None if low is None else float(low),
        high=None if high is None else float(high),
    )  # fmt: skip


def _element_parts(octaves: Octaves, table: _Table, roundoff: float) -> Iterator[PartResult]:
    """Yield the largest error of every octave."""
    level = _SHARE / float(octaves.count.sum())
    for i in range(len(octaves.count)):
        factor = max(MAX_FACTOR**2 * table.tail, (FACTOR * chance_factor(1.0, table.degrees[i], level)) ** 2)
        allowed = max(factor * table.fair[i], (MAX_FACTOR * roundoff) ** 2 * table.largest[i])
        yield _octave_part(
            i, octaves, "max_absolute", octaves.engine_largest[i], octaves.floor_largest[i], allowed, octaves.scale
        )


@dataclass(frozen=True, kw_only=True)
class _Degrees:
    """Of the slices along one axis: degrees of freedom of their errors, and their moderated floor."""

    own: Array
    nominal: Array
    """Without regard to what moves together."""
    floor: Array
    """Squared error that each slice may lose."""
    of_floor: Array


def _slice_degrees(along: Slices, table: _Table) -> _Degrees:
    """Return the degrees of freedom of every slice and what its floor is taken for.

    Nominal degrees are those of a sum of squares of unequal sizes (Satterthwaite); the spread of engine over floor from
    slice to slice shows where fewer errors than that are independent. The floor is moderated as in limma (Smyth 2004):
    the less the slices differ beyond chance, the more each is taken for what its octaves say.
    """
    s = along.sums
    kurtosis = float(np.average(table.kurtosis, weights=None))
    with np.errstate(divide="ignore", invalid="ignore"):
        nominal = np.where(s["fair_squared"] > 0, s["fair"] ** 2 / s["fair_squared"], along.count)
    nominal = np.clip(np.minimum(nominal, 2 * nominal / max(kurtosis - 1, 1e-9)), 1.0, MOST_DEGREES)
    own = np.minimum(nominal, max(degrees_between(s["engine"], s["floor"]), degrees_between(s["floor"], s["fair"])))
    floor, of_floor = moderated(s["floor"], s["fair"], own)
    return _Degrees(own=own, nominal=nominal, floor=floor, of_floor=of_floor)


def _slice_parts(
    along: Slices, degrees: _Degrees, table: _Table, tests: int, roundoff: float, scale: float
) -> Iterator[PartResult]:
    """Yield the slices that fail, or the one nearest to its limit, by error, scale and bias."""
    s, count = along.sums, np.maximum(along.count, 1)
    # d normal elements are all small by luck, as where terms cancel: their sum of squares has d degrees of freedom.
    d = float(min(np.median(along.count), max(3 * np.median(degrees.nominal), 1.0)))
    by_luck = d / (2 * special.gammaincinv(d / 2, _SHARE / tests))
    own = s["own_size"] + along.count * table.least**2
    lucky = np.clip(np.maximum(s["size"], np.median(own)), own, by_luck * own)
    size = np.where(s["reference"] > 0, lucky, s["size"])
    rounded = (FACTOR * roundoff) ** 2 * size
    allowed = np.maximum(FACTOR**2 * degrees.floor, rounded)
    for i in _beyond(s["engine"], allowed):
        factor = FACTOR * chance_factor(degrees.own[i], degrees.of_floor[i], _SHARE / tests)
        one = s["fair_squared"][i] / s["fair"][i] if s["fair"][i] else 0.0
        limit = max(_allowed(factor, degrees.floor[i], one, table), rounded[i])
        yield _slice_part(along, int(i), s["engine"][i], s["floor"][i], limit, scale)
    rms = np.sqrt(s["reference"] / count)
    with np.errstate(divide="ignore", invalid="ignore"):
        once = roundoff * np.sqrt(size / s["reference"])
    deviate = special.stdtrit(np.maximum(degrees.own, 2.0), 1 - _SHARE / (4 * tests))
    least = roundoff**2 / 3 * size  # the variance of one rounding
    spread = FACTOR * np.sqrt(np.maximum(degrees.floor, least) / np.maximum(degrees.own, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        both = (
            ("scale", s["engine_product"] / s["reference"], s["floor_product"] / s["reference"],
             spread / np.sqrt(s["reference"])),
            ("bias", s["engine_signed"] / count / rms, s["floor_signed"] / count / rms,
             spread / np.sqrt(count) / rms),
        )  # fmt: skip
    for figure, engine, floor, error in both:
        limit = np.maximum(once, FACTOR * np.abs(floor)) + deviate * error
        usable = np.isfinite(engine) & np.isfinite(limit) & (along.count > 1)
        for i in _beyond(np.where(usable, np.abs(engine), 0.0), np.where(usable, limit, 1.0)):
            if usable[i]:
                yield PartResult(
                    kind="slice", axis=along.axis, index=int(i), figure=_FIGURES[figure], error=float(engine[i]),
                    floor=float(floor[i]), allowed=float(limit[i]), elements=int(along.count[i]),
                )  # fmt: skip


_FIGURES: dict[str, Figure] = {"scale": "scale", "bias": "bias"}


def _beyond(found: Array, allowed: Array) -> Sequence[int]:
    """Return the places where a limit is exceeded, or the one that comes nearest to it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(found > 0, found / allowed, 0.0)
    beyond = np.flatnonzero(~(excess <= 1))
    return beyond.tolist() or [int(np.argmax(excess))]


def _slice_part(along: Slices, i: int, engine: float, floor: float, allowed: float, scale: float) -> PartResult:
    unit = math.sqrt(along.sums["reference"][i])
    figure: Figure = "relative_l2"
    if not unit:
        figure, unit = "rms_absolute", math.sqrt(max(along.count[i], 1)) * scale
    error, lost, limit = (math.sqrt(x) / unit for x in (engine, floor, allowed))
    return PartResult(
        kind="slice", axis=along.axis, index=i, figure=figure, error=error, floor=lost, allowed=limit,
        elements=int(along.count[i]),
    )  # fmt: skip


def _whole_parts(
    octaves: Octaves, table: _Table, slices: Sequence[Slices], degrees: Sequence[_Degrees], roundoff: float
) -> Iterator[PartResult]:
    """Yield the norm of all errors, and the scale."""
    reference, engine, count = (float(x.sum()) for x in (octaves.reference, octaves.engine, octaves.count))
    each = table.fair * octaves.count
    fair, squares = float(each.sum()), float((table.fair * each).sum())
    if not reference:
        return
    own = of_floor = count
    if fair:
        kurtosis = float(np.average(table.kurtosis, weights=each))
        own = min(fair**2 / squares * min(1.0, 2 / max(kurtosis - 1, 1e-9)), count)
        of_floor = fair**2 / float((each**2 / table.degrees).sum())
    for along in degrees:  # what chance moves together counts once
        if len(along.own) > 1 and float(along.floor.sum()):
            own = min(own, float(along.floor.sum()) ** 2 / float((along.floor**2 / along.own).sum()))
            of_floor = min(of_floor, float(along.floor.sum()) ** 2 / float((along.floor**2 / along.of_floor).sum()))
    own = max(own, 1.0)
    factor = FACTOR * chance_factor(own, of_floor, _SHARE)
    rounded = (FACTOR * roundoff) ** 2 * float((table.spread**2 * octaves.reference).sum())
    most = _allowed(factor, fair, float(table.fair.max()), table)
    limit = min(math.sqrt(max(most, rounded) / reference), 0.5)
    yield PartResult(
        kind="whole", figure="relative_l2", error=math.sqrt(engine / reference),
        floor=math.sqrt(float(octaves.floor.sum()) / reference), allowed=limit, elements=int(count),
    )  # fmt: skip
    if not slices:
        return
    once = math.sqrt(rounded / reference) / FACTOR
    fair = fair or once**2 * reference / 3  # where PyTorch rounds nothing, by luck: the variance of one rounding
    for figure, row, over in (("scale", "product", "reference"), ("bias", "signed", "count")):
        sums = [(a.sums[f"engine_{row}"], a.sums[f"floor_{row}"], a.count if over == "count" else a.sums[over])
                for a in slices]  # fmt: skip
        total = float(sums[0][2].sum())
        mean, lost = float(sums[0][0].sum()) / total, float(sums[0][1].sum()) / total
        error = (
            FACTOR * math.sqrt(fair / reference / own) if figure == "scale" else FACTOR * math.sqrt(fair / count / own)
        )
        deviate = float(special.stdtrit(max(own, 2.0), 1 - _SHARE / 4))
        unit = 1.0 if figure == "scale" else math.sqrt(reference / count)
        limit = max(once, FACTOR * abs(lost) / unit) + deviate * error / unit
        yield PartResult(
            kind="whole", figure=_FIGURES[figure], error=mean / unit, floor=lost / unit, allowed=limit,
            elements=int(count),
        )  # fmt: skip
