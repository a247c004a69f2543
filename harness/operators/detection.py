"""Regions of interest and what remains of boxes: pools over regions, and non-maximum suppression."""

from __future__ import annotations

import math

import torch

from harness.operators.registry import operator
from harness.operators.sampling import corners
from harness.operators.values import wide


@operator("RoiAlign", since=10)
def roi_align_10(
    x: torch.Tensor,
    rois: torch.Tensor,
    batches: torch.Tensor,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> torch.Tensor:
    """Before opset 16 pixels lie at whole coordinates, and a region is at least one pixel wide."""
    return roi_align(
        x,
        rois,
        batches,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@operator("RoiAlign", since=16)
def roi_align(
    x: torch.Tensor,
    rois: torch.Tensor,
    batches: torch.Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> torch.Tensor:
    """Regions are (n, 4): left, top, right, bottom. The maximum is taken over the weighted pixels, not their sums."""
    half = coordinate_transformation_mode == "half_pixel"
    left, top, right, bottom = (wide(rois) * spatial_scale - (0.5 if half else 0)).unbind(1)
    sizes = torch.stack([bottom - top, right - left], 1)
    if not half:
        sizes = sizes.clamp(min=1)
    bins = sizes / sizes.new_tensor([output_height, output_width])
    samples = torch.full_like(bins, sampling_ratio) if sampling_ratio else bins.ceil().clamp(min=0)
    corner, out = torch.stack([top, left], 1), (output_height, output_width)
    y = x.new_empty(rois.shape[0], x.shape[1], *out)
    for counts in torch.unique(samples, dim=0):
        high, across = (int(count) for count in counts)
        same = (samples == counts).all(1).nonzero()[:, 0]
        most = max(_ELEMENTS // max(x.shape[1] * high * across * math.prod(out), 1), 1)
        for chosen in same.split(most):
            size, start = bins[chosen], corner[chosen]
            rows, columns = (
                start[:, axis, None]
                + (torch.arange(out[axis] * n, device=x.device) + 0.5) * size[:, axis, None] / max(n, 1)
                for axis, n in enumerate((high, across))
            )
            shape = (len(chosen), x.shape[1], output_height, high, output_width, across)
            y[chosen] = _pooled(x, batches[chosen], rows, columns, shape, mode).to(x.dtype)
    return y


_ELEMENTS = 2**23
"""How many samples of regions are taken at once: what they take of memory, four times over."""


def _pooled(
    x: torch.Tensor, images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, shape: tuple[int, ...], mode: str
) -> torch.Tensor:
    """Return the samples at rows (n, height) by columns (n, width), pooled by bins."""
    size = x.shape[2:]
    places = [rows[:, :, None].expand(-1, -1, columns.shape[1]), columns[:, None].expand(-1, rows.shape[1], -1)]
    inside = torch.ones_like(places[0], dtype=torch.bool)
    for place, most in zip(places, size, strict=True):
        inside = inside & (place >= -1) & (place <= most)
    held = [place.clamp(0, most - 1) for place, most in zip(places, size, strict=True)]
    parts = [(weight * value * inside[:, None]).reshape(shape) for weight, value in corners(wide(x), images, *held)]
    if mode == "max" and parts[0].numel():
        return torch.stack(parts).amax((0, 4, 6))
    total: torch.Tensor = sum(parts)  # type: ignore[assignment]
    return total.sum((3, 5)) / max(shape[3] * shape[5], 1)


@operator("MaxRoiPool")
def max_roi_pool(
    x: torch.Tensor, rois: torch.Tensor, *, pooled_shape: list[int], spatial_scale: float = 1.0
) -> torch.Tensor:
    """Regions are (n, 5): batch, left, top, right, bottom, ends included; an empty bin is zero."""
    high, across = pooled_shape
    y = x.new_zeros(rois.shape[0], x.shape[1], high, across)
    for number, region in enumerate(rois.double().tolist()):
        left, top, right, bottom = (_half_away(it * spatial_scale) for it in region[1:])
        bin_high, bin_across = max(bottom - top + 1, 1) / high, max(right - left + 1, 1) / across
        for row in range(high):
            rows = _clamped(top, row, bin_high, x.shape[2])
            for column in range(across):
                columns = _clamped(left, column, bin_across, x.shape[3])
                part = x[int(region[0]), :, rows, columns]
                if part.numel():
                    y[number, :, row, column] = part.amax((1, 2))
    return y


def _half_away(number: float) -> int:
    return math.floor(abs(number) + 0.5) * (1 if number >= 0 else -1)


def _clamped(start: int, number: int, size: float, most: int) -> slice:
    return slice(
        min(max(math.floor(number * size) + start, 0), most), min(max(math.ceil((number + 1) * size) + start, 0), most)
    )


@operator("NonMaxSuppression", since=10)
def non_max_suppression(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    most: torch.Tensor | None = None,
    iou_threshold: torch.Tensor | None = None,
    score_threshold: torch.Tensor | None = None,
    *,
    center_point_box: int = 0,
) -> torch.Tensor:
    """Boxes (batch, n, 4) and scores (batch, classes, n) give (kept, 3): batch, class, box, by score within a class.

    Equal scores keep their order. Nothing is kept where ``most`` is absent or zero.
    """
    count = 0 if most is None else int(most)
    iou = 0.0 if iou_threshold is None else float(iou_threshold)
    kept = []
    for batch in range(scores.shape[0]):
        lows, highs = _ends(boxes[batch].cpu(), center=bool(center_point_box))
        for category in range(scores.shape[1]):
            values = scores[batch, category].cpu()
            order = values.argsort(descending=True, stable=True)
            if score_threshold is not None:
                order = order[values[order] > score_threshold.cpu().to(values.dtype)]
            best = _greedy(lows[order], highs[order], iou, count)
            kept += [[batch, category, box] for box in order[best].tolist()]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _greedy(lows: torch.Tensor, highs: torch.Tensor, iou: float, count: int) -> list[int]:
    """Return at most so many of sorted boxes, none of which overlaps an earlier one of them by more than ``iou``."""
    kept: list[int] = []
    areas = (highs - lows).prod(1)
    for start in range(0, len(lows) if count else 0, _AT_ONCE):
        here = list(range(start, min(start + _AT_ONCE, len(lows))))
        others = kept + here
        sides = torch.minimum(highs[here, None], highs[others]) - torch.maximum(lows[here, None], lows[others])
        shared = sides.clamp(min=0).prod(2)
        over = (shared > 0) & (shared / (areas[here, None] + areas[others] - shared) > iou)
        gone, among = over[:, : len(kept)].any(1), over[:, len(kept) :]
        for number, box in enumerate(here):
            if not gone[number]:
                kept.append(box)
                if len(kept) == count:
                    return kept
                gone = gone | among[number]
    return kept


_AT_ONCE = 64
"""Boxes whose overlaps are computed together."""


def _ends(boxes: torch.Tensor, *, center: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the low and high corners: a box is two opposite corners in any order, or its centre and size."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if center:
        return first - second / 2, first + second / 2
    return torch.minimum(first, second), torch.maximum(first, second)
