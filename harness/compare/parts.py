"""Sums over the parts of an output: its octaves of |reference|, and every slice along every axis.

Two passes, chunk by chunk in float64, on the device of the tensors; no copy of a whole tensor is made. The first adds
up by octave. What it says an element of each octave may lose is given to the second, which adds up by slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from harness.compare.totals import blocks

if TYPE_CHECKING:
    from harness.compare.totals import Array, Index


CHUNK = {"cpu": 32000, "cuda": 2**23}
"""Elements handled at a time: on a CPU so few that PyTorch starts no threads of its own beside the workers."""
MOST_WORKERS = 8
SEED = 4096
"""Elements of a chunk that the largest errors are first taken from."""
OCTAVES = 2048
"""Exponents of float64; the first stands for exact zeros."""
BIAS = 1023
MOST_SLICES = 2**18
"""Longer axes have too few elements a slice to say more than their octaves do, and their sums would be large."""
SLICE_ROWS = (
    "engine", "floor", "fair", "fair_squared", "reference",
    "engine_signed", "floor_signed", "engine_product", "floor_product", "size", "own_size",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Octaves:
    """Sums by octave of |reference|, of those that hold an element, smallest first; zeros are ``exponent`` None."""

    exponents: tuple[int | None, ...]
    """Octave k holds 2^k <= |reference| < 2^(k+1)."""
    count: Array
    engine: Array
    """Squared errors of the engine."""
    floor: Array
    """Squared errors of the floor."""
    floor_fourth: Array
    """Fourth powers of the errors of the floor."""
    floor_largest: Array
    """Largest squared error of the floor."""
    engine_largest: Array
    """Largest squared error of the engine."""
    reference: Array
    """Squared values of the reference."""
    total: float
    """Sum of the reference."""
    positive: bool
    """Whether no value of the reference is below zero."""
    scale: float
    """The power of two that all values were multiplied with."""


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Sums of every slice along one axis."""

    axis: int
    count: Array
    """Elements that are finite on all sides."""
    sums: dict[str, Array]
    """By SLICE_ROWS: squared errors, what the octaves of the elements are given (``fair``, ``size``), the squared
    reference, signed errors, and the products of errors with the reference."""


_State = TypeVar("_State")
_OctaveSums = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
_Pieces = Sequence[torch.Tensor]


def measure_octaves(actual: torch.Tensor, expected: torch.Tensor, floor: torch.Tensor) -> Octaves:
    """Return the sums by octave of three tensors of one shape, over elements that are finite in all three."""
    scale, device = _scale(expected), expected.device

    def start() -> _OctaveSums:
        table, peaks, signed = (
            torch.zeros(n, dtype=torch.float64, device=device) for n in (5 * OCTAVES, 2 * OCTAVES, 2)
        )
        return table.view(5, -1), peaks.view(2, -1), signed

    def add(state: _OctaveSums, _: Index, pieces: _Pieces, valid: torch.Tensor | None) -> None:
        table, peaks, signed = state
        a, e, f = (piece.view(-1) for piece in pieces)
        octave = octave_of(e)
        a, f = (a - e).square_(), (f - e).square_()
        signed += torch.stack([e.sum(), e.abs().sum()])
        weights = (None if valid is None else valid.view(-1).double(), a, f, f.square(), e.square())
        for row, weight in zip(table, weights, strict=True):
            row += torch.bincount(octave, weight, OCTAVES)
        for row, error in zip(peaks, (f, a), strict=True):
            for first, rest in ((octave[:SEED], error[:SEED]), (octave[SEED:], error[SEED:])):
                larger = rest > row[first]  # few of the rest are, and only they must wait for each other
                row.scatter_reduce_(0, first[larger], rest[larger], "amax")

    states = _sweep((actual, expected, floor), scale, start, add)
    sums = torch.stack([state[0] for state in states]).sum(0)
    largest = torch.stack([state[1] for state in states]).amax(0)
    total, sizes = torch.stack([state[2] for state in states]).sum(0).tolist()
    table, peaks = sums.cpu().numpy(), largest.cpu().numpy()
    found = np.flatnonzero(table[0])
    count, engine, squared, fourth, reference = table[:, found]
    return Octaves(
        exponents=tuple(None if k == 0 else int(k) - BIAS for k in found),
        count=count, engine=engine, floor=squared, floor_fourth=fourth, reference=reference,
        floor_largest=peaks[0, found], engine_largest=peaks[1, found], scale=scale,
        total=total / scale, positive=total == sizes,
    )  # fmt: skip


def measure_slices(
    actual: torch.Tensor,
    expected: torch.Tensor,
    floor: torch.Tensor,
    octaves: Octaves,
    fair: Array,
    size: Array,
    spread: Array,
) -> list[Slices]:
    """Return the sums of the slices along every axis whose slices hold at least two elements and are not too many.

    ``fair`` is what an element of each octave may lose, squared, ``size`` the square of what it was computed from, and
    ``spread`` what an element is multiplied with before its square is added to ``own_size``.
    """
    shape, elements, device = tuple(expected.shape), expected.numel(), expected.device
    axes = [k for k, size in enumerate(shape) if 1 < size <= min(elements // 2, MOST_SLICES)]
    if not axes:
        return []
    table = torch.zeros(3, OCTAVES, dtype=torch.float64, device=device)
    places = [0 if k is None else k + BIAS for k in octaves.exponents]
    table[:, places] = torch.from_numpy(np.stack([fair, size, spread**2])).to(device)
    rows = len(SLICE_ROWS) + 1

    def start() -> dict[int, torch.Tensor]:
        return {k: torch.zeros(rows, shape[k], dtype=torch.float64, device=device) for k in axes}

    def add(sums: dict[int, torch.Tensor], index: Index, pieces: _Pieces, valid: torch.Tensor | None) -> None:
        a, e, f = pieces
        block = torch.empty(rows, *e.shape, dtype=torch.float64, device=device)
        octave = octave_of(e)
        torch.sub(a, e, out=block[5])
        torch.sub(f, e, out=block[6])
        torch.mul(block[5], block[5], out=block[0])
        torch.mul(block[6], block[6], out=block[1])
        block[2] = table[0][octave]
        torch.mul(block[2], block[2], out=block[3])
        torch.mul(e, e, out=block[4])
        torch.mul(block[5], e, out=block[7])
        torch.mul(block[6], e, out=block[8])
        block[9] = table[1][octave]
        torch.mul(block[4], table[2][octave], out=block[10])
        block[11] = 1.0
        if valid is not None:
            for row in block:
                row *= valid
        _add_block(sums, block, index)

    states = _sweep((actual, expected, floor), octaves.scale, start, add)
    totals = {k: torch.stack([state[k] for state in states]).sum(0).cpu().numpy() for k in axes}
    return [
        Slices(axis=k, count=found[-1], sums=dict(zip(SLICE_ROWS, found, strict=False))) for k, found in totals.items()
    ]


def octave_of(values: torch.Tensor) -> torch.Tensor:
    """Return the biased exponents of float64 values: one bin an octave, zeros in bin 0."""
    return (values.view(torch.int64) >> 52) & (OCTAVES - 1)


def _scale(expected: torch.Tensor) -> float:
    """Return the power of two that keeps fourth powers in range; only float64 values can leave it."""
    if expected.dtype != torch.float64 or not expected.numel():
        return 1.0
    largest = 0.0
    for _, index in blocks(expected.shape or (1,), CHUNK[expected.device.type]):
        piece = expected.reshape(1)[index] if not expected.dim() else expected[index]
        largest = max(largest, float(torch.where(piece.isfinite(), piece, 0.0).abs().max()))
    exponent = math.frexp(largest)[1]
    return 1.0 if -150 < exponent < 150 else math.ldexp(1.0, min(-exponent, 1000))


def _sweep(
    tensors: tuple[torch.Tensor, ...],
    scale: float,
    start: Callable[[], _State],
    add: Callable[[_State, Index, _Pieces, torch.Tensor | None], None],
) -> list[_State]:
    """Pass once over the data in float64 and return what was added up, by worker: one on a GPU, else one a thread.

    ``add`` is given the place of a chunk, its tensors, and where all are finite (None: everywhere); others are 0.
    """
    tensors = tuple(tensor.detach().reshape(1) if tensor.dim() == 0 else tensor.detach() for tensor in tensors)
    device = tensors[1].device
    places = [index for _, index in blocks(tensors[1].shape, CHUNK[device.type])]

    def work(share: Sequence[Index]) -> _State:
        state = start()
        for index in share:
            pieces = [tensor[index].to(device, torch.float64).contiguous() for tensor in tensors]
            valid = None
            if not math.isfinite(sum(float(piece.sum()) for piece in pieces)):
                valid = torch.stack([piece.isfinite() for piece in pieces]).all(0)
                pieces = [torch.where(valid, piece, 0.0) for piece in pieces]
            add(state, index, pieces if scale == 1.0 else [piece * scale for piece in pieces], valid)
        return state

    workers = 1 if device.type == "cuda" else max(1, min(torch.get_num_threads(), MOST_WORKERS, len(places)))
    if workers == 1:
        return [work(places)]
    shares = [places[i * len(places) // workers : (i + 1) * len(places) // workers] for i in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, shares))


def _sum(block: torch.Tensor, dim: int) -> torch.Tensor:
    """Return a sum; NumPy's starts no threads of its own beside the workers."""
    if block.is_cuda:
        return block.sum(dim)
    return torch.from_numpy(np.asarray(block.numpy().sum(axis=dim)))


def _add_block(sums: dict[int, torch.Tensor], block: torch.Tensor, index: Index) -> None:
    """Add a block's rows to the slices they lie in: the last axis first, so that each step has less to read."""
    last = len(index) + block.dim() - 2 - 1
    # index = (*fixed leading positions, a run of the split axis); block = (rows, run, *inner axes)
    while block.dim() > 2:
        if last in sums:
            sums[last] += _sum(block.flatten(1, -2), 1)
        block = _sum(block, -1)
        last -= 1
    *leading, run = index
    if last in sums:
        sums[last][:, run] += block
    total = _sum(block, 1)
    for axis, position in enumerate(leading):
        if axis in sums:
            sums[axis][:, position] += total
