"""A graph as kernels: which nodes are fused, what enters and leaves, and a PyTorch function per ONNX operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional


def _attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    return node.attributes[name].value if name in node.attributes else default


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, x, axes: function(x, dim=axes.tolist(), keepdim=bool(_attribute(node, "keepdims", 1)))


def _layer_norm(node: ir.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axis, epsilon = _attribute(node, "axis", -1), _attribute(node, "epsilon", 1e-5)
    return functional.layer_norm(x, x.shape[axis:], weight, bias, epsilon)


def _pointwise(node: ir.Node, x: Tensor, weight: Tensor) -> Tensor:
    assert weight.shape[2:] == (1, 1)
    return functional.conv2d(x, weight)


def _argmax(node: ir.Node, x: Tensor) -> Tensor:
    return x.argmax(_attribute(node, "axis", 0), keepdim=bool(_attribute(node, "keepdims", 1)))


OPS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a - b,
    "Mul": lambda node, a, b: a * b,
    "Div": lambda node, a, b: a / b,
    "Neg": lambda node, x: -x,
    "Abs": lambda node, x: x.abs(),
    "Pow": lambda node, x, power: x**power,
    "Sqrt": lambda node, x: x.sqrt(),
    "Reciprocal": lambda node, x: x.reciprocal(),
    "Gelu": lambda node, x: functional.gelu(x, approximate=_attribute(node, "approximate", "none")),
    "MatMul": lambda node, a, b: a @ b,
    "Conv": _pointwise,
    "Softmax": lambda node, x: x.softmax(_attribute(node, "axis", -1)),
    "LayerNormalization": _layer_norm,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ArgMax": _argmax,
    "Greater": lambda node, a, b: a > b,
    "Less": lambda node, a, b: a < b,
    "Where": lambda node, condition, a, b: torch.where(condition, a, b),
    "Gather": lambda node, table, index: table[index],
    "Reshape": lambda node, x, shape: x.reshape(shape.tolist()),
    "Transpose": lambda node, x: x.permute(*_attribute(node, "perm")),
    "Identity": lambda node, x: x,
    "Cast": lambda node, x: x,
}
GEMMS = ("MatMul", "Conv")  # these start a kernel of their own
DTYPES = {
    "FLOAT": (torch.float32, "Float"),
    "FLOAT16": (torch.float16, "Half"),
    "BFLOAT16": (torch.bfloat16, "BFloat16"),
    "INT64": (torch.int64, "Int64"),
    "INT32": (torch.int32, "Int32"),
    "BOOL": (torch.bool, "Bool"),
}


def fuse(graph: ir.Graph) -> list[list[ir.Node]]:
    """Return the kernels: a node joins the last kernel it reads from, unless one of the two is a matrix product.

    A value that is an output of the graph ends its kernel: what reads it starts another.
    """
    kernels: list[list[ir.Node]] = []
    home: dict[ir.Value, int] = {}
    for node in graph:
        if node.op_type == "Constant":
            continue
        read = {value: home[value] for value in node.inputs if value in home}
        last = max(read.values(), default=-1)
        ends = any(_is_marked(value) for value, kernel in read.items() if kernel == last)
        if last < 0 or ends or node.op_type in GEMMS or kernels[last][0].op_type in GEMMS:
            kernels.append([])
            last = len(kernels) - 1
        kernels[last].append(node)
        home |= dict.fromkeys(node.outputs, last)
    return kernels


def leaving(kernel: list[ir.Node]) -> list[ir.Value]:
    """Return what a kernel writes: values that other kernels read, and outputs."""
    made = [value for node in kernel for value in node.outputs]
    return [value for value in made if value.is_graph_output() or any(use.node not in kernel for use in value.uses())]


def entering(kernel: list[ir.Node]) -> list[ir.Value]:
    """Return what a kernel reads, without constants."""
    made = {value for node in kernel for value in node.outputs}
    read = dict.fromkeys(value for node in kernel for value in node.inputs if value is not None)
    return [value for value in read if value not in made and value.const_value is None]


def marked_inside(graph: ir.Graph) -> frozenset[str]:
    """Return the outputs that the graph itself goes on with, which is how values are looked at."""
    marked = set()
    for output in graph.outputs:
        producer = output.producer()
        cast = producer is not None and producer.op_type == "Cast"
        source = producer.inputs[0] if cast and producer is not None else None
        if output.uses() or (source is not None and len(source.uses()) > 1):
            marked.add(base_name(output))
    return frozenset(marked)


def _is_marked(value: ir.Value) -> bool:
    """Return whether a value is an output, or becomes one through a Cast and is read by others too."""
    casts = [use.node.outputs[0] for use in value.uses() if use.node.op_type == "Cast"]
    return value.is_graph_output() or (len(value.uses()) > 1 and any(cast.is_graph_output() for cast in casts))


def constants_of(graph: ir.Graph) -> list[ir.Value]:
    """Return initializers and the outputs of Constant nodes."""
    made = [node.outputs[0] for node in graph if node.op_type == "Constant"]
    for value in made:
        value.const_value = ir.convenience.get_const_tensor(value)
    return [*graph.initializers.values(), *made]


def base_name(value: ir.Value) -> str:
    """Return the name of a value before typing gave it a twin for the sake of an output."""
    return str(value.name).removesuffix("_fp16").removesuffix("_bf16").removesuffix("_fp32")


def dtype_of(value: ir.Value) -> tuple[torch.dtype, str]:
    assert value.dtype is not None, value.name
    return DTYPES[value.dtype.name]


def tensor_of(constant: Any) -> Tensor:
    array = constant.numpy()
    if array.dtype.name == "bfloat16":  # NumPy has it from ml_dtypes, which PyTorch does not read
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def engine_name(value: ir.Value, number: int, index: int) -> str:
    return str(value.name) if value.is_graph_output() else f"__mye{1000 + 10 * number + index}_myl0"


def engine_shape(value: ir.Value, shape: Any) -> list[int]:
    """Return the dimensions the engine gives a tensor: matrix products write rows."""
    producer = value.producer()
    if producer is None or producer.op_type != "MatMul" or value.is_graph_output() or len(shape) < 2:
        return list(shape)
    return [math.prod(shape[:-1]), shape[-1]]
