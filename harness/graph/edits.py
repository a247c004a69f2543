"""Small changes of a graph: fresh names, new nodes and initializers."""

from __future__ import annotations

from harness.graph.ir import graph_values
from harness.lazy import onnx_ir as ir


class FreshNames:
    """Value names that are not taken yet."""

    def __init__(self, model: ir.Model) -> None:
        self._taken = {value.name for graph in model.graphs() for value in graph_values(graph)}

    def fresh(self, name: str) -> str:
        """Return the name, numbered if it is taken."""
        candidate, number = name, 1
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate


def new_node(op: str, inputs: list[ir.Value], name: str, dtype: int, **attributes: int) -> ir.Node:
    """Return a node whose one output bears its name, with the shape of its first input."""
    output = ir.Value(name=name, shape=inputs[0].shape, type=ir.TensorType(ir.DataType(dtype)))
    attrs = [ir.AttrInt64(key, value) for key, value in attributes.items()]
    return ir.Node("", op, inputs, attrs, outputs=[output], name=name)


def insert_after(graph: ir.Graph, value: ir.Value, nodes: list[ir.Node]) -> None:
    """Insert nodes right after a value's producer, or at the head of the graph for a network input."""
    producer = value.producer()
    if producer is not None:
        producer.append(nodes)
    elif len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def add_initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Give a graph a constant, which gets the name, and return the value that nodes read."""
    tensor.name = name
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
