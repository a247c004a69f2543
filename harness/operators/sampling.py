"""Reading an image between its pixels: grids, regions of interest, and cuts about a centre."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import Unsupported, wide


def bilinear(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return images (n, channels, height, width) read at points (n, *places) in pixels, zero outside.

    The result is (n, channels, *places).
    """
    images = torch.arange(x.shape[0], device=x.device)
    return sum(weight * value for weight, value in corners(x, images, rows, columns))  # type: ignore[return-value]


def corners(
    x: torch.Tensor, images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the weights and values of the four pixels about points (n, *places) in the n images that are named.

    The values are zero outside the image; both are (n, channels or 1, *places).
    """
    high, across = x.shape[2:]
    image = images.reshape(-1, *[1] * (rows.ndim - 1))
    top, left = rows.floor(), columns.floor()
    down, right = rows - top, columns - left
    found = []
    for row, by_row in ((top, 1 - down), (top + 1, down)):
        for column, by_column in ((left, 1 - right), (left + 1, right)):
            inside = (row >= 0) & (row < high) & (column >= 0) & (column < across)
            place = (row.clamp(0, high - 1).long(), column.clamp(0, across - 1).long())
            value = x[image, :, place[0], place[1]] * inside[..., None]
            found.append(((by_row * by_column)[:, None], value.movedim(-1, 1)))
    return found


@operator("GridSample", since=16)
@operator("GridSample", domain=MICROSOFT)
def grid_sample(
    x: torch.Tensor, grid: torch.Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> torch.Tensor:
    """The modes of opset 20 (linear, cubic) and of opset 16 (bilinear, bicubic) are PyTorch's."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    if x.ndim not in (4, 5) or (x.ndim == 5 and mode == "bicubic"):
        raise Unsupported(f"{mode} sampling over {x.ndim - 2} axes")
    dtype = torch.promote_types(wide(x).dtype, wide(grid).dtype)
    y = F.grid_sample(
        x.to(dtype), grid.to(dtype), mode=mode, padding_mode=padding_mode, align_corners=bool(align_corners)
    )
    return y.to(x.dtype)


@operator("AffineGrid", since=20)
def affine_grid(theta: torch.Tensor, size: torch.Tensor, *, align_corners: int = 0) -> torch.Tensor:
    return F.affine_grid(wide(theta), size.tolist(), align_corners=bool(align_corners)).to(theta.dtype)


@operator("CenterCropPad", since=18)
def center_crop_pad(x: torch.Tensor, shape: torch.Tensor, *, axes: Sequence[int] | None = None) -> torch.Tensor:
    """An axis is cut or padded with zeros about its centre; the odd element goes to the end."""
    for axis, size in zip(axes if axes is not None else range(x.ndim), shape.tolist(), strict=True):
        spare = x.shape[axis] - size
        if spare >= 0:
            x = x.narrow(axis, spare // 2, size)
        else:
            pairs = [0, 0] * (x.ndim - 1 - axis % x.ndim) + [-spare // 2, -spare - -spare // 2]
            x = F.pad(x, pairs)
    return x
