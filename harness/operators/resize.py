"""Resize and Upsample: one axis after the other, from coordinates and weights in FP32, or FP64 where the input is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from harness.errors import NoMemory
from harness.memory import available_bytes, size_words
from harness.operators.registry import operator
from harness.operators.values import Unsupported, wide

_NEAREST: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "round_prefer_floor": lambda at: (at - 0.5).ceil(),
    "round_prefer_ceil": lambda at: (at + 0.5).floor(),
    "floor": torch.floor,
    "ceil": torch.ceil,
    # Before opset 11 nothing is said; ONNX Runtime takes what follows where an axis shrinks.
    "before opset 11": torch.floor,
    "before opset 11, shrinking": torch.ceil,
}


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """One axis that is resized. ``scale`` is output over input, as it was given."""

    number: int
    size: int
    scale: float
    out: int
    roi: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class _Method:
    mode: str
    coordinates: str
    nearest: str
    antialias: bool = False
    exclude_outside: bool = False
    cubic_a: float = -0.75
    extrapolation: float = 0.0


@operator("Upsample")
def upsample_1(x: torch.Tensor, *, height_scale: float, width_scale: float, mode: str = "nearest") -> torch.Tensor:
    return upsample_7(x, scales=[1.0, 1.0, height_scale, width_scale], mode=mode)


@operator("Upsample", since=7)
def upsample_7(x: torch.Tensor, *, scales: Sequence[float], mode: str = "nearest") -> torch.Tensor:
    return _resized(x, _by_scales(x, scales, range(x.ndim)), _old(mode))


@operator("Upsample", since=9)
@operator("Resize", since=10)
def resize_10(x: torch.Tensor, scales: torch.Tensor, *, mode: str = "nearest") -> torch.Tensor:
    return upsample_7(x, scales=scales.tolist(), mode=mode)


@operator("Resize", since=11)
def resize(
    x: torch.Tensor,
    roi: torch.Tensor | None = None,
    scales: torch.Tensor | None = None,
    sizes: torch.Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> torch.Tensor:
    """An empty ``scales`` stands for an absent one, as opset 11 has it."""
    chosen = [axis % x.ndim for axis in axes] if axes is not None else list(range(x.ndim))
    bounds = roi.tolist() if roi is not None and roi.numel() else [0.0] * len(chosen) + [1.0] * len(chosen)
    if scales is not None and scales.numel():
        found = _by_scales(x, scales.tolist(), chosen, bounds)
    elif sizes is not None:
        found = _by_sizes(x, sizes.tolist(), chosen, bounds, keep_aspect_ratio_policy)
    else:
        raise Unsupported("Resize without scales and sizes")
    method = _Method(
        mode=mode,
        coordinates=coordinate_transformation_mode,
        nearest=nearest_mode,
        antialias=bool(antialias),
        exclude_outside=bool(exclude_outside),
        cubic_a=cubic_coeff_a,
        extrapolation=extrapolation_value,
    )
    return _resized(x, found, method)


def _old(mode: str) -> _Method:
    return _Method(mode=mode, coordinates="asymmetric", nearest="before opset 11")


def _by_scales(
    x: torch.Tensor, scales: Sequence[float], axes: Sequence[int], roi: Sequence[float] | None = None
) -> list[_Axis]:
    bounds = roi or [0.0] * len(axes) + [1.0] * len(axes)
    return [
        _Axis(
            number=axis,
            size=x.shape[axis],
            scale=scale,
            out=_scaled(x.shape[axis], scale),
            roi=(bounds[at], bounds[at + len(axes)]),
        )
        for at, (axis, scale) in enumerate(zip(axes, scales, strict=True))
    ]


def _scaled(size: int, scale: float) -> int:
    """Return a size times a scale, rounded down after the rounding of FP32: ten times 0.7 is 7, not 6.9999999."""
    return int(torch.tensor(size, dtype=torch.float32) * torch.tensor(scale, dtype=torch.float32))


def _by_sizes(
    x: torch.Tensor, sizes: Sequence[int], axes: Sequence[int], roi: Sequence[float], policy: str
) -> list[_Axis]:
    scales = [size / x.shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    if policy != "stretch":
        one = min(scales) if policy == "not_larger" else max(scales)
        scales = [one] * len(axes)
        sizes = [math.floor(one * x.shape[axis] + 0.5) for axis in axes]
    return [
        _Axis(number=axis, size=x.shape[axis], scale=scale, out=size, roi=(roi[at], roi[at + len(axes)]))
        for at, (axis, scale, size) in enumerate(zip(axes, scales, sizes, strict=True))
    ]


def _require_room(x: torch.Tensor, axes: Sequence[_Axis]) -> None:
    """Raise NoMemory for a result that memory does not hold: the places of its elements alone take minutes."""
    shape = list(x.shape)
    for axis in axes:
        shape[axis.number] = axis.out
    needed = math.prod(shape) * x.element_size()
    if needed > (free := available_bytes()):
        raise NoMemory(f"resizing to {shape} takes {size_words(needed)}, and {size_words(free)} are free")


def _resized(x: torch.Tensor, axes: Sequence[_Axis], method: _Method) -> torch.Tensor:
    crops = method.coordinates == "tf_crop_and_resize"
    if method.mode != "cubic" and not crops and all(it.out == it.size for it in axes):
        # A scale that is not 1 may keep the size. PyTorch and ONNX Runtime copy then; the cubic mode PyTorch resizes.
        return x
    moving = [it for it in axes if it.scale != 1 or it.out != it.size or crops]
    _require_room(x, moving)
    # A scale of 0.6 is 0.60000002 in FP32, and only FP32 rounds a place back to the element that was meant: where
    # places decide, they are computed as every engine computes them.
    decides = method.mode == "nearest" or crops
    precision = torch.float64 if x.dtype == torch.float64 and not decides else torch.float32
    places = [_coordinates(it, method.coordinates, precision) for it in moving]
    if method.mode == "nearest":
        y = x
        for axis, at in zip(moving, places, strict=True):
            shrinks = method.nearest == "before opset 11" and axis.scale < 1
            choose = _NEAREST[method.nearest + ", shrinking" * shrinks]
            index = choose(at).clamp(0, axis.size - 1).long().to(x.device)
            y = y.index_select(axis.number, index)
    else:
        y = wide(x) if x.is_floating_point() else x.double()
        for axis, at in zip(moving, places, strict=True):
            index, weight = _taps(at, axis, method)
            y = _weighted(y, axis.number, index, weight)
        y = y.to(x.dtype)
    if crops:
        for axis, at in zip(moving, places, strict=True):
            outside = ((at < 0) | (at > axis.size - 1)).to(x.device)
            shape = [1] * x.ndim
            shape[axis.number] = -1
            y = torch.where(outside.reshape(shape), torch.full_like(y[:1].flatten()[:1], method.extrapolation), y)
    return y


def _coordinates(axis: _Axis, mode: str, precision: torch.dtype) -> torch.Tensor:
    """Return where each output element lies on the input axis, in elements; on the CPU, so that devices agree."""
    at = torch.arange(axis.out, dtype=precision)
    scale = torch.tensor(axis.scale, dtype=precision)
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        return at * (axis.size - 1) / (axis.out - 1) if axis.out > 1 else at * 0
    if mode == "tf_crop_and_resize":
        start, end = axis.roi
        if axis.out == 1:
            return at * 0 + 0.5 * (start + end) * (axis.size - 1)
        return start * (axis.size - 1) + at * ((end - start) * (axis.size - 1) / (axis.out - 1))
    if mode == "pytorch_half_pixel" and axis.out == 1:
        return at * 0
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if mode == "half_pixel_symmetric":
        # The scale may ask for a part of an element: what is cut off is shared by both ends.
        offset = axis.size / 2 * (1 - axis.out / (scale * axis.size))
        return offset + (at + 0.5) / scale - 0.5
    if mode not in ("half_pixel", "pytorch_half_pixel"):
        raise Unsupported(f"the coordinates {mode!r}")
    return (at + 0.5) / scale - 0.5


def _taps(at: torch.Tensor, axis: _Axis, method: _Method) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the elements that each output element takes, and their weights: both (taps, out)."""
    if method.mode not in ("linear", "cubic"):
        raise Unsupported(f"the mode {method.mode!r}")
    reach = 1 if method.mode == "linear" else 2
    # A filter that shrinks is as wide as what it shrinks, so that no element is passed over.
    slope = min(axis.scale, 1.0) if method.antialias else 1.0
    if not method.antialias and method.mode == "linear":
        at = at.clamp(0, axis.size - 1)
    radius = math.ceil(reach / slope)
    offsets = torch.arange(1 - radius, radius + 1)[:, None]
    index = at.floor()[None] + offsets
    distance = ((index - at[None]) * slope).abs()
    weight = (1 - distance).clamp(min=0) if method.mode == "linear" else _cubic(distance, method.cubic_a)
    inside = (index >= 0) & (index < axis.size)
    if method.exclude_outside:
        weight = weight * inside
    return index.clamp(0, axis.size - 1).long(), weight / weight.sum(0)


def _cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    """Keys, Cubic convolution interpolation for digital image processing (1981), with its parameter a."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0))


def _weighted(x: torch.Tensor, axis: int, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    shape = [1] * x.ndim
    shape[axis] = -1
    y: torch.Tensor | None = None
    for taken, by in zip(index.to(x.device), weight.to(x), strict=True):
        value, by = x.index_select(axis, taken), by.reshape(shape)
        y = value * by if y is None else y.addcmul_(value, by)
    assert y is not None
    return y
