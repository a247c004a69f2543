"""ONNX operators in PyTorch, for the values that an exported graph computes on the way from one FX node to the next.

Only what the exporter writes there often, and only where both mean the same; ONNX Runtime does the rest. A value of
300 MB, the scores of an attention, is then not carried to the CPU and back for every precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

OLDEST_OPSET = 13
"""Softmax worked on all dimensions from its axis on before."""
Operator = Callable[[ir.Node, Sequence[torch.Tensor]], torch.Tensor | None]


def evaluate(node: ir.Node, read: Callable[[ir.Value], torch.Tensor], *, opset: int) -> torch.Tensor | None:
    """Return a node's output, on the device of its inputs; None for a node that is not known here.

    ``read`` gives an input, and is asked only for a node that is known.
    """
    operator = _OPERATORS.get(node.op_type) if node.domain == "" and opset >= OLDEST_OPSET else None
    if operator is None:
        return None
    inputs = [read(value) for value in node.inputs if value is not None]
    if node.op_type not in _ANY_DTYPE and not all(tensor.is_floating_point() for tensor in inputs):
        return None  # PyTorch multiplies no matrices of integers on a GPU
    return operator(node, inputs)


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _cast(node: ir.Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor | None:
    wanted = _FLOATS.get(_attribute(node, "to", None))
    return None if wanted is None else inputs[0].to(wanted)


def _instance_normalization(node: ir.Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    x, scale, bias = inputs
    epsilon: float = _attribute(node, "epsilon", 1e-5)
    axes = tuple(range(2, x.dim()))
    variance, mean = torch.var_mean(x, dim=axes, correction=0, keepdim=True)
    each = (-1, *(1 for _ in axes))
    return (x - mean) * (variance + epsilon).rsqrt() * scale.reshape(each) + bias.reshape(each)


def _reshape(node: ir.Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    data, wanted = inputs[0], list(map(int, inputs[1].tolist()))
    if not _attribute(node, "allowzero", 0):
        wanted = [size or data.shape[axis] for axis, size in enumerate(wanted)]
    return data.reshape(wanted)


def _transpose(node: ir.Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    order: Sequence[int] = _attribute(node, "perm", range(inputs[0].dim())[::-1])
    return inputs[0].permute(*order)


_FLOATS = {ir.DataType.FLOAT: torch.float32, ir.DataType.DOUBLE: torch.float64}
_ANY_DTYPE = ("Reshape", "Transpose", "Where")
_OPERATORS: Mapping[str, Operator] = {
    "Add": lambda node, inputs: inputs[0] + inputs[1],
    "Cast": _cast,
    "InstanceNormalization": _instance_normalization,
    "IsNaN": lambda node, inputs: inputs[0].isnan(),
    "MatMul": lambda node, inputs: inputs[0] @ inputs[1],
    "Mul": lambda node, inputs: inputs[0] * inputs[1],
    "Reshape": _reshape,
    "Sigmoid": lambda node, inputs: inputs[0].sigmoid(),
    "Softmax": lambda node, inputs: inputs[0].softmax(_attribute(node, "axis", -1)),
    "Sqrt": lambda node, inputs: inputs[0].sqrt(),
    "Sub": lambda node, inputs: inputs[0] - inputs[1],
    "Transpose": _transpose,
    "Where": lambda node, inputs: torch.where(inputs[0], inputs[1], inputs[2]),
}
