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
    found = []
    for region, batch in zip(wide(rois), batches.tolist(), strict=True):
        left, top, right, bottom = (region * spatial_scale - (0.5 if half else 0)).unbind()
        sizes = [bottom - top, right - left]
        if not half:
            sizes = [size.clamp(min=1) for size in sizes]
        bins = [sizes[0] / output_height, sizes[1] / output_width]
        samples = [max(sampling_ratio or math.ceil(size), 0) for size in bins]
        rows, columns = (
            start + (torch.arange(count * n, device=x.device) + 0.5) * size / max(n, 1)
            for start, count, size, n in zip((top, left), (output_height, output_width), bins, samples, strict=True)
        )
        places = torch.meshgrid(rows, columns, indexing="ij")
        high, across = x.shape[2:]
        inside = (places[0] >= -1) & (places[0] <= high) & (places[1] >= -1) & (places[1] <= across)
        down, along = places[0].clamp(0, high - 1), places[1].clamp(0, across - 1)
        read = corners(wide(x[batch : batch + 1]), down[None], along[None])
        parts = torch.stack([weight * value for weight, value in read])[:, 0] * inside
        shape = (4, x.shape[1], output_height, samples[0], output_width, samples[1])
        parts = parts.reshape(shape)
        if mode == "max" and parts.numel():
            found.append(parts.amax((0, 3, 5)))
        else:
            found.append(parts.sum((0, 3, 5)) / max(samples[0] * samples[1], 1))
    if not found:
        return x.new_zeros(0, x.shape[1], output_height, output_width)
    return torch.stack(found).to(x.dtype)


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
        areas = (highs - lows).prod(1)
        for category in range(scores.shape[1]):
            values = scores[batch, category].cpu()
            order = values.argsort(descending=True, stable=True)
            if score_threshold is not None:
                order = order[values[order] > score_threshold.cpu().to(values.dtype)]
            taken = 0
            while order.numel() and taken < count:
                best, order = order[0], order[1:]
                kept.append([batch, category, int(best)])
                taken += 1
                sides = torch.minimum(highs[best], highs[order]) - torch.maximum(lows[best], lows[order])
                shared = sides.clamp(min=0).prod(1)
                union = areas[best] + areas[order] - shared
                order = order[~((shared > 0) & (shared / union > iou))]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _ends(boxes: torch.Tensor, *, center: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the low and high corners: a box is two opposite corners in any order, or its centre and size."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if center:
        return first - second / 2, first + second / 2
    return torch.minimum(first, second), torch.maximum(first, second)
