"""The passes of ``compare`` on the CPU, with NumPy; the chunks of tensors on a GPU without Triton travel to it.

Inputs are widened to float64 chunk by chunk, so no copy of a whole tensor is ever made. Integers beyond 2^53 are
rounded by that; :func:`bitwise_equal` does not round. Figures other than counts are over pairs finite on both sides.

Order statistics are exact and need no sorted copy: of few errors they are picked directly; of many a sample gives a
narrow bracket for each, one pass counts the errors below the bracket and keeps those inside it, and the answer is
picked from what was kept. A bracket that missed is replaced by halving the range that certainly holds the answer, in
the order of float64 bit patterns, so a search ends after MOST_PASSES passes whatever the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.compare.totals import (
    PEAKS,
    QUANTILES,
    WORST,
    Bracket,
    Found,
    Measured,
    Totals,
    blocks,
    brackets_from_sample,
    elements_at,
    merged,
    order_statistics,
    ranks,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.compare.totals import Array, Index


CHUNK = 131072  # elements; with shorter steps the two workers wait for each other's GIL (65536: 18 % slower)
SERIAL = 8192  # elements below which PyTorch and BLAS start no threads of their own beside the workers
RUN = 1024  # elements that einsum adds up: it rounds after each step, so few
SORT_LIMIT = 2**15  # elements; up to here the answers are picked from all errors
PICK_LIMIT = 2**14  # kept errors of a bracket; of more a sample narrows it first
STRETCHES = 64  # of a chunk, whose largest errors say what may be among the worst
MAX_WORKERS = 8  # beyond this the workers wait for each other's Python code
ROWS = ("absolute", "relative", "actual", "expected", "signed")  # of a worker's buffers


def measure(actual: torch.Tensor, expected: torch.Tensor) -> Measured:
    """Return the totals and the four order statistics of two tensors of one shape, in the order of QUANTILES."""
    if actual.is_contiguous() and expected.is_contiguous():
        actual, expected = actual.view(-1), expected.view(-1)
    actual, expected = (tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in (actual, expected))
    elements = actual.numel()
    totals = Totals(scale=_scale(actual, expected))
    if elements <= min(SORT_LIMIT, CHUNK):
        return _whole(actual, expected, totals)
    brackets, capacity = _sample_brackets(actual, expected), elements // 8
    totals, found = _sweep(actual, expected, brackets, capacity, totals)
    answers = order_statistics(
        ranks(totals.added), brackets, found, lambda tries: _sweep(actual, expected, tries, capacity, None)[1]
    )
    return totals, answers


def _whole(actual: torch.Tensor, expected: torch.Tensor, totals: Totals) -> Measured:
    """Return totals and order statistics of tensors that are one chunk."""
    buffers = np.empty((len(ROWS), actual.numel()))
    with np.errstate(all="ignore"):
        errors = dict(zip(("absolute", "relative"), _add_chunk(totals, buffers, actual, expected, 0), strict=True))
    wanted = [(kind, rank) for (kind, *_), rank in zip(QUANTILES, ranks(totals.added), strict=True)]
    for kind, values in errors.items():
        if places := [rank for of, rank in wanted if of == kind and rank >= 0]:
            values.partition(places)
    return totals, [float(errors[kind][rank]) if rank >= 0 else math.nan for kind, rank in wanted]


def _sample_brackets(actual: torch.Tensor, expected: torch.Tensor) -> list[Bracket]:
    """Return brackets from a sample with one random place in each of equal stretches.

    Equal spacing would meet the data's own period.
    """
    elements = actual.numel()
    size = round(2 * elements ** (2 / 3))  # its own cost then grows as that of the errors that its brackets keep
    places = (np.arange(size) + np.random.default_rng(0).random(size)) * (elements / size)
    flat = torch.from_numpy(np.minimum(places.astype(np.int64), elements - 1))
    values = np.stack([_floats(elements_at(tensor, flat.to(tensor.device))) for tensor in (actual, expected)])
    values = values[:, np.isfinite(values).all(axis=0)]
    rows = np.empty((len(ROWS), values.shape[1]))
    rows[2:4] = values
    with np.errstate(all="ignore"):
        defined, _ = _errors(rows)
    return brackets_from_sample(rows[0], defined)


def _floats(piece: torch.Tensor, out: Array | None = None) -> Array:
    """Return a piece as a flat float64 array, in ``out`` where one is given."""
    array = np.empty(piece.numel()) if out is None else out[: piece.numel()]
    if piece.device.type == "cpu" and piece.dtype in (torch.float32, torch.float16, torch.float64):
        np.copyto(array.reshape(piece.shape), piece.numpy())
        return array
    target = torch.from_numpy(array).view(piece.shape)
    if piece.dim() == 1 and piece.device.type == "cpu":
        for first in range(0, piece.numel(), 4 * SERIAL):
            target[first : first + 4 * SERIAL].copy_(piece[first : first + 4 * SERIAL])
    else:
        target.copy_(piece)
    return array


def _dots(a: Array, b: Array) -> Array:
    """Return the dot product of each row of a and b, in pieces short enough for BLAS to stay in this thread."""
    rows, size = a.shape
    whole = size - size % SERIAL
    dots: Array = np.matmul(a[:, None, whole:], b[:, whole:, None])[:, 0, 0]
    if whole:
        parts = np.matmul(a[:, :whole].reshape(rows, -1, 1, SERIAL), b[:, :whole].reshape(rows, -1, SERIAL, 1))
        dots += parts.sum(axis=(1, 2, 3))
    return dots


def _row_sums(rows: Array) -> Array:
    """Return the sum of each row, pairwise beyond RUN elements; einsum adds up a run faster than NumPy's own sum."""
    whole = rows.shape[1] - rows.shape[1] % RUN
    sums: Array = rows[:, whole:].sum(axis=1)
    if whole:
        sums += np.einsum("rij->ri", rows[:, :whole].reshape(len(rows), -1, RUN)).sum(axis=1)
    return sums


def _scale(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the power of two that keeps squares in range; only float64 values can leave it."""
    if torch.float64 not in (actual.dtype, expected.dtype):
        return 1.0
    buffers, largest = np.empty((2, CHUNK)), 0.0
    for _, index in blocks(actual.shape, CHUNK):
        a, e = (np.abs(_floats(t[index], row)) for t, row in zip((actual, expected), buffers, strict=True))
        finite = np.isfinite(a) & np.isfinite(e)
        largest = max(largest, float(np.maximum(a, e).max(initial=0.0, where=finite)))
    exponent = math.frexp(largest)[1]
    return 1.0 if -60 < exponent < 400 else math.ldexp(1.0, min(-exponent, 1000))


def _errors(rows: Array) -> tuple[Array, Array]:
    """Compute the other ROWS from a and e; return the defined relative errors and the sum of every row.

    An undefined relative error is 0 in its row. Relative errors are right only where all values are finite.
    """
    absolute, relative, a, e, signed = rows
    np.subtract(a, e, out=signed)
    np.abs(signed, out=absolute)
    np.divide(signed, e, out=relative)
    np.abs(relative, out=relative)
    defined, sums = relative, _row_sums(rows)
    if not math.isfinite(sums[1]):
        zero = e == 0
        relative[zero] = 0.0
        defined = relative[~(zero & (signed != 0))]
        sums[1] = relative.sum()
    return defined, sums


def _sweep(
    actual: torch.Tensor, expected: torch.Tensor, brackets: Sequence[Bracket], capacity: int, totals: Totals | None
) -> tuple[Totals, list[Found]]:
    """Pass once over the data, with as many threads as PyTorch uses; NumPy and PyTorch release the GIL in each step."""
    parts = blocks(actual.shape, CHUNK)
    workers = max(1, min(torch.get_num_threads(), MAX_WORKERS, len(parts)))
    shares = [parts[i * len(parts) // workers : (i + 1) * len(parts) // workers] for i in range(workers)]

    def work(share: Sequence[tuple[int, Index]]) -> tuple[Totals, list[_Kept]]:
        own = None if totals is None else Totals(scale=totals.scale)
        return _sweep_share(actual, expected, share, [_Kept(bracket, capacity) for bracket in brackets], own)

    if workers == 1:
        results = [work(parts)]
    else:
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(work, shares))
    kept = [_found([share[i] for _, share in results], capacity) for i in range(len(brackets))]
    return merged([share for share, _ in results]), kept


def _sweep_share(
    actual: torch.Tensor,
    expected: torch.Tensor,
    share: Sequence[tuple[int, Index]],
    kept: list[_Kept],
    totals: Totals | None,
) -> tuple[Totals, list[_Kept]]:
    size = min(CHUNK, actual.numel())
    buffers, masks = np.empty((len(ROWS), size)), np.empty((2, size), dtype=bool)
    with np.errstate(all="ignore"):
        for start, index in share:
            absolute, defined = _add_chunk(totals, buffers, actual[index], expected[index], start)
            for bracket, (kind, *_) in zip(kept, QUANTILES, strict=True):
                bracket.add(absolute if kind == "absolute" else defined, masks)
    return totals or Totals(), kept


def _add_chunk(
    totals: Totals | None, buffers: Array, actual: torch.Tensor, expected: torch.Tensor, start: int
) -> tuple[Array, Array]:
    """Add a chunk to totals, where there are some; return its absolute and its defined relative errors."""
    rows = buffers[:, : actual.numel()]
    a, e = _floats(actual, rows[2]), _floats(expected, rows[3])
    defined, sums = _errors(rows)
    positions = None
    if not math.isfinite(sums[0]):
        if totals is not None:
            _count_nonfinite(totals, a, e, start)
        positions = np.flatnonzero(np.isfinite(a) & np.isfinite(e))
        finite = rows[2:4, positions]
        rows = buffers[:, : positions.size]
        rows[2:4] = finite
        defined, sums = _errors(rows)
    if totals is not None and rows.size:
        largest = _add(totals, rows, sums, defined.size)
        if largest > totals.least_worst():
            _keep_worst(totals, rows[0], start, positions)
    return rows[0], defined


def _count_nonfinite(totals: Totals, a: Array, e: Array, start: int) -> None:
    added, bad, mine = totals.added, ~(np.isfinite(a) & np.isfinite(e)), np.flatnonzero(~np.isfinite(a))
    added["nan_actual"] += int(np.isnan(a).sum())
    added["nan_expected"] += int(np.isnan(e).sum())
    added["nonfinite_actual"] += mine.size
    added["nonfinite_expected"] += int((~np.isfinite(e)).sum())
    added["mismatched_nonfinite"] += int((bad & (a != e)).sum())
    if mine.size and not totals.first_nonfinite:
        totals.first_nonfinite.append(start + int(mine[0]))


def _add(totals: Totals, rows: Array, sums: Array, defined: int) -> float:
    """Add a chunk and return its largest error.

    One call is for several rows, since after each call the workers wait for each other.
    """
    added, peaks, size = totals.added, totals.peaks, rows.shape[1]
    largest: list[float] = rows[:4].max(axis=1).tolist()
    least = rows[2:4].min(axis=1).tolist()
    chunk = (largest[0], largest[1] if defined else -math.inf, largest[2], -least[0], largest[3], -least[1])
    for name, value in zip(PEAKS, chunk, strict=True):
        peaks[name] = max(peaks[name], value)
    if totals.scale != 1.0:
        scaled = rows * totals.scale
        np.subtract(scaled[2], scaled[3], out=scaled[4])
        np.abs(scaled[4], out=scaled[0])
        relative_sum, rows = sums[1], scaled
        sums = scaled.sum(axis=1)
        sums[1] = relative_sum
    for name, value in zip(ROWS, sums.tolist(), strict=True):
        added[name] += value
    squares = _dots(rows[2:], rows[2:])
    for name, value in zip(("actual_squared", "expected_squared", "squared"), squares.tolist(), strict=True):
        added[name] += value
    added["product"] += float(_dots(rows[2:3], rows[3:4])[0])
    added["compared"] += size
    added["undefined"] += size - defined
    return largest[0]


def _keep_worst(totals: Totals, absolute: Array, start: int, positions: NDArray[np.intp] | None) -> None:
    """Update the list of the worst; chunks come in rising order, so an equal error later is not worse."""
    bar = totals.least_worst()
    if stretch := absolute.size // STRETCHES:
        largest = absolute[: stretch * STRETCHES].reshape(STRETCHES, stretch).max(axis=1)
        bar = max(bar, math.nextafter(float(np.sort(largest)[-WORST]), -math.inf))
    candidates = np.flatnonzero(absolute > bar)
    if candidates.size > WORST:
        errors = absolute[candidates]
        bar = np.partition(errors, errors.size - WORST)[errors.size - WORST]
        candidates = np.concatenate([candidates[errors > bar], candidates[errors == bar][:WORST]])
    flat = candidates if positions is None else positions[candidates]
    new = zip(absolute[candidates].tolist(), (flat + start).tolist(), strict=True)
    totals.worst[:] = sorted([*totals.worst, *new], key=lambda pair: (-pair[0], pair[1]))[:WORST]


class _Kept:
    """The errors inside one bracket, until they are more than the capacity."""

    def __init__(self, bracket: Bracket, capacity: int) -> None:
        self.bracket, self.capacity = bracket, capacity
        self.below = self.inside = 0
        self.values: list[Array] = []

    def add(self, errors: Array, masks: NDArray[np.bool_]) -> None:
        """Count and keep the errors of one chunk; the masks are scratch space, as fresh arrays cost page faults."""
        low, high = self.bracket
        reached, inside = masks[:, : errors.size]
        np.greater_equal(errors, low, out=reached)
        np.less_equal(errors, high, out=inside)
        self.below += errors.size - int(np.count_nonzero(reached))
        np.logical_and(reached, inside, out=inside)
        if low == high or self.inside > self.capacity:
            self.inside += int(np.count_nonzero(inside))
            self.values.clear()
        else:
            self.values.append(errors[inside])
            self.inside += self.values[-1].size


def _pick(errors: Array, rank: int) -> float:
    """Return the error of a rank; of many errors a sample tells which few the answer is among."""
    if errors.size > PICK_LIMIT:
        sample = np.sort(errors[:: errors.size // (PICK_LIMIT // 8)])
        place, margin = rank * sample.size // errors.size, sample.size // 16
        low, high = sample[max(place - margin, 0)], sample[min(place + margin, sample.size - 1)]
        below = int(np.count_nonzero(errors < low))
        among = errors[(errors >= low) & (errors <= high)]
        if below <= rank < below + among.size:
            errors, rank = among, rank - below
    return float(np.partition(errors, rank)[rank])


def _found(kept: Sequence[_Kept], capacity: int) -> Found:
    inside = sum(part.inside for part in kept)
    arrays = [array for part in kept for array in part.values]
    pick = None if inside > capacity else lambda rank: _pick(np.concatenate(arrays), rank)
    return Found(below=sum(part.below for part in kept), inside=inside, pick=pick)
