"""Operators that read or write elements at places which are themselves values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from harness.operators.registry import operator
from harness.operators.values import Unsupported, moves, signed

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _wrapped(indices: torch.Tensor, length: int) -> torch.Tensor:
    """Return indices with those below 0 counted from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + length, indices)


@operator("Gather")
@moves
def gather(x: torch.Tensor, indices: torch.Tensor, *, axis: int = 0) -> torch.Tensor:
    axis %= x.ndim
    found = x.index_select(axis, _wrapped(indices, x.shape[axis]).reshape(-1))
    return found.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


@operator("GatherElements")
@moves
def gather_elements(x: torch.Tensor, indices: torch.Tensor, *, axis: int = 0) -> torch.Tensor:
    return x.gather(axis, _wrapped(indices, x.shape[axis]))


@operator("GatherND")
@moves
def gather_nd(x: torch.Tensor, indices: torch.Tensor, *, batch_dims: int = 0) -> torch.Tensor:
    depth = indices.shape[-1]
    batch, rest = x.shape[:batch_dims], x.shape[batch_dims + depth :]
    place = _row_major(indices.unbind(-1), x.shape[batch_dims : batch_dims + depth])
    flat = x.reshape(math.prod(batch), math.prod(x.shape[batch_dims : batch_dims + depth]), *rest)
    rows = torch.arange(flat.shape[0], device=x.device).unsqueeze(1)
    found = flat[rows, place.reshape(flat.shape[0], math.prod(place.shape[batch_dims:]))]
    return found.reshape([*indices.shape[:-1], *rest])


def _row_major(places: Sequence[torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """Return the number of each element in row-major order; places are given axis by axis, and broadcast."""
    number = torch.zeros((), dtype=torch.int64, device=places[0].device)
    for place, length in zip(places, shape, strict=True):
        number = number * length + _wrapped(place, length)
    return number


@operator("ScatterND")
@moves
def scatter_nd(
    x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, *, reduction: str = "none"
) -> torch.Tensor:
    depth = indices.shape[-1]
    count, rest = math.prod(x.shape[:depth]), math.prod(x.shape[depth:])
    place = _row_major(indices.unbind(-1), x.shape[:depth]).reshape(-1)
    written = _write(x.reshape(count, rest), place, updates.reshape(len(place), rest), reduction)
    return written.reshape(x.shape)


@operator("ScatterElements", "Scatter")
@moves
def scatter_elements(
    x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, *, axis: int = 0, reduction: str = "none"
) -> torch.Tensor:
    axis %= x.ndim
    places = [
        torch.arange(size, device=x.device).reshape(-1, *[1] * (x.ndim - 1 - number))
        for number, size in enumerate(indices.shape)
    ]
    places[axis] = indices
    place = _row_major(places, x.shape).reshape(-1)
    return _write(x.reshape(-1, 1), place, updates.reshape(-1, 1), reduction).reshape(x.shape)


def _write(rows: torch.Tensor, place: torch.Tensor, updates: torch.Tensor, reduction: str) -> torch.Tensor:
    """Return rows [count, size] with updates [n, size] written at their places [n]; of those for one the last stays."""
    if reduction == "add":
        return rows.index_put((place,), updates, accumulate=True)  # adds in one order, on a GPU too
    if reduction in _REDUCTIONS:
        return rows.scatter_reduce(0, place.unsqueeze(1).expand_as(updates), updates, _REDUCTIONS[reduction])
    if reduction != "none":
        raise Unsupported(f"reduction {reduction!r}")
    # All updates for a place become the last one, so that it does not matter which is written last.
    number = torch.arange(len(place), device=place.device)
    last = number.new_zeros(len(rows)).scatter_reduce(0, place, number, "amax")
    return rows.index_put((place,), updates[last[place]])


@operator("TensorScatter")
@moves
def tensor_scatter(
    cache: torch.Tensor,
    update: torch.Tensor,
    write_indices: torch.Tensor | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> torch.Tensor:
    axis %= cache.ndim
    start = torch.zeros(len(cache), device=cache.device) if write_indices is None else write_indices
    place = start.to(torch.int64).unsqueeze(1) + torch.arange(update.shape[axis], device=cache.device)
    if mode == "circular":
        place = place % cache.shape[axis]
    shape = [1] * cache.ndim
    shape[0], shape[axis] = place.shape
    return cache.scatter(axis, place.reshape(shape).expand(update.shape), update)


@operator("OneHot")
def one_hot(indices: torch.Tensor, depth: torch.Tensor, values: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    count = int(depth.item())
    numbers = torch.arange(count, device=indices.device)
    hot = _wrapped(signed(indices), count).unsqueeze(axis).movedim(axis, -1) == numbers
    return _choose(hot.movedim(-1, axis), values[1], values[0])


@moves
def _choose(condition: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(condition, a, b)


operator("Where")(_choose)


@operator("Compress")
@moves
def compress(x: torch.Tensor, condition: torch.Tensor, *, axis: int | None = None) -> torch.Tensor:
    x = x.reshape(-1) if axis is None else x
    return x.index_select(axis or 0, condition.nonzero().reshape(-1))


@operator("NonZero")
def non_zero(x: torch.Tensor) -> torch.Tensor:
    return signed(x).nonzero().T


@operator("ReverseSequence")
@moves
def reverse_sequence(
    x: torch.Tensor, lengths: torch.Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> torch.Tensor:
    time = torch.arange(x.shape[time_axis], device=x.device)
    end = lengths.unsqueeze(1)
    place = torch.where(time < end, end - 1 - time, time)  # [batch, time]
    place = place.T if time_axis < batch_axis else place
    place = place.reshape([*place.shape, *[1] * (x.ndim - 2)])
    return x.gather(time_axis, place.expand(x.shape))
