"""Errors that depend on where an element lies: some entries only, a constant per entry, a shift, other axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch

from harness.compare.formats import UNIT_ROUNDOFF
from harness.compare.shape_fits import NEAR, UNKNOWN_ROUNDING, Fit, Pair, Whole, first_fit, spread, total
from harness.compare.shape_values import everywhere, functions
from harness.records import ErrorShape

MOST_RANGES = 16
"""More ranges of wrong entries than this say nothing of a place."""
BETWEEN = 0.1
"""Share of the wrong entries that may be neither clearly wrong nor clearly right."""
SHIFTED = 2**18
"""Elements that are looked at for a shift."""
LOOKED_AT = 8192
"""Elements that are looked at for a transposition."""
MOST_AXES = 5
"""Axes longer than 1 of which every order is tried; of more, only exchanges of two."""


def slices(whole: Whole) -> Iterator[Fit]:
    """Yield the axis of which the fewest entries hold all of the error, with what it looks like within them."""
    found = []
    for axis, size in enumerate(whole.shape):
        if size < 2:
            continue
        pair, dims = whole.pair(axis), [k for k in range(len(whole.shape)) if k != axis]
        squared, noise = (total(t.square(), dims) for t in (pair.error, pair.expected))
        noise = noise * pair.roundoff**2
        if pair.lost is not None:
            noise += total(pair.lost.square(), dims)
        limit = NEAR**2 * (noise + noise.mean())
        wrong = squared > limit
        count, unclear = int(wrong.sum()), int(((squared > limit / 4) & (squared < 4 * limit)).sum())
        if 0 < count <= size // 2 and unclear <= BETWEEN * count:
            found.append((count / size, axis, wrong.nonzero().flatten(), float(squared[~wrong].sum())))
    for _, axis, entries, residual in sorted(found, key=lambda one: one[:2]):
        places = ranges(entries.tolist())
        if len(places) > MOST_RANGES:
            continue
        pair, size = whole.pair(axis), whole.shape[axis]
        shape = ErrorShape(kind="slice", axis=axis, size=size, entries=places)
        within = pair.part(axis, entries)
        fit = Fit(
            shape=shape, residual=residual, squared=pair.squared, noise=pair.noise, elements=pair.elements, own=None,
            parameters=within.elements,
        )  # fmt: skip
        if fit.holds:
            part = first_fit(itertools.chain(everywhere(within), functions(within, plain=0.0)))
            if part is not None:
                fit = replace(fit, shape=replace(shape, part=part.shape.kind, factor=part.shape.factor))
            yield fit


def ranges(entries: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return ascending entries as first and last of each run."""
    runs: list[tuple[int, int]] = []
    for entry in entries:
        if runs and entry == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], entry)
        else:
            runs.append((entry, entry))
    return tuple(runs)


def constants(whole: Whole) -> Iterator[Fit]:
    """Yield a constant per entry of an axis, the axis that leaves least first."""
    fits = []
    for axis, pair, dims in _channels(whole):
        mean, own = pair.error.mean(dims, keepdim=True), pair.expected - pair.expected.mean(dims, keepdim=True)
        shape = ErrorShape(kind="constant_per_channel", axis=axis, size=whole.shape[axis])
        fits.append(_per_channel(pair, shape, pair.error - mean, own))
    yield from sorted(fits, key=lambda fit: fit.residual)


def scales(whole: Whole) -> Iterator[Fit]:
    """Yield a factor per entry of an axis, the axis that leaves least first."""
    fits = []
    for axis, pair, dims in _channels(whole):
        norm = pair.expected.square().sum(dims, keepdim=True)
        factor = (pair.actual * pair.expected).sum(dims, keepdim=True) / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        shape = ErrorShape(kind="scale_per_channel", axis=axis, size=whole.shape[axis])
        own = pair.actual - pair.actual.mean(dims, keepdim=True)
        fit = _per_channel(pair, shape, pair.actual - factor * pair.expected, own)
        fits.append(replace(fit, noise=fit.noise * max(1.0, float(factor.square().max()))))
    yield from sorted(fits, key=lambda fit: fit.residual)


def _channels(whole: Whole) -> Iterator[tuple[int, Pair, list[int]]]:
    """Yield the axes of which every entry has several elements, with what to look at and the other axes."""
    for axis, size in enumerate(whole.shape):
        pair = whole.pair(axis)
        if size >= 2 and pair.elements >= 2 * size:
            yield axis, pair, [k for k in range(len(whole.shape)) if k != axis]


def _per_channel(pair: Pair, shape: ErrorShape, left: torch.Tensor, own: torch.Tensor) -> Fit:
    return Fit(
        shape=shape, residual=float(total(left.square())), squared=pair.squared, noise=pair.noise,
        elements=pair.elements, own=float(total(own.square())), parameters=shape.size or 0,
    )  # fmt: skip


def other_axis(whole: Whole) -> Iterator[Fit]:
    """Yield along which axis a softmax was taken, and along which it should be: there it adds up to 1."""
    if float(whole.actual.min()) < 0 or float(whole.expected.min()) < 0:
        return
    within = NEAR * UNKNOWN_ROUNDING * UNIT_ROUNDOFF[whole.precision]
    axes = [axis for axis, size in enumerate(whole.shape) if size > 1]
    one, other = ({a for a in axes if _adds_up(it, a, within)} for it in (whole.actual, whole.expected))
    if len(one) == len(other) == 1 and one != other:
        pair = whole.pair()
        yield Fit(
            shape=ErrorShape(kind="other_axis", axis=one.pop(), instead_of=other.pop()), residual=0.0,
            squared=pair.squared, noise=pair.noise, elements=pair.elements, own=None, parameters=0,
        )  # fmt: skip


def _adds_up(value: torch.Tensor, axis: int, within: float) -> bool:
    return bool(((value.sum(axis, dtype=torch.float64) - 1).abs() <= within).all())


def shifts(whole: Whole) -> Iterator[Fit]:
    """Yield the shift along each axis that fits best; what runs over the edge is left out."""
    for axis, size in enumerate(whole.shape):
        pair = whole.pair(axis)
        if size < 4 or pair.is_constant:
            continue
        lines = [t.movedim(axis, -1).reshape(-1, size) for t in (pair.actual, pair.expected)]
        rows = torch.linspace(0, len(lines[0]) - 1, min(len(lines[0]), max(1, SHIFTED // size)))
        actual, expected = (t[rows.round().long().to(t.device)] for t in lines)
        centred = [t - t.mean(1, keepdim=True) for t in (actual, expected)]
        first, second = (torch.fft.rfft(t, 2 * size) for t in centred)
        alike = torch.fft.irfft((first * second.conj()).sum(0), 2 * size)
        most = size // 2
        steps = torch.arange(1, most + 1, device=alike.device)
        best = [sign * int(steps[alike[(sign * steps) % (2 * size)].argmax()]) for sign in (1, -1)]
        fits = []
        for k in sorted({1, -1, *best}, key=abs):
            to = slice(max(k, 0), size + min(k, 0))
            of = slice(max(-k, 0), size + min(-k, 0))
            kept = actual[:, to]
            fits.append(
                Fit(
                    shape=ErrorShape(kind="shift", axis=axis, size=size, steps=k),
                    residual=float((kept - expected[:, of]).square().sum()),
                    squared=float((kept - expected[:, to]).square().sum()),
                    noise=pair.noise * kept.numel() / pair.elements, elements=kept.numel(), own=spread(kept),
                )
            )  # fmt: skip
        yield next((fit for fit in fits if fit.holds), fits[0])


def transposed(whole: Whole) -> Iterator[Fit]:
    """Yield the order of axes in which the expected value, laid out in this one's shape, fits best."""
    axes = [axis for axis, size in enumerate(whole.shape) if size > 1]
    if len(axes) < 2 or whole.pair().is_constant:
        return
    count, generator = whole.expected.numel(), torch.Generator().manual_seed(0)
    places = torch.arange(count) if count <= LOOKED_AT else torch.randint(count, (LOOKED_AT,), generator=generator)
    places = places.to(whole.expected.device)
    sizes = [whole.shape[axis] for axis in axes]
    steps = [math.prod(sizes[k + 1 :]) for k in range(len(sizes))]
    low = None if whole.low is None else whole.low.flatten()[places]
    expected = whole.expected.flatten()
    pair = Pair.of(whole.actual.flatten()[places], expected[places], low, whole.precision)

    def left(order: Sequence[int]) -> float:
        moved = expected[_moved(places, order, sizes, steps)].double()
        return float(total((pair.actual - moved).nan_to_num_(0, 0, 0).square_()))

    best, order = min((left(order), order) for order in _orders(len(axes)))
    permutation = list(range(len(whole.shape)))
    for axis, k in zip(axes, order, strict=True):
        permutation[axis] = axes[k]
    yield Fit(
        shape=ErrorShape(kind="transposed", permutation=tuple(permutation)), residual=best, squared=pair.squared,
        noise=pair.noise, elements=pair.elements, own=pair.variances[0],
    )  # fmt: skip


def _orders(count: int) -> Iterable[tuple[int, ...]]:
    same = tuple(range(count))
    if count <= MOST_AXES:
        return itertools.islice(itertools.permutations(same), 1, None)
    pairs = itertools.combinations(same, 2)
    return (tuple({i: j, j: i}.get(k, k) for k in same) for i, j in pairs)


def _moved(places: torch.Tensor, order: Sequence[int], sizes: Sequence[int], steps: Sequence[int]) -> torch.Tensor:
    """Return where in the original the elements of its transposed copy lie, both counted flat."""
    found = torch.zeros_like(places)
    for k in reversed(order):
        found += places % sizes[k] * steps[k]
        places = places // sizes[k]
    return found


def instead(whole: Whole, kind: Literal["swapped", "stale"], others: Mapping[str, torch.Tensor]) -> Iterator[Fit]:
    """Yield the other tensors of this shape that the value may hold in its place."""
    pair = whole.pair()
    for name, other in others.items():
        if other.shape == whole.shape and other.is_floating_point():
            residual = float(total((pair.actual - whole.thin(other).to(pair.actual)).square()))
            yield Fit(
                shape=ErrorShape(kind=kind, other=name), residual=residual if math.isfinite(residual) else math.inf,
                squared=pair.squared, noise=pair.noise, elements=pair.elements, own=pair.variances[0],
            )  # fmt: skip
