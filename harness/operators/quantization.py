"""From numbers to codes and back: per tensor, per axis, and in blocks, for integers, FP8 and FP4."""

from __future__ import annotations

from typing import TypeGuard

import torch

from harness.operators.casting import cast
from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import CARRIED, Unsupported

RANGES = {
    "UINT8": (0, 255),
    "INT8": (-128, 127),
    "UINT16": (0, 65535),
    "INT16": (-32768, 32767),
    "INT32": (-(2**31), 2**31 - 1),
    "UINT4": (0, 15),
    "INT4": (-8, 7),
    "UINT2": (0, 3),
    "INT2": (-2, 1),
}
_Names = tuple[str | None, ...]


@operator("QuantizeLinear", since=10)
@operator("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    input_types: _Names,
    output_dtype: torch.dtype | None = None,
    output_dtype_type: str | None = None,
    precision: int = 0,
    saturate: int = 1,
) -> torch.Tensor:
    """The type of the codes is asked for, or that of the zero point, or unsigned 8-bit."""
    kind = kind_of_codes(zero, input_types, output_dtype_type)
    dtype = scale.dtype if not precision else CARRIED[_PRECISIONS[precision]]
    by = spread(scale, x, axis, block_size)
    ratio = x.to(dtype) / by.to(dtype)
    offset = None if zero is None else spread(zero, x, axis, block_size)
    return codes(ratio, offset, kind, saturate=bool(saturate))


def kind_of_codes(zero: torch.Tensor | None, input_types: _Names, asked: str | None = None) -> str:
    """Return the ONNX name of the type of the codes that a QuantizeLinear gives."""
    kind = asked or (input_types[2] if len(input_types) > 2 else None)
    if kind is None and zero is not None:
        kind = next(name for name, dtype in CARRIED.items() if dtype == zero.dtype)
    return kind or "UINT8"


_PRECISIONS = {1: "FLOAT", 10: "FLOAT16", 16: "BFLOAT16", 11: "DOUBLE"}


def codes(ratio: torch.Tensor, zero: torch.Tensor | None, kind: str, *, saturate: bool = True) -> torch.Tensor:
    """Return numbers in units of their scale as codes of an ONNX type, ties to even."""
    if kind in RANGES:
        whole = ratio.round().double()
        if _moves(zero):
            whole = whole + zero.double()
        return whole.clamp_(*RANGES[kind]).to(CARRIED[kind])
    moved = ratio + zero.to(ratio.dtype) if _moves(zero) else ratio
    if not kind.startswith("FLOAT"):
        raise Unsupported(f"quantisation to {kind.lower()}")
    return cast(moved, to=CARRIED[kind], to_type=kind, saturate=int(saturate))


def _moves(zero: torch.Tensor | None) -> TypeGuard[torch.Tensor]:
    """Return whether a zero point is there and is not known to be 0: most are, and adding 0 takes time."""
    return zero is not None and (zero.device.type != "cpu" or bool(zero.float().any()))


@operator("DequantizeLinear", since=10)
@operator("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """The difference to the zero point is exact; the product is in the type of the result."""
    dtype = output_dtype or (scale.dtype if scale.dtype != torch.float8_e8m0fnu else torch.float32)
    numbers = x
    if _moves(zero):
        wide = dtype if x.is_floating_point() else torch.int64
        numbers = x.to(wide) - spread(zero, x, axis, block_size).to(wide)
    return numbers.to(dtype) * spread(scale, x, axis, block_size).to(dtype)


def spread(parameter: torch.Tensor, x: torch.Tensor, axis: int, block_size: int) -> torch.Tensor:
    """Return a scale or zero point in a shape that broadcasts over what it belongs to."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    if block_size or parameter.ndim > 1:
        block = block_size or -(-x.shape[axis] // parameter.shape[axis])
        index = torch.arange(x.shape[axis], device=x.device) // block
        return parameter.index_select(axis, index)
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


@operator("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes of 8 bits over the range of a tensor with zero in it, their scale and their zero point."""
    zero = x.new_zeros(())
    least, most = torch.minimum(x.min(), zero), torch.maximum(x.max(), zero)
    scale = (most - least) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    point = codes(-least / scale, None, "UINT8")
    return codes(x / scale, point, "UINT8"), scale, point
