"""Errors that are the same wherever an element lies: a factor, a constant, an end, a function, or rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from harness.compare.formats import SMALLEST_STEP, UNIT_ROUNDOFF
from harness.compare.shape_fits import NEAR, Fit, Pair, total
from harness.records import ErrorShape, ShapeKind

SAMPLE = 2**14
"""Elements that are sorted to see whether the error is a function of the expected value."""
FEWEST = 32
"""Elements that are needed to tell a function or rounding."""
FEWEST_ENDED = 3
"""Elements that must end at one number: a single one is merely wrong."""
LEVELS = 4
"""An element is quantised where it takes so many times fewer values than the expected one."""
SMOOTH = 0.25
"""A function explains the error only where it leaves less than this share of what its neighbours in place leave."""
WINDOW = 4
"""Neighbours by value on either side of which one must lie on the same branch of a function."""
BY_CHANCE = 0.05
"""Share of what chance leaves between such neighbours that a function may leave."""
PLAIN = 0.005
"""The same where no rounding hides how little is left: a GELU that is a SiLU leaves 6e-5 in FP32, and of 1800 errors
that are no function none less than 0.09."""
RARE = 0.05
"""Share of the elements that may lie on a branch where few others lie."""
LARGEST_OF_NOISE = 12.0
"""The largest error of rounding over the RMS of all."""
EVEN = 1024
"""Elements that an entry must have for its own RMS to count; of fewer a single one makes it."""
BIASED = 0.1
"""Mean of the errors over their RMS, of all or in the direction of the value, that rounding stays below."""
LINES = 256
"""Rows and columns that are looked at for directions that hold the errors; of fewer elements nothing is known."""
ALIKE = 0.8
"""Neighbours whose errors are more alike than this do not round independently; sums over a window are alike."""
NEIGHBOURS = 8
"""Entries of an axis that are needed to see how alike its neighbours are."""
GRIDS: tuple[tuple[ShapeKind, str], ...] = (
    ("bf16_rounding", "bf16"), ("fp16_rounding", "fp16"), ("tf32_rounding", "tf32"),
)  # fmt: skip
"""The formats that a value may have been rounded to, the coarsest first, and of equal ones the narrower first."""


def everywhere(pair: Pair) -> Iterator[Fit]:
    """Yield what an error may be that depends on nothing but the element itself, but for :func:`functions`."""
    if not pair.norms[0]:
        yield Fit(
            shape=ErrorShape(kind="zeros"), residual=0.0, squared=pair.squared, noise=0.0, elements=pair.elements,
            own=None, parameters=0,
        )  # fmt: skip
    else:
        yield from _affine(pair)
        yield from _ended(pair)


def _affine(pair: Pair) -> list[Fit]:
    """Return a factor and a constant, the better one first."""
    constant = float(total(pair.error)) / max(pair.elements, 1)
    fits = [
        Fit(
            shape=ErrorShape(kind="offset", factor=constant),
            residual=float(total((pair.error - constant).square())), squared=pair.squared, noise=pair.noise,
            elements=pair.elements, own=pair.variances[1],
        )
    ]  # fmt: skip
    if not pair.is_constant:
        factor = 1 + float(total(pair.error * pair.expected)) / pair.norms[1]
        fits.append(
            Fit(
                shape=ErrorShape(kind="scale", factor=factor),
                residual=float(total((pair.error - (factor - 1) * pair.expected).square())), squared=pair.squared,
                noise=pair.noise * max(1.0, factor**2), elements=pair.elements, own=pair.variances[0],
            )
        )  # fmt: skip
    return sorted(fits, key=lambda fit: fit.residual)


def _ended(pair: Pair) -> list[Fit]:
    low, high = (float(end) for end in pair.actual.aminmax())
    above, below = pair.expected > high, pair.expected < low
    beyond = [(high, above), (low, below)]
    ended = [(end, float(total((pair.expected - end).square().where(where, 0.0))), where) for end, where in beyond]
    end, _, where = max(ended, key=lambda one: one[1])
    within = int(((pair.actual > low) & (pair.actual < high)).sum())
    if min(int(where.sum()), within) < FEWEST_ENDED:
        return []
    return [
        Fit(
            shape=ErrorShape(kind="saturation", factor=end),
            residual=float(total((pair.actual - pair.expected.clamp(low, high)).square())),
            squared=pair.squared, noise=pair.noise, elements=pair.elements, own=pair.variances[0], parameters=2,
        )
    ]  # fmt: skip


def functions(pair: Pair, *, plain: float = PLAIN) -> Iterator[Fit]:
    """Yield the engine's value as a function of the expected one, and the other way round.

    Elements that are neighbours by value are held against each other: a function leaves nothing between them, and less
    than what neighbours in place have in common. An error that is merely smooth is none. GELU and SiLU take a value
    twice, so that of a few neighbours one must be alike, much more so than chance has it. ``plain`` is the share of
    that which counts as nothing.
    """
    if pair.elements < FEWEST or pair.is_constant or not pair.squared:
        return
    order = torch.randperm(pair.elements, generator=torch.Generator().manual_seed(0))[:SAMPLE]
    order = order.to(pair.error.device)
    order = order[_single(pair.expected.flatten()[order], pair.error.flatten()[order])]
    actual, expected, error = (t.flatten()[order] for t in (pair.actual, pair.expected, pair.error))
    if (
        len(order) < FEWEST
        or _values(expected) < FEWEST
        or (_values(actual) * LEVELS < _values(_held(expected, pair)) and not _flat(actual))
    ):
        return
    in_place = min((_unlike(pair.error.movedim(axis, -1)) for axis in _long_axes(pair)), default=math.inf)
    squared, noise = float(total(error.square())), pair.noise * len(order) / pair.elements
    for key, other in ((expected, actual), (actual, expected)):
        left = _left_between(key, error)
        most = int((1 - RARE) * len(left))
        usual = _usual_sum(left, most)
        chance = min(_usual_sum(_left_between(key, values, shuffled=True), most) for values in (error, other))
        residual = float(left.sum())
        if usual <= BY_CHANCE * chance and residual <= SMOOTH * in_place * squared:
            if usual <= max(NEAR**2 * noise, plain * chance):  # what lies on a rare branch has no neighbour there
                noise = max(noise, residual / NEAR**2)
            yield Fit(
                shape=ErrorShape(kind="another_function"), residual=residual, squared=squared, noise=noise,
                elements=len(order), own=None,
            )  # fmt: skip


def _single(key: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """Return one place of each pair of numbers: copies of an element, as of an enlarged image, say nothing."""
    order = error.argsort(stable=True)
    order = order[key[order].argsort(stable=True)]
    new = (key[order].diff() != 0) | (error[order].diff() != 0)
    return order[torch.cat([new.new_ones(1), new])].sort().values


def _usual_sum(values: torch.Tensor, most: int) -> float:
    return float(values.sort().values[:most].sum())


def _values(values: torch.Tensor) -> int:
    """Return how many different values there are."""
    return int((values.sort().values.diff() > 0).sum()) + 1


def _held(values: torch.Tensor, pair: Pair) -> torch.Tensor:
    """Return values as the engine's format holds them."""
    return _rounded(values.float(), pair.precision).double() if pair.precision != "fp32" else values


def _flat(values: torch.Tensor) -> bool:
    """Return whether at least half of the values are one number, as behind a ReLU."""
    return bool((values == values.mode().values).double().mean() >= 1 / 2)


def _left_between(key: torch.Tensor, values: torch.Tensor, *, shuffled: bool = False) -> torch.Tensor:
    """Return the squares of what neighbours by ``key`` do not tell of values, or of those in the place of others.

    By a line between two, or by the one of several that is most alike.
    """
    order = key.argsort(stable=True)
    key, values = key[order], values if shuffled else values[order]
    inner, ends = slice(WINDOW, len(key) - WINDOW), range(-WINDOW, WINDOW + 1)
    near = {k: (key[WINDOW + k : len(key) - WINDOW + k], values[WINDOW + k : len(key) - WINDOW + k]) for k in ends}
    before, after = (key[inner] - near[-1][0]), (near[1][0] - key[inner])
    share = (before / (before + after)).nan_to_num(0.5)
    line = values[inner] - (1 - share) * near[-1][1] - share * near[1][1]
    left = line.square() / (1 + share.square() + (1 - share).square())
    for k in ends:
        if k:
            left = torch.minimum(left, (values[inner] - near[k][1]).square() / 2)
    return left


def _unlike(lines: torch.Tensor) -> float:
    """Return the same of neighbours in place along the last axis, over the mean square; about 1 for noise."""
    left = lines[..., 1:-1] - (lines[..., :-2] + lines[..., 2:]) / 2
    mean = float(total(lines.square())) / lines.numel()
    return float(total(left.square())) / left.numel() / 1.5 / mean if mean else math.inf


def _long_axes(pair: Pair) -> list[int]:
    return [axis for axis, size in enumerate(pair.error.shape) if size >= NEIGHBOURS]


def rounded(pair: Pair) -> ErrorShape | None:
    """Return the format that the engine's elements were rounded to, coarser than its own; None where they were not."""
    if pair.elements < FEWEST or not pair.squared:
        return None
    for kind, name in GRIDS:
        if UNIT_ROUNDOFF[name] > UNIT_ROUNDOFF[pair.precision] and _lies_on(pair, name) and _is_bounded(pair, name):
            return ErrorShape(kind=kind, explained=1.0)
    return None


def rounding(pair: Pair) -> ErrorShape | None:
    """Return the format whose rounding of its terms an error looks like, no finer than the engine's; else None.

    The errors are as large as those of sums of rounded terms, as even, and as independent. Rounding towards zero makes
    values smaller by less than two roundings beside that.
    """
    count, norm = pair.elements, pair.norms[1]
    if count < LINES or not pair.squared or not norm:
        return None
    slope = float(total(pair.error * pair.expected)) / norm
    rest = pair.error - slope * pair.expected
    left = float(total(rest.square()))
    kind = _sized(pair, math.sqrt(pair.squared / norm))
    if kind is None or left <= NEAR**2 * pair.noise:
        return None
    roundoff = UNIT_ROUNDOFF[dict(GRIDS)[kind]]
    one_sided = max(abs(float(total(rest))), abs(float(total(rest * pair.expected.sign())))) / math.sqrt(left * count)
    if abs(slope) > 2 * roundoff or one_sided > BIASED + 5 / math.sqrt(count):
        return None
    if any(_alike(rest.movedim(axis, -1)) > ALIKE for axis in _long_axes(pair)) or _is_low_rank(rest):
        return None
    usual, once = _usual(rest), pair.expected.abs() * roundoff
    least = torch.minimum(0.1 * usual, once * (1.5 if roundoff == UNIT_ROUNDOFF[pair.precision] else 0.05))
    everywhere = float((rest.abs() > least).double().mean()) > 1 / 2
    even = everywhere and not bool((rest.abs() > LARGEST_OF_NOISE * torch.maximum(usual, once)).any())
    return ErrorShape(kind=kind, explained=left / pair.squared) if even else None


def _is_low_rank(error: torch.Tensor) -> bool:
    """Return whether a few directions hold the errors, beyond what rows and columns of unequal size account for."""
    lines = error.reshape(-1, error.shape[-1]) if error.dim() else error.reshape(1, 1)
    lines = lines[:: -(-len(lines) // LINES), :: -(-lines.shape[1] // LINES)]
    for axis in (0, 1):
        lines = lines / lines.square().mean(axis, keepdim=True).sqrt().clamp(min=1e-300)
    rows, columns = lines.shape
    chance = (math.sqrt(rows) + math.sqrt(columns)) ** 2 / (rows * columns)
    return float(torch.linalg.matrix_norm(lines, 2) ** 2 / total(lines.square())) > 2 * chance + 0.05


def _alike(lines: torch.Tensor) -> float:
    """Return the correlation of neighbours along the last axis."""
    both = float(total(lines.square()))
    return float(total(lines[..., 1:] * lines[..., :-1])) / both if both else 1.0


def _usual(error: torch.Tensor) -> torch.Tensor:
    """Return the RMS of the errors around each element: the largest of those of the entries it lies in."""
    usual = error.square().mean().sqrt()
    for axis in range(error.dim()):
        dims = [k for k in range(error.dim()) if k != axis]
        if dims and error.shape[axis] * EVEN <= error.numel():
            usual = torch.maximum(usual, error.square().mean(dims, keepdim=True).sqrt())
    return usual


def _sized(pair: Pair, relative: float) -> ShapeKind | None:
    """Return the format by the size of the error: TF32 and FP16 round alike, and in FP32 it is TF32 that is used."""
    if pair.precision == "fp32":
        if 2.0**-14 <= relative <= 2.0**-9:
            return "tf32_rounding"
        return "bf16_rounding" if 2.0**-9 < relative <= 2.0**-6 else None
    if relative > 16 * UNIT_ROUNDOFF[pair.precision]:
        return None
    if pair.precision == "bf16" or _is_bounded(pair, "bf16"):
        return "bf16_rounding"
    return "fp16_rounding" if pair.precision == "fp16" else "tf32_rounding"


def _is_bounded(pair: Pair, name: str) -> bool:
    """Return whether no element is off by more than one rounding of its own."""
    step = max(SMALLEST_STEP[name], SMALLEST_STEP[pair.precision])
    largest = pair.expected.abs() * (1.05 * UNIT_ROUNDOFF[name]) + step
    return not bool((pair.error.abs() > largest).any())


def _lies_on(pair: Pair, name: str) -> bool:
    """Return whether the engine's elements lie on the grid of a format, within its own roundings, and others do not."""
    own = NEAR * UNIT_ROUNDOFF["fp32"] if pair.precision == "fp32" else 0.0
    step = SMALLEST_STEP[pair.precision]

    def off(values: torch.Tensor) -> torch.Tensor:
        return (values - _rounded(values.float(), name)).abs() > own * values.abs() + step

    return not bool(off(pair.actual).any()) and 2 * int(off(pair.expected).sum()) > int(pair.expected.count_nonzero())


def _rounded(values: torch.Tensor, name: str) -> torch.Tensor:
    if name == "tf32":
        bits = values.contiguous().view(torch.int32)
        return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)
    return values.to(torch.float16 if name == "fp16" else torch.bfloat16).float()
