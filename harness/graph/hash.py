"""The identity of a graph: what every engine's cache key is rooted in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx_ir

# A graph that another version of this package wrote may be another graph.
CODE_SHA256 = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def graph_sha256(model: onnx_ir.Model) -> str:
    """Return a hash of an ONNX graph: nodes, attributes, inputs, outputs and the bytes of every weight."""
    digest = hashlib.sha256()
    _hash_graph(model.graph, digest)
    for function in model.functions.values():
        for node in function:
            _hash_node(node, digest)
    digest.update(repr(sorted(model.opset_imports.items())).encode())
    return digest.hexdigest()


def _hash_graph(graph: onnx_ir.Graph, digest: Any) -> None:
    for value in (*graph.inputs, *graph.outputs):
        digest.update(f"{value.name}:{value.dtype}:{value.shape};".encode())
    for name, value in sorted(graph.initializers.items()):
        _hash_tensor(name, value.const_value, digest)
    for node in graph:
        _hash_node(node, digest)


def _hash_node(node: onnx_ir.Node, digest: Any) -> None:
    ends = [[value.name if value else None for value in side] for side in (node.inputs, node.outputs)]
    digest.update(f"{node.domain}:{node.op_type}:{ends};".encode())
    for name, attribute in sorted(node.attributes.items()):
        if attribute.type == onnx_ir.AttributeType.TENSOR:
            _hash_tensor(name, attribute.value, digest)
        elif attribute.type == onnx_ir.AttributeType.GRAPH:
            _hash_graph(attribute.value, digest)
        else:
            digest.update(f"{name}={attribute.value!r};".encode())


def _hash_tensor(name: str, tensor: Any, digest: Any) -> None:
    if tensor is None:
        digest.update(f"{name}:none;".encode())
    else:
        digest.update(f"{name}:{tensor.dtype}:{tensor.shape};".encode())
        digest.update(tensor.tobytes())
