"""What the passes over two tensors add up: sums, counts, the worst elements, and order statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

if TYPE_CHECKING:
    Index = tuple[int | slice, ...]


WORST = 5
MOST_PASSES = 70  # a sampled bracket, its end, and at most 63 halvings
QUANTILES = (
    ("absolute", "median", 1, 2),
    ("absolute", "p99", 99, 100),
    ("relative", "median", 1, 2),
    ("relative", "p99", 99, 100),
)
SUMS = (
    "absolute",
    "relative",
    "signed",
    "squared",
    "actual",
    "actual_squared",
    "expected",
    "expected_squared",
    "product",
)
COUNTS = ("compared", "undefined")
NONFINITE = ("nan_actual", "nan_expected", "nonfinite_actual", "nonfinite_expected", "mismatched_nonfinite")
PEAKS = ("absolute", "relative", "actual", "minus_actual", "expected", "minus_expected")


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums, counts and extremes over pairs finite on both sides; empty ones are the start of a sum."""

    added: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*SUMS, *COUNTS, *NONFINITE), 0.0))
    """SUMS (of values times ``scale``, squares of that), COUNTS and NONFINITE."""
    peaks: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PEAKS, -math.inf))
    """The largest of each of PEAKS; ``minus_`` is of the negated values."""
    worst: list[tuple[float, int]] = field(default_factory=list)
    """The largest absolute errors with their flat index, largest first, of equal ones the lowest index first."""
    first_nonfinite: list[int] = field(default_factory=list)
    """Flat index of the first non-finite actual value, if there is one."""
    scale: float = 1.0
    """The power of two that values are multiplied with before they are squared and added."""

    def least_worst(self) -> float:
        """Return the error that another must exceed to be among the worst."""
        return self.worst[-1][0] if len(self.worst) == WORST else -1.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a pass found for one bracket [low, high]."""

    below: int
    """Number of errors below the bracket."""
    inside: int
    """Number of errors in it, its ends included."""
    pick: Callable[[int], float] | None
    """Return the error of a rank among those inside; None when they were too many to be kept."""


Bracket = tuple[float, float]
Select = Callable[[Sequence[Bracket]], list[Found]]
ALL: Bracket = (0.0, math.inf)
NOTHING: Bracket = (math.inf, 0.0)
Measured = tuple[Totals, list[float]]


def ranks(added: Mapping[str, float]) -> list[int]:
    """Return the 0-based rank of each of QUANTILES; -1 where there is no error to rank."""
    counts = {"absolute": int(added["compared"]), "relative": int(added["compared"] - added["undefined"])}
    return [
        numerator * (counts[kind] - 1) // divisor if counts[kind] else -1 for kind, _, numerator, divisor in QUANTILES
    ]


def brackets_from_sample(absolute: Array, relative: Array) -> list[Bracket]:
    """Return a narrow bracket for each of QUANTILES from the errors of a random sample.

    It spans 4.5 standard deviations of the sample's rank on both sides and leaves out its own ends: a value that many
    errors share then stands alone at an end, where counting settles it.
    """
    brackets = []
    for kind, _, numerator, divisor in QUANTILES:
        errors = absolute if kind == "absolute" else relative
        share = numerator / divisor
        centre, margin = share * len(errors), 4.5 * math.sqrt(share * (1 - share) * len(errors)) + 2
        first, last = math.floor(centre - margin), math.ceil(centre + margin)
        places = [place for place in (first, last) if 0 <= place < len(errors)]
        ordered = np.partition(errors, places) if places else errors
        low = float(ordered[first]) if first >= 0 else 0.0
        high = float(ordered[last]) if last < len(errors) else math.inf
        inner = (math.nextafter(low, math.inf) if first >= 0 else 0.0, math.nextafter(high, 0.0))
        brackets.append(inner if inner[0] <= inner[1] else (low, high))
    return brackets


def order_statistics(
    wanted: Sequence[int], brackets: Sequence[Bracket], found: list[Found], select: Select
) -> list[float]:
    """Return the error of each wanted rank, with more passes of ``select`` where a bracket missed."""
    answers = [math.nan if rank < 0 else None for rank in wanted]
    tried, known = list(brackets), [ALL] * len(wanted)
    for _ in range(MOST_PASSES):
        for i, rank in enumerate(wanted):
            if answers[i] is None:
                answers[i], tried[i], known[i] = _settle(rank, tried[i], known[i], found[i])
        done = [answer for answer in answers if answer is not None]
        if len(done) == len(answers):
            return done
        found = select([NOTHING if answer is not None else tried[i] for i, answer in enumerate(answers)])
    raise RuntimeError(f"no order statistic after {MOST_PASSES} passes: the tensors changed while they were compared")


def _settle(rank: int, tried: Bracket, known: Bracket, found: Found) -> tuple[float | None, Bracket, Bracket]:
    """Return the answer if it is found, the bracket to try next, and the range that certainly holds the answer."""
    low, high = tried
    if rank < found.below:
        end = math.nextafter(low, 0.0)
        below = (known[0], end)
        return None, (end, end) if known == ALL else _halved(below), below
    if rank >= found.below + found.inside:
        end = math.nextafter(high, math.inf)
        above = (end, known[1])
        return None, (end, end) if known == ALL else _halved(above), above
    if low == high:
        return low, tried, tried
    if found.pick is not None:
        return found.pick(rank - found.below), tried, tried
    return None, _halved(tried), tried


def _halved(bracket: Bracket) -> Bracket:
    """Return the lower half of a bracket, by bit patterns: those of floats >= 0 are ordered as the floats are."""
    first, last = (int(np.float64(end).view(np.int64)) for end in bracket)
    return bracket[0], float(np.int64(first + (last - first) // 2).view(np.float64))


def blocks(shape: Sequence[int], size: int) -> list[tuple[int, Index]]:
    """Cut a shape into runs of at most ``size`` elements, consecutive in row-major order: (flat start, index)."""
    split = next(k for k in range(len(shape)) if math.prod(shape[k + 1 :]) <= size)
    inner = math.prod(shape[split + 1 :])
    rows = size // inner
    parts: list[tuple[int, Index]] = []
    for number, outer in enumerate(np.ndindex(*shape[:split])):
        base = number * shape[split] * inner
        starts = range(0, shape[split], rows)
        parts.extend((base + start * inner, (*outer, slice(start, start + rows))) for start in starts)
    return parts


def elements_at(tensor: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Return the elements at flat row-major indices, whatever the strides, without a copy of the tensor."""
    if not tensor.is_contiguous():
        return tensor[torch.unravel_index(flat, tensor.shape)]
    # index_select takes a third of the time of an index on a CPU
    return tensor.view(-1)[flat] if tensor.is_cuda else tensor.view(-1).index_select(0, flat)


def merged(parts: Sequence[Totals]) -> Totals:
    """Return the totals of several parts, given in the order of the data."""
    if len(parts) == 1:
        return parts[0]
    worst = sorted((pair for part in parts for pair in part.worst), key=lambda pair: (-pair[0], pair[1]))
    return Totals(
        added={name: math.fsum(part.added[name] for part in parts) for name in parts[0].added},
        peaks={name: max(part.peaks[name] for part in parts) for name in parts[0].peaks},
        worst=worst[:WORST],
        first_nonfinite=[flat for part in parts for flat in part.first_nonfinite][:1],
        scale=parts[0].scale,
    )
