"""What rounding may do to a value of a quantised graph: computed from the operator, its length and the format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_map

from harness.compare import UNIT_ROUNDOFF
from harness.reference import OnnxCall

PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "FusedMatMul", "FusedConv", "FusedGemm")
"""Operators that add up products, by name."""
SUMS = ("ReduceSum", "ReduceMean", "GlobalAveragePool", "AveragePool", "CumSum")
"""Operators that add up their input."""
NORMALISE = ("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "InstanceNormalization",
             "GroupNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "Attention")  # fmt: skip
"""Operators with a sum inside, whose result is of the size of its largest element."""
FUNCTIONS = ("Exp", "Log", "Erf", "Tanh", "Sigmoid", "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Pow", "Sin", "Cos",
             "Swish", "Mish", "HardSwish", "Softplus")  # fmt: skip
BIASED = ("Conv", "ConvTranspose", "Gemm")
"""Operators whose bias a backend may round to whole units of the product of both scales."""
OF_A_FUNCTION = 4.0
"""Roundings of a function: CUDA's expf, tanhf, erff and sinf err by 2 units in the last place at most, which are 4."""


class Rounding:
    """The standard deviation of the rounding of every value of one run, by name, and values moved by it.

    A sum of n products is known to sqrt(n) * u * sum(|a| * |b|), whatever its order: the probabilistic bound of Higham
    and Mary (SIAM J. Sci. Comput. 41, 2019), in which u is that of the accumulator, FP32. The result is rounded to the
    format of the value. Constants, and what is computed from constants alone, are not moved.
    """

    def __init__(
        self, roundoffs: Mapping[str, float], *, accumulator: float, fixed: frozenset[str], rounds_bias: bool = False
    ) -> None:
        self.roundoffs, self.accumulator, self.fixed, self.rounds_bias = roundoffs, accumulator, fixed, rounds_bias
        self.deviations: dict[str, torch.Tensor] = {}
        self._scales: dict[str, torch.Tensor] = {}

    def note(self, node: Node, args: Sequence[Any], keywords: Mapping[str, Any], value: Any) -> None:
        """Keep by how much a value is uncertain, given what it was computed from."""
        name = node.target.node.op_type if isinstance(node.target, OnnxCall) else ""
        if name == "DequantizeLinear" and self.rounds_bias:
            self._scales[node.name] = args[1].double()
        if node.name in self.fixed or not isinstance(value, torch.Tensor) or value.dtype != torch.float64:
            return
        own = self.roundoffs.get(node.name, UNIT_ROUNDOFF["fp32"])
        deviation = value.abs() * (own * (OF_A_FUNCTION if name in FUNCTIONS else 1.0))
        if isinstance(node.target, OnnxCall):
            deviation = deviation + self.accumulator * _of_a_sum(node.target, name, args, keywords, value)
        if name in BIASED and len(args) > 2 and args[2] is not None:
            deviation = deviation + self._of_bias(node, args[2], value)
        self.deviations[node.name] = torch.where(deviation.isfinite(), deviation, 0.0)

    def _of_bias(self, node: Node, bias: torch.Tensor, value: torch.Tensor) -> torch.Tensor | float:
        """Return what rounding a bias to whole units of the product of both scales may do, where a backend does so."""
        scales = [self._scales.get(getattr(arg, "name", "")) for arg in node.args[:2]]
        if scales[0] is None or scales[1] is None or bias.ndim != 1:
            return 0.0
        step = scales[0].abs().amax() * scales[1].abs().flatten()
        step = step if step.numel() == bias.numel() else step.amax()
        dims = [-1 if dim == (value.ndim - 1 if value.ndim < 3 else 1) else 1 for dim in range(value.ndim)]
        return 0.5 * (step.reshape(dims) if step.numel() > 1 else step)

    def moved(self, name: str, value: Any, generator: torch.Generator) -> Any:
        """Return a value moved at random by its rounding."""
        deviation = self.deviations.get(name)
        if deviation is None or deviation.shape != value.shape:
            return value
        noise = torch.randn(value.shape, generator=generator)  # FP32: it is drawn in half the time
        return value + deviation * noise.to(value.device, value.dtype)


def _of_a_sum(
    call: OnnxCall, name: str, args: Sequence[Any], keywords: Mapping[str, Any], value: torch.Tensor
) -> torch.Tensor | float:
    """Return sqrt(n) * sum(|a| * |b|) of an operator that adds up n products; 0 where it adds up none."""
    if name in PRODUCTS:
        sizes = _call(call, tree_map(_magnitude, args), keywords)
        counts = _call(call, tree_map(_one, args), keywords)
        return sizes * counts.abs().sqrt()
    if name in SUMS:
        many = max(args[0].numel() / max(value.numel(), 1), 1.0)
        return _call(call, tree_map(_magnitude, args), keywords).abs() * math.sqrt(many)
    if name in NORMALISE:
        largest = value.abs().amax(-1, keepdim=True) if value.ndim else value.abs()
        return largest * math.sqrt(value.shape[-1] if value.ndim else 1)
    return 0.0


def _call(call: OnnxCall, args: Any, keywords: Mapping[str, Any]) -> torch.Tensor:
    result = call(args, keywords, run_body=_no_body, double=True, elsewhere=set())
    found: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return found


def _no_body(*_: Any) -> Sequence[Any]:
    raise NotImplementedError("an operator that adds up products has no body")


def _magnitude(value: Any) -> Any:
    return value.abs() if _is_float(value) else value


def _one(value: Any) -> Any:
    return torch.ones_like(value) if _is_float(value) else value


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
