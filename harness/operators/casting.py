"""Operators that change the type of elements. Rules of range and rounding: the tables of ONNX's Cast."""

from __future__ import annotations

import math

import torch

from harness.operators.registry import operator
from harness.operators.values import CARRIED, Unsupported, wide

_BITS = {"UINT4": 4, "INT4": 4, "UINT2": 2, "INT2": 2}
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
_NAMES = {dtype: name for name, dtype in reversed(CARRIED.items())}


@operator("Cast")
def cast(
    x: torch.Tensor, *, to: torch.dtype, to_type: str | None = None, saturate: int = 1, round_mode: str = "up"
) -> torch.Tensor:
    if to_type in _BITS:
        return _to_few_bits(x, to, bits=_BITS[to_type], is_signed=to_type.startswith("INT"))
    if to_type == "FLOAT4E2M1":
        return _to_float4(wide(x)).to(to)
    if to == torch.float8_e8m0fnu:
        return _to_powers_of_two(wide(x), saturate=bool(saturate), round_mode=round_mode)
    if to in _FLOAT8:
        x = wide(x)
        end = torch.finfo(to).max
        if saturate:
            x = x.clamp(-end, end)
        elif to == torch.float8_e4m3fn:  # some versions of PyTorch saturate by themselves; 464 still rounds to 448
            x = torch.where(x.abs() > 464, math.nan, x)
        return x.to(to)
    if x.dtype.itemsize == 1 and x.dtype.is_floating_point:
        x = x.float()
    if x.dtype.is_floating_point and to in (torch.uint16, torch.uint32, torch.uint64):
        x = x.to(torch.int64)  # a negative one wraps, as from every integer
    return x.to(to)


@operator("CastLike")
def cast_like(
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    input_types: tuple[str | None, ...],
    saturate: int = 1,
    round_mode: str = "up",
) -> torch.Tensor:
    return cast(x, to=target.dtype, to_type=input_types[1], saturate=saturate, round_mode=round_mode)


@operator("BitCast")
def bit_cast(
    x: torch.Tensor, *, to: torch.dtype, to_type: str | None = None, input_types: tuple[str | None, ...]
) -> torch.Tensor:
    """Reinterpret the bits of the declared types, whatever the precision in which the values are computed."""
    source, target = input_types[0] or _NAMES[x.dtype], to_type or _NAMES[to]
    if {source, target} & {*_BITS, "FLOAT4E2M1"}:
        raise Unsupported(f"bits of {source} and {target} are not stored as such")
    return x.to(CARRIED[source]).view(CARRIED[target]).to(to)


def _to_few_bits(x: torch.Tensor, to: torch.dtype, *, bits: int, is_signed: bool) -> torch.Tensor:
    """Return integers without the bits beyond; from floats rounded towards zero."""
    if x.dtype.itemsize == 1 and x.dtype.is_floating_point:
        x = x.float()
    whole = x.to(torch.int64) & ((1 << bits) - 1)
    half = 1 << (bits - 1)
    return ((whole ^ half) - half if is_signed else whole).to(to)


def _to_float4(x: torch.Tensor) -> torch.Tensor:
    """Round to a multiple of the step of E2M1 (0.5 below 2, 1 below 4, 2 up to 6), half to even.

    E2M1 has no NaN: the node tests of ONNX make it -0.
    """
    x = torch.where(x.isnan(), -0.0, x.clamp(-6, 6))
    size = x.abs()
    step = 0.5 + 0.5 * (size >= 2).to(x.dtype) + (size >= 4).to(x.dtype)
    return torch.round(x / step) * step


def _to_powers_of_two(x: torch.Tensor, *, saturate: bool, round_mode: str) -> torch.Tensor:
    """Return E8M0: the byte is the exponent + 127, 255 is NaN."""
    mantissa, exponent = torch.frexp(x)  # of 0.5 to 1
    above = {"up": mantissa > 0.5, "down": torch.zeros_like(x, dtype=torch.bool), "nearest": mantissa >= 0.75}
    byte = exponent.to(torch.int64) + 126 + above[round_mode]
    byte = torch.where(x == 0, -1, torch.where(x.isinf(), 256, byte))
    byte = byte.clamp(0, 254) if saturate else torch.where((byte < 0) | (byte > 254), 255, byte)
    return torch.where(x.isnan(), 255, byte).to(torch.uint8).view(torch.float8_e8m0fnu)
