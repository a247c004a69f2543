"""Operators that cut a tensor into parts, or lay more around it."""

from __future__ import annotations

import torch

from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import Unsupported, moves


def sizes_of_parts(length: int, parts: int) -> list[int]:
    """Return the sizes of equal parts of an axis, the last one smaller (or empty) where it does not divide."""
    each = -(-length // parts)
    return [max(min(each, length - number * each), 0) for number in range(parts)]


@operator("Split")
def split_by_attribute(
    x: torch.Tensor, sizes: torch.Tensor | None = None, *, outputs: int, axis: int = 0, split: list[int] | None = None
) -> tuple[torch.Tensor, ...]:
    """Opset 1 takes the sizes as an input too."""
    if sizes is not None:
        split = sizes.tolist()
    return torch.split(x, split or sizes_of_parts(x.shape[axis], outputs), axis)


@operator("Split", since=13)
def split(
    x: torch.Tensor, sizes: torch.Tensor | None = None, *, outputs: int, axis: int = 0, num_outputs: int | None = None
) -> tuple[torch.Tensor, ...]:
    given = sizes_of_parts(x.shape[axis], num_outputs or outputs) if sizes is None else sizes.tolist()
    return torch.split(x, given, axis)


@operator("Slice")
def slice_by_attribute(
    x: torch.Tensor, *, starts: list[int], ends: list[int], axes: list[int] | None = None
) -> torch.Tensor:
    return _slice(x, starts, ends, axes or range(len(starts)), [1] * len(starts))


@operator("Slice", since=10)
@moves
def slice_(
    x: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    first = starts.tolist()
    along = range(len(first)) if axes is None else axes.tolist()
    return _slice(x, first, ends.tolist(), along, [1] * len(first) if steps is None else steps.tolist())


def _slice(
    x: torch.Tensor, starts: list[int], ends: list[int], axes: range | list[int], steps: list[int]
) -> torch.Tensor:
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step > 0:
            index: list[slice] = [slice(None)] * x.ndim
            index[axis] = slice(max(start, -size), min(end, size), step)  # INT64_MAX stands for the end
            x = x[tuple(index)]
        else:  # a start before the first element is the first, unlike Python's
            first = min(max(start + size if start < 0 else start, 0), size - 1)
            last = min(max(end + size if end < 0 else end, -1), size - 1)
            x = x.index_select(axis, torch.arange(first, min(first, last), step, device=x.device))
    return x


@operator("Pad")
def pad_1(x: torch.Tensor, *, paddings: list[int], mode: str = "constant", value: float = 0.0) -> torch.Tensor:
    return _pad(x, paddings, list(range(x.ndim)), mode, value)


@operator("Pad", since=2)
def pad_by_attribute(x: torch.Tensor, *, pads: list[int], mode: str = "constant", value: float = 0.0) -> torch.Tensor:
    return _pad(x, pads, list(range(x.ndim)), mode, value)


@operator("Pad", since=11)
@operator("Pad", domain=MICROSOFT)
@moves
def pad(
    x: torch.Tensor,
    pads: torch.Tensor,
    value: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
    *,
    mode: str = "constant",
) -> torch.Tensor:
    along = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    return _pad(x, pads.tolist(), along, mode, 0 if value is None else value.item())


def _pad(x: torch.Tensor, pads: list[int], axes: list[int], mode: str, value: float) -> torch.Tensor:
    before, after = pads[: len(axes)], pads[len(axes) :]
    if mode == "constant":
        around = [0] * 2 * x.ndim  # from the last axis to the first
        for axis, left, right in zip(axes, before, after, strict=True):
            place = 2 * (x.ndim - 1 - axis)
            around[place : place + 2] = [left, right]
        padded: torch.Tensor = torch.ops.aten.constant_pad_nd(x, around, value)
        return padded
    for axis, left, right in zip(axes, before, after, strict=True):
        x = x.index_select(axis, _places(x.shape[axis], left, right, mode).to(x.device))
    return x


def _places(length: int, left: int, right: int, mode: str) -> torch.Tensor:
    """Return where each element along a padded axis comes from; a negative pad cuts before the rest is laid around."""
    first, last = max(-left, 0), length - max(-right, 0)
    kept = last - first
    places = torch.arange(-max(left, 0), kept + max(right, 0))
    if len(places) and kept <= 0:
        raise Unsupported(f"nothing is left to pad by {mode}")
    if mode == "edge":
        places = places.clamp(0, kept - 1)
    elif mode == "wrap":
        places = places % kept
    elif mode == "reflect":
        period = max(2 * (kept - 1), 1)
        places = places % period
        places = torch.where(places < kept, places, period - places)
    else:
        raise Unsupported(f"padding by {mode!r}")
    return first + places
