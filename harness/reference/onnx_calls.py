"""An ONNX graph as an FX graph: a node becomes a call of its operator, its values keep their names.

Operators are those of :mod:`harness.operators`; a node that has none there runs alone in ONNX Runtime.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Graph, Node

from harness.graph import InputKind, captured_values, constant_of, copy_model, infer_types, node_typing, plain_model
from harness.lazy import onnx_ir as ir
from harness.operators import Unsupported, bind, tensor_of
from harness.reference.fallback import run_elsewhere
from harness.reference.run_graph import RunGraph, Source, SourceKind

RunBody = Callable[[RunGraph, Mapping[str, Any]], Sequence[Any]]


class OnnxCall:
    """The computation of one ONNX node: takes its inputs, then what its bodies capture."""

    def __init__(self, node: ir.Node, opsets: Mapping[str, int]) -> None:
        self.node, self.opsets = node, opsets
        self.__name__ = node.op_type
        self.typing = node_typing(node, opsets.get("", 1))
        self.captured = [str(value.name) for value in captured_values(node)]
        self.bound = bind(node, opset=opsets.get(node.domain, 1), body=lambda graph: Body.of(graph, opsets))
        settings = self.bound.settings if self.bound else {}
        self.bodies = {name: value for name, value in settings.items() if isinstance(value, Body)}
        self.numbers = {name: value for name, value in settings.items() if isinstance(value, float)}
        """Attributes that a precision may saturate; they are keyword arguments of the FX node, like its dtypes."""
        self.tensors = {name: value for name, value in settings.items() if isinstance(value, torch.Tensor)}
        """Constants like any other: placeholders of the graph, and keyword arguments of the FX node too."""
        apart = {*self.bodies, *self.numbers, *self.tensors}
        self.fixed = {name: value for name, value in settings.items() if name not in apart}

    @property
    def run_graphs(self) -> list[RunGraph]:
        """The graphs of its bodies."""
        return [body.run_graph for body in self.bodies.values()]

    def __repr__(self) -> str:
        return f"{self.node.domain}.{self.node.op_type}" if self.node.domain else f"onnx.{self.node.op_type}"

    def input_kind(self, index: int) -> InputKind:
        """Return in what an argument is read; a body reads what it captures as it is."""
        return self.typing.input_kind(index) if index < len(self.node.inputs) else InputKind.ANY

    def __call__(
        self,
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        *,
        run_body: RunBody,
        double: bool,
        elsewhere: set[str],
    ) -> Any:
        """Return the node's output, or a tuple of several; add the node to ``elsewhere`` where PyTorch has none.

        Raises NotImplementedError where there is no kernel for these dtypes, NotJudged where nothing computes the node.
        """
        inputs, around = args[: len(self.node.inputs)], args[len(self.node.inputs) :]
        captured = dict(zip(self.captured, around, strict=True))
        if self.bound is not None and not any(isinstance(item, np.ndarray) for item in inputs):  # strings
            bodies = {name: _callable(body, captured, run_body) for name, body in self.bodies.items()}
            try:
                return self._outputs(self.bound.function(*inputs, **self.fixed, **bodies, **keywords))
            except Unsupported:
                pass
        elsewhere.add(repr(self))
        return run_elsewhere(self.node, self.opsets, inputs, captured, double=double)

    def _outputs(self, result: Any) -> Any:
        """Return one output as it is, and several as a tuple, in which an absent one is None."""
        results = result if isinstance(result, tuple) else (result,)
        several = len(self.node.outputs)
        return results[0] if several == 1 else (*results, *[None] * (several - len(results)))[:several]


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """A subgraph of a control flow node."""

    run_graph: RunGraph
    arguments: tuple[str, ...]
    """The placeholders of its declared inputs, in their order."""

    @staticmethod
    def of(graph: ir.Graph, opsets: Mapping[str, int]) -> Body:
        """Return a subgraph as something to run."""
        arguments = tuple(str(value.name) for value in graph.inputs)
        return Body(run_graph=_Builder(opsets).build(graph), arguments=arguments)


def _callable(body: Body, captured: Mapping[str, Any], run_body: RunBody) -> Callable[..., tuple[Any, ...]]:
    return lambda *args: tuple(run_body(body.run_graph, {**captured, **dict(zip(body.arguments, args, strict=True))}))


def onnx_run_graph(model: ir.Model) -> RunGraph:
    """Return the graph of an ONNX model. A weight beyond what PyTorch has, such as a string, stays with its reader."""
    plain = plain_model(model)
    made = ((node, value) for node in plain.graph.all_nodes() for value in node.outputs)
    if any(value.type is None or (value.shape is None and node.op_type in _STEPS) for node, value in made):
        plain = copy_model(model)
        infer_types(plain)
    return _Builder(plain.opset_imports).build(plain.graph)


class _Builder:
    """Makes the FX graph of one ONNX graph."""

    def __init__(self, opsets: Mapping[str, int]) -> None:
        self.opsets = opsets
        self.graph = Graph()
        self.sources: dict[str, Source] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.floats: set[str] = set()
        self.exact: set[str] = set()
        self._nodes: dict[ir.Value, Node] = {}

    def build(self, graph: ir.Graph) -> RunGraph:
        for value in graph.inputs:
            if not value.is_initializer():
                self._placeholder(value)
        for node in graph:
            if not (node.op_type == "Constant" and node.domain == "" and _weight(node.outputs[0]) is not None):
                self._add(node)
        outputs = [self._read(value) for value in graph.outputs]
        self.graph.output(tuple(outputs))
        names = {str(value.name): node.name for value, node in zip(graph.outputs, outputs, strict=True) if node}
        return RunGraph(
            graph=self.graph, sources=self.sources, weights=self.weights, outputs=names,
            floats=frozenset(self.floats), exact=frozenset(self.exact),
        )  # fmt: skip

    def _add(self, node: ir.Node) -> None:
        call = OnnxCall(node, self.opsets)
        args = tuple(map(self._read, (*node.inputs, *captured_values(node))))
        keywords: dict[str, Any] = {**call.numbers, **(call.bound.dtypes if call.bound else {})}
        for name, tensor in call.tensors.items():
            keywords[name] = self._weight_placeholder(f"{name} of {node.outputs[0].name}", tensor)
        made = self.graph.create_node("call_function", call, args, keywords)
        outputs = [value for value in node.outputs if value.name]
        if len(node.outputs) == 1:
            self._name(made, node.outputs[0])
        else:
            made.name = f"{node.op_type} that makes {outputs[0].name if outputs else 'nothing'}"
            for index, value in enumerate(node.outputs):
                if value.name:
                    self._name(self.graph.create_node("call_function", operator.getitem, (made, index)), value)
        if any(_is_float(value) for value in outputs):
            self.floats.add(made.name)
            if call.typing.reason or call.typing.has_bodies:
                self.exact.add(made.name)

    def _weight_placeholder(self, name: str, weight: Any) -> Node:
        node = self.graph.create_node("placeholder", "value")
        node.name = name
        self.weights[name] = weight
        self.sources[name] = Source(kind=SourceKind.WEIGHT, name=name)
        return node

    def _name(self, node: Node, value: ir.Value) -> None:
        node.name = str(value.name)
        self._nodes[value] = node

    def _read(self, value: ir.Value | None) -> Node | None:
        if value is None:
            return None
        return self._nodes[value] if value in self._nodes else self._placeholder(value)

    def _placeholder(self, value: ir.Value) -> Node:
        name, weight = str(value.name), _weight(value)
        if weight is not None:
            node = self._nodes[value] = self._weight_placeholder(name, weight)
            return node
        node = self.graph.create_node("placeholder", "value")
        self._name(node, value)
        self.sources[name] = Source(kind=SourceKind.INPUT, name=name)
        return node


def _weight(value: ir.Value) -> Any:
    """Return the elements of a constant: a tensor, or an array of strings."""
    constant = constant_of(value)
    if constant is None:
        return None
    return constant.numpy() if constant.dtype == ir.DataType.STRING else tensor_of(constant)


def _is_float(value: ir.Value) -> bool:
    """Return whether a plan types a value: a float, or what may be one."""
    kind = value.type
    while isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        kind = kind.elem_type
    return not isinstance(kind, ir.TensorType) or kind.dtype in (
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
    )


_STEPS = ("Loop", "Scan")
"""What these give without a step, only a declaration says."""
