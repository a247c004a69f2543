"""Sums over the parts of an output: its octaves of |reference|, and every slice along every axis.

Two passes, chunk by chunk in float64, on the device of the tensors; no copy of a whole tensor is made. The first adds
up by octave. What it says an element of each octave may lose is given to the second, which adds up by slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.compare.totals import blocks

if TYPE_CHECKING:
    from harness.compare.totals import Array, Index


CHUNK = {"cpu": 2**16, "cuda": 2**23}
"""Elements handled at a time: on a CPU so few that the rows of a chunk stay in its cache."""
OCTAVES = 2048
"""Exponents of float64; the first stands for exact zeros."""
BIAS = 1023
MOST_SLICES = 2**20
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


def measure_octaves(actual: torch.Tensor, expected: torch.Tensor, floor: torch.Tensor) -> Octaves:
    """Return the sums by octave of three tensors of one shape, over elements that are finite in all three."""
    scale = _scale(expected)
    table = torch.zeros(5, OCTAVES, dtype=torch.float64, device=expected.device)
    peaks = torch.zeros(2, OCTAVES, dtype=torch.float64, device=expected.device)
    signed = torch.zeros(2, dtype=torch.float64, device=expected.device)
    for _, (a, e, f), valid in _chunks(actual, expected, floor, scale):
        a, f = (a - e).square_(), (f - e).square_()
        signed += torch.stack([e.sum(), e.abs().sum()])
        octave = octave_of(e)
        weights = (
            valid.double() if valid is not None else None, a, f, f.square(), e.square(),
        )  # fmt: skip
        for row, weight in zip(table, weights, strict=True):
            row += torch.bincount(octave.view(-1), None if weight is None else weight.view(-1), OCTAVES)
        for row, error in zip(peaks, (f, a), strict=True):
            row.scatter_reduce_(0, octave.view(-1), error.view(-1), "amax")
    sums, largest = table.cpu().numpy(), peaks.cpu().numpy()
    found = np.flatnonzero(sums[0])
    count, engine, squared, fourth, reference = sums[:, found]
    total, sizes = signed.tolist()
    return Octaves(
        exponents=tuple(None if k == 0 else int(k) - BIAS for k in found),
        count=count, engine=engine, floor=squared, floor_fourth=fourth, reference=reference,
        floor_largest=largest[0, found], engine_largest=largest[1, found], scale=scale,
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
    shape, elements = tuple(expected.shape), expected.numel()
    axes = [k for k, size in enumerate(shape) if 1 < size <= min(elements // 2, MOST_SLICES)]
    if not axes:
        return []
    device = expected.device
    table = torch.zeros(3, OCTAVES, dtype=torch.float64, device=device)
    places = [0 if k is None else k + BIAS for k in octaves.exponents]
    table[:, places] = torch.from_numpy(np.stack([fair, size, spread**2])).to(device)
    rows = len(SLICE_ROWS) + 1
    sums = {k: torch.zeros(rows, shape[k], dtype=torch.float64, device=device) for k in axes}
    for index, (a, e, f), valid in _chunks(actual, expected, floor, octaves.scale):
        octave = octave_of(e)
        w = table[0][octave]
        block = torch.empty(rows, *a.shape, dtype=torch.float64, device=device)
        a, f = a - e, f - e
        torch.mul(a, e, out=block[7])
        torch.mul(f, e, out=block[8])
        block[5], block[6] = a, f
        torch.mul(a, a, out=block[0])
        torch.mul(f, f, out=block[1])
        torch.mul(e, e, out=block[4])
        block[2] = w
        torch.mul(w, w, out=block[3])
        block[9] = table[1][octave]
        torch.mul(block[4], table[2][octave], out=block[10])
        block[11] = 1.0
        if valid is not None:
            block *= valid
        _add_block(sums, block, index)
    return [
        Slices(axis=k, count=found[-1], sums=dict(zip(SLICE_ROWS, found, strict=False)))
        for k, found in ((k, total.cpu().numpy()) for k, total in sums.items())
    ]


def octave_of(values: torch.Tensor) -> torch.Tensor:
    """Return the biased exponents of float64 values: one bin an octave, zeros in bin 0."""
    return (values.view(torch.int64) >> 52) & (OCTAVES - 1)


def _scale(expected: torch.Tensor) -> float:
    """Return the power of two that keeps fourth powers in range; only float64 values can leave it."""
    if expected.dtype != torch.float64 or not expected.numel():
        return 1.0
    low, high = (float(end) for end in torch.aminmax(torch.nan_to_num(expected, 0.0, 0.0, 0.0)))
    exponent = math.frexp(max(abs(low), abs(high)))[1]
    return 1.0 if -150 < exponent < 150 else math.ldexp(1.0, -exponent)


def _chunks(
    actual: torch.Tensor, expected: torch.Tensor, floor: torch.Tensor, scale: float
) -> Iterator[tuple[Index, list[torch.Tensor], torch.Tensor | None]]:
    """Yield the place of each chunk, its three tensors in float64, and where they are finite (None: everywhere)."""
    tensors = [tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in (actual, expected, floor)]
    for _, index in blocks(tensors[1].shape, CHUNK[expected.device.type]):
        pieces = [tensor[index].to(expected.device, torch.float64) for tensor in tensors]
        pieces = [piece if piece.is_contiguous() else piece.contiguous() for piece in pieces]
        valid = None
        if not math.isfinite(sum(float(piece.sum()) for piece in pieces)):
            valid = torch.stack([piece.isfinite() for piece in pieces]).all(0)
            pieces = [torch.where(valid, piece, 0.0) for piece in pieces]
        yield index, [piece * scale for piece in pieces] if scale != 1.0 else pieces, valid


def _add_block(sums: dict[int, torch.Tensor], block: torch.Tensor, index: Index) -> None:
    """Add a block's rows to the slices they lie in: the last axis first, so that each step has less to read."""
    last = len(index) + block.dim() - 2 - 1
    # index = (*fixed leading positions, a run of the split axis); block = (rows, run, *inner axes)
    while block.dim() > 2:
        if last in sums:
            sums[last] += block.flatten(1, -2).sum(1)
        block = block.sum(-1)
        last -= 1
    *leading, run = index
    if last in sums:
        sums[last][:, run] += block
    total = block.sum(1)
    for axis, position in enumerate(leading):
        if axis in sums:
            sums[axis][:, position] += total


def named(exponent: int | None) -> Sequence[float]:
    """Return both ends of an octave; nothing for zeros."""
    return () if exponent is None else (math.ldexp(1.0, exponent), math.ldexp(1.0, exponent + 1))
