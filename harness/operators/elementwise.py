"""Operators of one tensor that work element by element: functions, activations, and those along one axis."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from harness.operators.registry import operator
from harness.operators.values import unsigned

_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,  # half to even, as ONNX
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def _register(name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    @operator(name)
    @unsigned
    def unary(x: torch.Tensor) -> torch.Tensor:
        return function(x)


for _name, _function in _UNARY.items():
    _register(_name, _function)


@operator("Celu")
def celu(x: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    return F.celu(x, alpha)


@operator("Elu")
def elu(x: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    return F.elu(x, alpha)


@operator("Selu")
def selu(x: torch.Tensor, *, alpha: float, gamma: float) -> torch.Tensor:
    found: torch.Tensor = torch.ops.aten.elu(x, alpha, gamma)
    return found


@operator("LeakyRelu")
def leaky_relu(x: torch.Tensor, *, alpha: float = 0.01) -> torch.Tensor:
    return F.leaky_relu(x, alpha)


@operator("ThresholdedRelu")
def thresholded_relu(x: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    return F.threshold(x, alpha, 0.0)


@operator("HardSigmoid")
def hard_sigmoid(x: torch.Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> torch.Tensor:
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return (x * alpha + beta).clamp(0, 1)


@operator("Gelu")
def gelu(x: torch.Tensor, *, approximate: str = "none") -> torch.Tensor:
    return F.gelu(x, approximate=approximate)


@operator("Swish")
def swish(x: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(x * alpha)


@operator("SwiGLU")
def swiglu(gate: torch.Tensor, value: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
    return swish(gate, alpha=alpha) * value


@operator("Softplus")
def softplus(x: torch.Tensor) -> torch.Tensor:
    # log(1 + e^x) is x to the last bit of FP64 only from 37 on; PyTorch cuts at 20.
    return F.softplus(x, threshold=40)


@operator("Shrink")
@unsigned
def shrink(x: torch.Tensor, *, lambd: float = 0.5, bias: float = 0.0) -> torch.Tensor:
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


@operator("IsInf")
def is_inf(x: torch.Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> torch.Tensor:
    x = x.float() if x.dtype.itemsize == 1 else x
    found = x.isinf()
    if not detect_negative:
        found &= x > 0
    if not detect_positive:
        found &= x < 0
    return found


@operator("IsNaN")
def is_nan(x: torch.Tensor) -> torch.Tensor:
    return (x.float() if x.dtype.itemsize == 1 else x).isnan()


def _softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    return x.softmax(axis)


def _log_softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    return x.log_softmax(axis)


def _hardmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.zeros_like(x).scatter_(axis, x.argmax(axis, keepdim=True), 1)


def _register_along_axis(name: str, function: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
    @operator(name)
    def of_matrix(x: torch.Tensor, *, axis: int = 1) -> torch.Tensor:
        # Before opset 13 the axes from this one on are one.
        axis %= x.ndim
        matrix = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        return function(matrix, 1).reshape(x.shape)

    @operator(name, since=13)
    def along_axis(x: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
        return function(x, axis)


_register_along_axis("Softmax", _softmax)
_register_along_axis("LogSoftmax", _log_softmax)
_register_along_axis("Hardmax", _hardmax)
