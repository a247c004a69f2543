"""The identity of an ONNX graph: what every engine's cache key is rooted in."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from harness.lazy import onnx_ir as ir

_NOTES = ("pkg.torch.onnx.stack_trace",)
"""Metadata that no plan is matched against, and that names files of another machine."""


def graph_sha256(model: ir.Model) -> str:
    """Return a hash of an ONNX model: all graphs and functions with their attributes, types and tensors' bytes.

    Where the model and its tensors lie does not count.
    """
    digest = hashlib.sha256()
    _add(digest, "model", model.ir_version, sorted(model.opset_imports.items()))
    _hash_graph(model.graph, digest)
    for function in sorted(model.functions.values(), key=lambda function: function.identifier()):
        _add(digest, "function", function.identifier(), sorted(function.opset_imports.items()))
        for name, attribute in sorted(function.attributes.items()):
            _hash_attribute(name, attribute, digest)
        _hash_graph(function.graph, digest)
    return digest.hexdigest()


def _hash_graph(graph: ir.Graph, digest: Any) -> None:
    _add(digest, "graph", *([_value(value) for value in values] for values in (graph.inputs, graph.outputs)))
    for name, value in sorted(graph.initializers.items()):
        _add(digest, "initializer", _value(value))
        _hash_tensor(name, value.const_value, digest)
    for node in graph:
        names = [value.name if value else None for value in node.inputs]
        _add(digest, "node", *node.op_identifier(), node.name, names, [_value(value) for value in node.outputs])
        _add(digest, sorted((key, text) for key, text in node.metadata_props.items() if key not in _NOTES))
        for name, attribute in sorted(node.attributes.items()):
            _hash_attribute(name, attribute, digest)


def _value(value: ir.Value) -> list[Any]:
    return [value.name, str(value.type), str(value.shape), sorted(value.metadata_props.items())]


def _hash_attribute(name: str, attribute: ir.Attr, digest: Any) -> None:
    kind, value = attribute.type, attribute.value
    _add(digest, "attribute", name, kind.name, attribute.ref_attr_name)
    if attribute.is_ref() or value is None:
        return
    if kind == ir.AttributeType.TENSOR:
        _hash_tensor(name, value, digest)
    elif kind == ir.AttributeType.TENSORS:
        for tensor in value:
            _hash_tensor(name, tensor, digest)
    elif kind == ir.AttributeType.GRAPH:
        _hash_graph(value, digest)
    elif kind == ir.AttributeType.GRAPHS:
        for graph in value:
            _hash_graph(graph, digest)
    else:
        digest.update(ir.serde.serialize_attribute(attribute).SerializeToString(deterministic=True))


def _hash_tensor(name: str, tensor: ir.TensorProtocol | None, digest: Any) -> None:
    if tensor is None:
        _add(digest, "tensor", name, None)
        return
    _add(digest, "tensor", name, tensor.dtype.name, [str(size) for size in tensor.shape])
    if tensor.dtype == ir.DataType.STRING:
        _add(digest, [bytes(text).hex() for text in ir.serde.serialize_tensor(tensor).string_data])
    else:
        digest.update(tensor.tobytes())


def _add(digest: Any, *parts: Any) -> None:
    digest.update(json.dumps(parts).encode() + b"\n")
