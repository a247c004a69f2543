"""A node of an ONNX graph as a call: its operator, and its attributes as PyTorch takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from harness.lazy import onnx_ir as ir
from harness.operators.registry import Function, find
from harness.operators.values import CARRIED, Unsupported

_DTYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")


@dataclass(frozen=True, kw_only=True)
class Call:
    """An operator with what is fixed at a node. ``numbers`` and ``dtypes`` may be replaced by a caller's precision."""

    function: Function
    settings: Mapping[str, Any]
    """Keyword arguments: attributes, and what the function asks to know of its node."""
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    """Keyword arguments that name the dtype of the result."""


def bind(node: ir.Node, *, opset: int, body: Callable[[ir.Graph], Any]) -> Call | None:
    """Return a node as a call; None where nothing here computes it.

    ``body`` makes what an operator calls for a subgraph in its attributes.
    """
    function = find(node.op_type, opset=opset, domain=node.domain)
    if function is None:
        return None
    try:
        attributes = _defaults(node.op_type, node.domain, opset) | {
            name: _decoded(attribute, body) for name, attribute in node.attributes.items()
        }
    except Unsupported:
        return None
    attributes.pop("consumed_inputs", None)  # a hint of opset 1 that overwrites nothing
    parameters = _parameters(function)
    dtypes = {}
    for name in _DTYPE_ATTRIBUTES:
        number = attributes.pop(name, None)
        if number:  # 0 is "not given"
            element_type = number if isinstance(number, str) else ir.DataType(number).name  # a name before opset 6
            found = CARRIED.get(element_type)
            if found is None:
                return None
            dtypes[name] = found
            if f"{name}_type" in parameters:
                attributes[f"{name}_type"] = element_type
    known = {
        "outputs": len(node.outputs),
        "input_types": tuple(_element_type(value) for value in node.inputs),
        "output_types": tuple(_element_type(value) for value in node.outputs),
        "output_shapes": tuple(value.shape and tuple(value.shape) for value in node.outputs),
    }
    attributes |= {name: value for name, value in known.items() if name in parameters}
    if not (attributes | dtypes).keys() <= parameters:
        return None
    return Call(function=function, settings=attributes, dtypes=dtypes)


@cache
def _parameters(function: Function) -> frozenset[str]:
    parameters = inspect.signature(function).parameters.values()
    return frozenset(it.name for it in parameters if it.kind == inspect.Parameter.KEYWORD_ONLY)


@cache
def _defaults(name: str, domain: str, opset: int) -> dict[str, Any]:
    """Return the attributes that have a default in the operator's schema."""
    from onnx import defs

    try:
        schema = defs.get_schema(name, opset, domain)
    except defs.SchemaError:
        return {}
    given = {key: it.default_value for key, it in schema.attributes.items() if it.default_value.name}
    return {key: ir.serde.deserialize_attribute(value).value for key, value in given.items()}


def _decoded(attribute: ir.Attr, body: Callable[[ir.Graph], Any]) -> Any:
    kind, value = attribute.type, attribute.value
    if kind == ir.AttributeType.GRAPH:
        return body(value)
    if kind == ir.AttributeType.TENSOR:
        return tensor_of(value)
    if kind in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return list(value)
    if kind in (ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING, ir.AttributeType.TYPE_PROTO):
        return value
    raise Unsupported(f"attribute {attribute.name!r} is a {kind.name}")


def _element_type(value: ir.Value | None) -> str | None:
    return None if value is None or value.dtype is None else value.dtype.name


def tensor_of(constant: ir.TensorProtocol) -> torch.Tensor:
    """Return a constant as a tensor of the dtype that carries it. Raises Unsupported for strings."""
    dtype = CARRIED.get(constant.dtype.name)
    if dtype is None:
        raise Unsupported(f"constant {constant.name!r} holds {constant.dtype.name.lower()}")
    array = constant.numpy()
    if array.dtype.isbuiltin != 2:  # 0 for bytes of a file, whose order is spelled out
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor.to(dtype)
    return torch.from_numpy(array.astype("float32")).to(dtype)  # ml_dtypes: small floats and integers
