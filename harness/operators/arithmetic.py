"""Operators of two and more tensors that work element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch

from harness.operators.registry import operator
from harness.operators.values import Unsupported, unsigned

Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.dtype.is_floating_point or a.dtype.is_complex:
        return a / b
    if not bool(b.all()):
        raise Unsupported("an integer is divided by 0")
    return torch.div(a, b, rounding_mode="trunc")


def _power(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.dtype.is_floating_point or not (b.dtype.is_floating_point or bool((b < 0).any())):
        return torch.pow(a, b).to(a.dtype)
    return torch.pow(a.double(), b.double()).to(a.dtype)


_BINARY: dict[str, Binary] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": _divide,
    "Pow": _power,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
}
"""Before opset 7 the second tensor is laid along an axis of the first."""
_BINARY_SINCE_12: dict[str, Binary] = {
    "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}


def _register(name: str, function: Binary, *, since: int) -> None:
    @operator(name, since=since)
    @unsigned
    def binary(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return function(a, b)


def _register_along_axis(name: str, function: Binary) -> None:
    @operator(name)
    @unsigned
    def along_axis(a: torch.Tensor, b: torch.Tensor, *, axis: int | None = None, broadcast: int = 0) -> torch.Tensor:
        if broadcast and axis is not None:
            b = b.reshape([*b.shape, *[1] * (a.ndim - axis % a.ndim - b.ndim)])
        return function(a, b)


for _name, _function in _BINARY.items():
    _register_along_axis(_name, _function)
    _register(_name, _function, since=7)
for _name, _function in _BINARY_SINCE_12.items():
    _register(_name, _function, since=12)


@operator("Mod")
@unsigned
def mod(a: torch.Tensor, b: torch.Tensor, *, fmod: int = 0) -> torch.Tensor:
    if not a.dtype.is_floating_point and not bool(b.all()):
        raise Unsupported("an integer is divided by 0")
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@operator("BitShift")
def bit_shift(x: torch.Tensor, y: torch.Tensor, *, direction: str) -> torch.Tensor:
    """Shift; from the width of the type on (and below 0) nothing is left but the sign."""
    bits, is_signed = 8 * x.dtype.itemsize, x.dtype.is_signed
    a, n = x.to(torch.int64), y.to(torch.int64)
    gone = (n < 0) | (n >= bits)
    n = n.clamp(0, bits - 1)
    if direction == "LEFT":
        return torch.where(gone, 0, a << n).to(x.dtype)
    if is_signed:
        return torch.where(gone, (a < 0).to(torch.int64).neg(), a >> n).to(x.dtype)
    if bits == 64:  # the sign bit of the int64 is no sign
        mask = torch.where(n == 0, -1, (torch.ones_like(n) << (64 - n.clamp(min=1))) - 1)
        return torch.where(gone, 0, (a >> n) & mask).to(x.dtype)
    return torch.where(gone, 0, a >> n).to(x.dtype)


def _mean(*inputs: torch.Tensor) -> torch.Tensor:
    return reduce(torch.add, inputs) / len(inputs)


_VARIADIC: dict[str, Callable[..., torch.Tensor]] = {
    "Sum": lambda *inputs: reduce(torch.add, inputs),
    "Max": lambda *inputs: reduce(torch.maximum, inputs),
    "Min": lambda *inputs: reduce(torch.minimum, inputs),
    "Mean": _mean,
}


def _register_variadic(name: str, function: Callable[..., torch.Tensor]) -> None:
    @operator(name)
    @unsigned
    def variadic(*inputs: torch.Tensor) -> torch.Tensor:
        return function(*inputs)


for _name, _variadic in _VARIADIC.items():
    _register_variadic(_name, _variadic)


@operator("Clip")
def clip_between_numbers(x: torch.Tensor, *, min: float | None = None, max: float | None = None) -> torch.Tensor:
    # The defaults, the ends of FP32, bound nothing and have no place in FP16.
    end = torch.finfo(x.dtype).max
    low = min if min is not None and min > -end else None
    high = max if max is not None and max < end else None
    return x if low is None and high is None else x.clamp(low, high)


@operator("Clip", since=11)
@unsigned
def clip(x: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None) -> torch.Tensor:
    if low is None and high is None:
        return x
    return torch.clamp(x, None if low is None else low.reshape(()), None if high is None else high.reshape(()))


@operator("PRelu")
@unsigned
def prelu_of_channels(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    if slope.ndim == 1 and slope.numel() > 1 and x.ndim > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return torch.where(x < 0, x * slope, x)


@operator("PRelu", since=7)
@unsigned
def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, x * slope, x)
