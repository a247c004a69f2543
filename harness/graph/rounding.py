"""The FP32 graph that rounds like a typed one: the floor of a subject that exists only as an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from harness.graph.dtypes import BFLOAT16, FLOAT, FLOAT16, HALF, NAMES, PRECISIONS
from harness.graph.edits import FreshNames, add_initializer, insert_after, new_node
from harness.graph.ir import constant_of, elements_of, is_tensor
from harness.graph.typed import apply
from harness.graph.types import retype

# Rounding again what was rounded before changes nothing.
_MOVES_DATA = {
    *("Reshape", "Transpose", "Slice", "Concat", "Gather", "GatherElements", "GatherND", "Expand", "Unsqueeze"),
    *("Squeeze", "Split", "Identity", "Flatten", "Tile", "DepthToSpace", "SpaceToDepth", "Relu", "Neg", "Abs"),
    *("Where", "MaxPool"),
}
_TF32_OPS = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"}


def emulate(model: ir.Model, dtypes: Mapping[str, str], *, default: str = "float32", tf32: bool = False) -> ir.Model:
    """Return a graph in FP32 arithmetic that rounds like the plan, with FP32 inputs and outputs.

    Wherever the typed graph holds float16 or bfloat16, the value passes through Cast(low) and Cast(float32): one
    rounding per operation, FP32 inside it. With ``tf32`` the operands of matrix products and convolutions are rounded
    to 11 significant bits by Veltkamp's splitting (Dekker 1971), which overflows above 4e34.
    """
    typed = apply(model, dtypes, default=default).model
    rounded = [
        (value, value.dtype)
        for node in typed.graph
        for value in node.outputs
        if node.op_type not in _MOVES_DATA and value.dtype in HALF and is_tensor(value)
    ]
    operands = _tf32_operands(typed.graph) if tf32 else []
    retype(typed, {FLOAT16: FLOAT, BFLOAT16: FLOAT})
    names = FreshNames(typed)
    for value, low in rounded:
        _insert_rounding(typed.graph, value, low, names)
    split: dict[ir.Value, ir.Value] = {}
    for node, index in operands:
        operand = node.inputs[index]
        assert operand is not None
        if operand not in split:
            split[operand] = _insert_splitting(typed.graph, operand, names)
        node.replace_input_with(index, split[operand])
    return typed


def _tf32_operands(graph: ir.Graph) -> list[tuple[ir.Node, int]]:
    """Return the FP32 operands of matrix products and convolutions, without their biases, as (node, input index)."""
    products = [node for node in graph if node.op_type in _TF32_OPS and node.domain == ""]
    return [
        (node, index)
        for node in products
        for index, value in enumerate(node.inputs if node.op_type == "Einsum" else node.inputs[:2])
        if value is not None and value.dtype == FLOAT
    ]


def _insert_rounding(graph: ir.Graph, value: ir.Value, low: int, names: FreshNames) -> None:
    """Pass a value through Cast(low) and Cast(float32) before anything reads it; a network output keeps its name."""
    uses = list(value.uses())
    is_output = value.is_graph_output()
    name = str(value.name)
    down = new_node("Cast", [value], names.fresh(f"{name}_in_{PRECISIONS[NAMES[low]]}"), low, to=low)
    up = new_node("Cast", [down.outputs[0]], names.fresh(f"{name}_rounded"), FLOAT, to=FLOAT)
    insert_after(graph, value, [down, up])
    for user, index in uses:
        user.replace_input_with(index, up.outputs[0])
    if is_output:
        for index, output in enumerate(list(graph.outputs)):
            if output is value:
                graph.outputs[index] = up.outputs[0]
        value.name, up.outputs[0].name = names.fresh(f"{name}_exact"), name


def _insert_splitting(graph: ir.Graph, value: ir.Value, names: FreshNames) -> ir.Value:
    """Return the value rounded to 11 significant bits: c = x * (2^13 + 1), high = c - (c - x)."""
    name = f"{value.name}_tf32"
    tensor = constant_of(value)
    if tensor is not None:
        array = elements_of(tensor)
        scaled = array * np.float32(2**13 + 1)
        return add_initializer(graph, names.fresh(name), ir.Tensor(scaled - (scaled - array)))
    factor = _splitter(graph, names)
    scaled_node = new_node("Mul", [value, factor], names.fresh(f"{name}_scaled"), FLOAT)
    rest = new_node("Sub", [scaled_node.outputs[0], value], names.fresh(f"{name}_rest"), FLOAT)
    high = new_node("Sub", [scaled_node.outputs[0], rest.outputs[0]], names.fresh(name), FLOAT)
    insert_after(graph, value, [scaled_node, rest, high])
    return high.outputs[0]


def _splitter(graph: ir.Graph, names: FreshNames) -> ir.Value:
    name = "parity_tf32_splitter"
    if name not in graph.initializers:
        return add_initializer(graph, names.fresh(name), ir.Tensor(np.array(2**13 + 1, np.float32)))
    return graph.initializers[name]
