"""Operators that give constants, or arrange the elements of a tensor in another shape."""

from __future__ import annotations

import math

import torch

from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import Unsupported, moves


@operator("Constant")
def constant(
    *,
    value: torch.Tensor | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
) -> torch.Tensor:
    if value is not None:
        return value
    if value_float is not None or value_floats is not None:
        return torch.tensor(value_floats if value_float is None else value_float, dtype=torch.float32)
    return torch.tensor(value_ints if value_int is None else value_int, dtype=torch.int64)


@operator("ConstantOfShape")
def constant_of_shape(shape: torch.Tensor, *, value: torch.Tensor | None = None) -> torch.Tensor:
    value = torch.zeros(1) if value is None else value
    return value.to(shape.device).reshape(()).expand(shape.tolist())


@operator("EyeLike")
def eye_like(x: torch.Tensor, *, k: int = 0, dtype: torch.dtype | None = None) -> torch.Tensor:
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape)
    return (columns - rows.unsqueeze(1) == k).to(dtype or x.dtype)


@operator("Range")
def arange(start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor, *, stash_type: int = 1) -> torch.Tensor:
    """Return max(ceil((limit - start) / delta), 0) numbers start + i * delta, rounded once."""
    inside = torch.float64 if start.dtype.is_floating_point else torch.int64
    first, last, step = start.item(), limit.item(), delta.item()
    if step == 0 or not all(map(math.isfinite, (first, last, step))):
        raise Unsupported(f"a range from {first} to {last} by {step}")
    # In integers exactly: -(-a // b) is the ceiling of a / b.
    count = math.ceil((last - first) / step) if inside == torch.float64 else -((first - last) // step)
    numbers = torch.arange(max(int(count), 0), dtype=inside, device=start.device)
    return (first + numbers * step).to(start.dtype)


@operator("Identity")
def identity(x: torch.Tensor) -> torch.Tensor:
    return x


@operator("Shape")
def shape_of(x: torch.Tensor, *, start: int = 0, end: int | None = None) -> torch.Tensor:
    return torch.tensor(x.shape[slice(start, end)], dtype=torch.int64, device=x.device)


@operator("Size")
def size(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@operator("Reshape")
def reshape_by_attribute(x: torch.Tensor, *, shape: list[int]) -> torch.Tensor:
    return _reshape(x, shape, allowzero=False)


@operator("Reshape", since=5)
def reshape(x: torch.Tensor, shape: torch.Tensor, *, allowzero: int = 0) -> torch.Tensor:
    return _reshape(x, shape.tolist(), allowzero=bool(allowzero))


def _reshape(x: torch.Tensor, shape: list[int], *, allowzero: bool) -> torch.Tensor:
    wanted = [x.shape[axis] if size == 0 and not allowzero else size for axis, size in enumerate(shape)]
    if -1 in wanted and 0 in wanted:  # PyTorch finds this ambiguous; what remains is known where it is not 0 / 0
        known = math.prod(size for size in wanted if size > 0)
        kept = math.prod(x.shape[axis] for axis, size in enumerate(x.shape) if size > 0)
        wanted[wanted.index(-1)] = kept // known
    return x.reshape(wanted)


@operator("Flatten")
def flatten(x: torch.Tensor, *, axis: int = 1) -> torch.Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze")
def squeeze_by_attribute(x: torch.Tensor, *, axes: list[int] | None = None) -> torch.Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("Squeeze", since=13)
def squeeze(x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    return squeeze_by_attribute(x, axes=None if axes is None else axes.reshape(-1).tolist())


@operator("Unsqueeze")
def unsqueeze_by_attribute(x: torch.Tensor, *, axes: list[int]) -> torch.Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Unsqueeze", since=13)
def unsqueeze(x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    return unsqueeze_by_attribute(x, axes=axes.reshape(-1).tolist())


@operator("Expand")
def expand(x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape.tolist()))  # type: ignore[no-untyped-call]


@operator("Tile")
@moves
def tile_along_axis(x: torch.Tensor, tiles: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    repeats = [1] * x.ndim
    repeats[int(axis.item())] = int(tiles.item())
    return x.repeat(repeats)


@operator("Tile", since=6)
@moves
def tile(x: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    return x.repeat(repeats.tolist())


@operator("Transpose")
def transpose(x: torch.Tensor, *, perm: list[int] | None = None) -> torch.Tensor:
    return x.permute(perm or list(reversed(range(x.ndim))))


@operator("Concat")
@moves
def concat(*inputs: torch.Tensor, axis: int = 1) -> torch.Tensor:
    return torch.cat(inputs, axis)


@operator("DepthToSpace")
def depth_to_space(x: torch.Tensor, *, blocksize: int, mode: str = "DCR") -> torch.Tensor:
    n, c, h, w = x.shape
    b, rest = blocksize, c // blocksize**2
    if mode == "DCR":
        x = x.reshape(n, b, b, rest, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, rest, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, rest, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(x: torch.Tensor, *, blocksize: int, mode: str = "DCR") -> torch.Tensor:
    n, c, h, w = x.shape
    b = blocksize
    x = x.reshape(n, c, h // b, b, w // b, b)
    x = x.permute(0, 3, 5, 1, 2, 4) if mode == "DCR" else x.permute(0, 1, 3, 5, 2, 4)
    return x.reshape(n, c * b * b, h // b, w // b)


@operator("Trilu")
@operator("Trilu", domain=MICROSOFT)
@moves
def trilu(x: torch.Tensor, k: torch.Tensor | None = None, *, upper: int = 1) -> torch.Tensor:
    diagonal = 0 if k is None else int(k.item())
    return x.triu(diagonal) if upper else x.tril(diagonal)
