"""What several passes need of an ONNX graph: its values, its constants, a copy to work on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from harness.lazy import onnx_ir as ir


def copy_model(model: ir.Model) -> ir.Model:
    """Return a copy that shares the tensors, with functions inlined and no initializer among the inputs."""
    from onnx_ir.passes.common import InlinePass

    copy = model.clone()
    if copy.functions:
        copy = InlinePass()(copy).model
    inputs = [value for value in copy.graph.inputs if not value.is_initializer()]
    if len(inputs) < len(copy.graph.inputs):
        copy.graph.inputs.clear()
        copy.graph.inputs.extend(inputs)
        copy.ir_version = max(copy.ir_version, 4)  # earlier files list every weight as an input as well
    return copy


def plain_model(model: ir.Model) -> ir.Model:
    """Return the model where it has no functions and no initializer among the inputs, else a copy that has none.

    What comes back is only read: it may be the model itself.
    """
    is_plain = not model.functions and not any(value.is_initializer() for value in model.graph.inputs)
    return model if is_plain else copy_model(model)


def lacks_types(model: ir.Model) -> bool:
    """Return whether a value that a node makes, in a body too, has no type or no shape."""
    made = (value for node in model.graph.all_nodes() for value in node.outputs if value.name)
    return any(value.type is None or (is_tensor(value) and value.shape is None) for value in made)


def is_tensor(value: ir.Value) -> bool:
    """Return whether a value is a tensor, not a sequence or a map."""
    return isinstance(value.type, ir.TensorType)


def inner_graphs(node: ir.Node) -> Iterable[ir.Graph]:
    """Return the graphs in a node's attributes (If, Loop, Scan), not those inside them."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def graph_values(graph: ir.Graph) -> Iterable[ir.Value]:
    """Yield the inputs, the initializers and what the nodes make, in that order."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def constant_of(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or a Constant node, or None."""
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    is_constant = producer is not None and producer.op_type == "Constant" and producer.domain == ""
    return ir.convenience.get_const_tensor(value) if is_constant else None


def weights_of(model: ir.Model) -> list[ir.TensorProtocol]:
    """Return the tensors of all initializers, those of subgraphs included."""
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return [value.const_value for value in values if value.const_value is not None]


def weight_bytes(model: ir.Model) -> int:
    """Return the size of all initializers in bytes."""
    return sum(tensor.nbytes for tensor in weights_of(model))


def elements_of(tensor: ir.TensorProtocol) -> np.ndarray[Any, Any]:
    """Return a tensor's elements. An external file is mapped only as long as they live: each map holds a descriptor."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    mapped = ir.ExternalTensor(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        name=str(tensor.name),
        shape=tensor.shape,
        base_dir=tensor.base_dir,
    )
    return mapped.numpy()
