"""Pools over windows, over regions of interest and over everything."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from harness.operators.registry import operator
from harness.operators.values import wide
from harness.operators.windows import Windows, padded, spatial, views, windows

_MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


@operator("MaxPool")
def max_pool(
    x: torch.Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    outputs: int = 1,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Indices count through the whole input; within an image by rows, or by columns if ``storage_order`` is 1."""
    rank = spatial(x.ndim)
    where = windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=bool(ceil_mode),
    )
    # FP32 holds the 8-bit integers, and has the infinity that padding must be.
    values = x if x.is_floating_point() else x.float()
    enlarged = padded(values, where.before, where.overhang, -math.inf)
    settings = (where.kernel, where.strides, 0, where.dilations)
    if outputs == 1:
        result: torch.Tensor = _MAX_POOL[rank - 1](enlarged, *settings)
        return result.to(x.dtype)
    pooled, index = _MAX_POOL[rank - 1](enlarged, *settings, return_indices=True)
    coordinates = torch.unravel_index(index, enlarged.shape[2:])
    flat = torch.zeros_like(index)
    axes = range(rank) if storage_order == 0 else reversed(range(rank))
    for axis in axes:
        flat = flat * x.shape[2 + axis] + coordinates[axis] - where.before[axis]
    image = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * rank)
    return pooled.to(x.dtype), flat + image * math.prod(x.shape[2:])


@operator("MaxUnpool", since=9)
def max_unpool(
    x: torch.Tensor,
    indices: torch.Tensor,
    output_shape: torch.Tensor | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """Indices count through the output that the attributes make; a larger ``output_shape`` holds it in its corner."""
    rank = spatial(x.ndim)
    begins_ends = list(pads or [0] * 2 * rank)
    size = [
        (n - 1) * s + k - begins_ends[axis] - begins_ends[axis + rank]
        for axis, (n, s, k) in enumerate(zip(x.shape[2:], strides or [1] * rank, kernel_shape, strict=True))
    ]
    y = x.new_zeros(x.shape[0] * x.shape[1] * math.prod(size))
    y[indices.reshape(-1)] = x.reshape(-1)
    y = y.reshape(*x.shape[:2], *size)
    if output_shape is None:
        return y
    asked = output_shape.tolist()[2:]
    return padded(y, [0] * rank, [a - s for a, s in zip(asked, size, strict=True)])


@operator("AveragePool")
def average_pool(
    x: torch.Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """Padding counts if it was asked for; what ``ceil_mode`` adds past it never does."""
    rank = spatial(x.ndim)
    where = windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=bool(ceil_mode),
    )
    axes = tuple(range(-rank, 0))
    total = views(wide(x), where).sum(axes)
    return (total / _counts(x, where, bool(count_include_pad))).to(x.dtype)


def _counts(x: torch.Tensor, where: Windows, with_padding: bool) -> torch.Tensor:
    """Return how many elements of each window count."""
    total = torch.ones((), device=x.device, dtype=wide(x.new_empty(0)).dtype)
    for axis, (n, k, s, d, before, after, count) in enumerate(
        zip(
            x.shape[2:],
            where.kernel,
            where.strides,
            where.dilations,
            where.before,
            where.after,
            where.sizes,
            strict=True,
        )
    ):
        place = torch.arange(count, device=x.device)[:, None] * s + torch.arange(k, device=x.device) * d - before
        inside = (place < n + after) if with_padding else (place >= 0) & (place < n)
        total = total * inside.sum(1).reshape(-1, *[1] * (x.ndim - 3 - axis))
    return total


@operator("LpPool")
def lp_pool(
    x: torch.Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    p: float = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    rank = spatial(x.ndim)
    where = windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=bool(ceil_mode),
    )
    axes = tuple(range(-rank, 0))
    return views(wide(x).abs() ** p, where).sum(axes).pow(1 / p).to(x.dtype)


@operator("GlobalAveragePool")
def global_average_pool(x: torch.Tensor) -> torch.Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(x: torch.Tensor) -> torch.Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(x: torch.Tensor, *, p: float = 2) -> torch.Tensor:
    return (wide(x).abs() ** p).sum(tuple(range(2, x.ndim)), keepdim=True).pow(1 / p).to(x.dtype)
