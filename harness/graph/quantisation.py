"""What of a quantised graph a backend cannot build, and an INT32 bias folded into the floats that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.graph.ir import constant_of, copy_model
from harness.lazy import onnx_ir as ir
from harness.sentences import Sentence

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_ON_CODES = {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
"""Operators of ONNX that take or give codes, beside those called QLinear..."""
_CONVOLUTIONS = ("Conv", "ConvTranspose")
FP4_BLOCK = 16
"""TensorRT's documentation of quantised types: FP4 is quantised in blocks of 16 along one axis."""
_SIGNED = Sentence("trt_symmetric")


def why_refused(model: ir.Model, backend: str) -> str:
    """Return what a backend is known to refuse of a quantised graph, the first node of it, and what to do about it.

    Empty where nothing is known: ONNX Runtime takes every form of quantisation.
    """
    if backend not in ("trt", "rtx"):
        return ""
    for node in (node for graph in model.graphs() for node in graph):
        for check in _CHECKS if backend == "trt" else (*_CHECKS, _int8_convolution):
            if words := check(node):
                return Sentence("value_trouble", name=_named(node), trouble=words)
    return ""


def fold_bias(model: ir.Model) -> ir.Model:
    """Return a graph in which every INT32 bias that a DequantizeLinear reads is the floats that it gives.

    The product of a code and its scale is rounded to the scale's dtype, as the operator does.
    """
    model = copy_model(model)
    for node in [node for graph in model.graphs() for node in graph if _int32_bias(node)]:
        output, graph, floats = node.outputs[0], node.graph, floats_of(node)
        if floats is None or output.is_graph_output() or not isinstance(graph, ir.Graph):
            continue
        name = str(output.name)
        bias = ir.Value(name=name, const_value=ir.tensor(floats, name=name))
        ir.convenience.replace_all_uses_with(output, bias)
        graph.remove(node, safe=True)
        graph.initializers[name] = bias
    return model


def floats_of(node: ir.Node) -> np.ndarray[Any, Any] | None:
    """Return what a DequantizeLinear of constants gives, rounded as it rounds; None where they vary or have blocks."""
    found = [None if value is None else constant_of(value) for value in node.inputs]
    if found[0] is None or found[1] is None or "block_size" in node.attributes:
        return None
    scale = found[1].numpy()
    codes = found[0].numpy().astype(np.float64)
    axis = node.attributes.get_int("axis", 1) % max(codes.ndim, 1)
    spread = [-1 if dim == axis else 1 for dim in range(codes.ndim)] if scale.size > 1 else []
    if len(found) > 2 and found[2] is not None:
        codes = codes - found[2].numpy().astype(np.float64).reshape(spread if found[2].size > 1 else [])
    floats: np.ndarray[Any, Any] = codes.astype(scale.dtype) * scale.reshape(spread)
    return floats


def _named(node: ir.Node) -> str:
    made = ", ".join(str(value.name) for value in node.outputs)
    return (
        Sentence("node_named", name=node.name, op_type=node.op_type)
        if node.name
        else Sentence("op_that_makes", op_type=node.op_type, made=made)
    )


def _qoperator(node: ir.Node) -> str:
    if node.op_type not in _ON_CODES and not node.op_type.startswith(("QLinear", "QGemm", "QAttention")):
        return ""
    return Sentence("is_qoperator")


def _zero_point(node: ir.Node) -> str:
    if node.op_type not in _QDQ or len(node.inputs) < 3 or node.inputs[2] is None:
        return ""
    zero = constant_of(node.inputs[2])
    if zero is None or not np.any(numbers := zero.numpy().astype(np.float32)):
        return ""
    first = float(numbers.reshape(-1)[numbers.reshape(-1) != 0][0])
    return Sentence("has_zero_point", first=first, why=_SIGNED)


def _codes_of(node: ir.Node) -> ir.DataType | None:
    """Return the type of the codes that a QuantizeLinear gives or a DequantizeLinear takes; None where unknown."""
    if node.op_type not in _QDQ:
        return None
    given = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if given is not None and given.dtype is not None:
        return given.dtype
    known = given if node.op_type == "DequantizeLinear" else node.inputs[2] if len(node.inputs) > 2 else None
    constant = None if known is None else constant_of(known)
    if constant is not None:
        return constant.dtype
    if node.op_type == "DequantizeLinear":
        maker = None if given is None else given.producer()
        return None if maker is None else _codes_of(maker)
    has_zero = len(node.inputs) > 2 and node.inputs[2] is not None
    return None if has_zero else ir.DataType.UINT8


def _unsigned(node: ir.Node) -> str:
    if (kind := _codes_of(node)) not in (ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT4):
        return ""
    return Sentence("has_codes_of", kind=kind, why=_SIGNED)


def _e5m2(node: ir.Node) -> str:
    kinds = (ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E5M2FNUZ, ir.DataType.FLOAT8E4M3FNUZ)
    if (kind := _codes_of(node)) not in kinds:
        return ""
    return Sentence("has_fp8_codes", kind=kind)


def _int16(node: ir.Node) -> str:
    kind = _codes_of(node)
    return Sentence("has_int16_codes", kind=kind) if kind == ir.DataType.INT16 else ""


def _fp4(node: ir.Node) -> str:
    block = node.attributes.get_int("block_size", 0)
    if (kind := _codes_of(node)) != ir.DataType.FLOAT4E2M1 or block == FP4_BLOCK:
        return ""
    return Sentence("has_fp4_codes", kind=kind, block=block, wanted=FP4_BLOCK)


def _int32_bias(node: ir.Node) -> str:
    if node.op_type != "DequantizeLinear" or _codes_of(node) != ir.DataType.INT32:
        return ""
    return Sentence("reads_int32_bias")


def _int8_convolution(node: ir.Node) -> str:
    if node.op_type not in _CONVOLUTIONS or not all(_is_int8(value) for value in node.inputs[:2]):
        return ""
    return Sentence("is_int8_convolution")


def _is_int8(value: ir.Value | None) -> bool:
    """Return whether a value is codes of INT8 made floats, maybe cast."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "DequantizeLinear" and _codes_of(node) == ir.DataType.INT8


_CHECKS: tuple[Callable[[ir.Node], str], ...] = (_qoperator, _zero_point, _unsigned, _int16, _e5m2, _fp4, _int32_bias)
