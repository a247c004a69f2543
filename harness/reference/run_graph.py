"""What the interpreter runs: an FX graph with named values, be it of an exported module or of an ONNX file."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_leaves

from harness.graph import Program
from harness.tensors import largest_finite

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
"""The dtypes that a plan decides; float64, integers and booleans stay what the graph says."""


_ORDERS = (
    *("aten.argmax.", "aten.argmin.", "aten.max.dim", "aten.min.dim", "aten.topk.", "aten.sort."),
    *("onnx.ArgMax", "onnx.ArgMin", "onnx.TopK"),
)
"""What has no answer for NaN: every implementation puts it elsewhere."""


class SourceKind(enum.Enum):
    """Where the value of a placeholder comes from."""

    INPUT = "an input of the subject, a value around a body, or an argument of a body"
    WEIGHT = "a weight or constant"


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a placeholder of the graph stands for."""

    kind: SourceKind
    name: str
    """Of the input or the weight."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunGraph:
    """An FX graph that can be run in any precision."""

    graph: Graph
    module: torch.nn.Module = field(default_factory=torch.nn.Module)
    """What the graph's attributes are looked up in."""
    sources: Mapping[str, Source]
    """By placeholder."""
    weights: Mapping[str, torch.Tensor]
    """By name."""
    outputs: Mapping[str, str]
    """Declared output -> the node that computes it."""
    floats: frozenset[str]
    """Nodes whose results a plan types."""
    exact: frozenset[str] = frozenset()
    """Those of them that stay in FP32 whatever the plan says, as in the graph that engines are built from."""

    _largest: dict[Node, tuple[Any, float]] = field(default_factory=dict, repr=False)

    @property
    def result_names(self) -> list[str]:
        """The nodes that the graph returns, in order."""
        (output,) = (node for node in self.graph.nodes if node.op == "output")
        given = output.args[0]
        several = given if isinstance(given, (tuple, list)) else (given,)
        return [node.name if isinstance(node, Node) else "" for node in several]

    @cached_property
    def computed_constants(self) -> frozenset[str]:
        """Nodes that read constants alone: they give the same numbers whatever the inputs are."""
        constant = {name for name, source in self.sources.items() if source.kind is SourceKind.WEIGHT}
        computed = set()
        for node in self.graph.nodes:
            if node.op == "call_function" and all(item.name in constant for item in node.all_input_nodes):
                computed.add(node.name)
                constant.add(node.name)
        return frozenset(computed)

    @cached_property
    def ordered(self) -> dict[str, str]:
        """The values that are put in order, or of which one is chosen, with the operator that does so."""
        return {
            node.args[0].name: str(node.target)
            for node in self.graph.nodes
            if str(node.target).startswith(_ORDERS) and isinstance(node.args[0], Node)
        }

    @cached_property
    def last_uses(self) -> dict[Node, list[Node]]:
        """What is read for the last time by each node."""
        last: dict[Node, Node] = {}
        for node in reversed(self.graph.nodes):
            for item in node.all_input_nodes:
                last.setdefault(item, node)
        uses: dict[Node, list[Node]] = {}
        for item, node in last.items():
            uses.setdefault(node, []).append(item)
        return uses

    def largest(self, weight: Node, value: torch.Tensor) -> float:
        """Return the largest finite magnitude of a weight's value: every floor asks, and a GPU waits each time."""
        if value.is_inference():  # PyTorch does not count its changes
            return largest_finite(value)
        key = (value.data_ptr(), value._version, value.device, value.dtype, tuple(value.shape), value.stride())
        if self._largest.get(weight, (None, 0.0))[0] != key:
            self._largest[weight] = key, largest_finite(value)
        return self._largest[weight][1]

    def with_bodies(self) -> Iterator[RunGraph]:
        """Yield this graph and the bodies of its control flow nodes, at any depth."""
        yield self
        for node in self.graph.nodes:
            bodies = getattr(node.target, "run_graphs", ()) if node.op == "call_function" else ()
            if node.op == "get_attr":
                found = getattr(self.module, str(node.target), None)
                bodies = (branch_run_graph(found),) if isinstance(found, GraphModule) else ()
            for body in bodies:
                yield from body.with_bodies()


def exported_run_graph(program: Program) -> RunGraph:
    """Return the exported program of a PyTorch subject."""
    aten = program.aten
    assert aten is not None
    sources = {name: Source(kind=SourceKind.INPUT, name=name) for name in aten.inputs}
    sources |= {name: Source(kind=SourceKind.WEIGHT, name=weight) for name, weight in aten.weights.items()}
    return RunGraph(
        graph=aten.graph,
        module=aten.module,
        sources=sources,
        weights=aten.tensors,
        outputs=program.outputs,
        floats=_traced_floats(aten.graph),
    )


def branch_run_graph(module: torch.fx.GraphModule) -> RunGraph:
    """Return the body of a traced control flow operator; its arguments go by their placeholders' names."""
    placeholders = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    return RunGraph(
        graph=module.graph,
        module=module,
        sources={name: Source(kind=SourceKind.INPUT, name=name) for name in placeholders},
        weights={},
        outputs={},
        floats=_traced_floats(module.graph),
    )


def _traced_floats(graph: Graph) -> frozenset[str]:
    """Return the nodes of which a traced result is a float that a plan types."""
    return frozenset(
        node.name
        for node in graph.nodes
        if any(isinstance(it, torch.Tensor) and it.dtype in FLOATS for it in tree_leaves(node.meta.get("val")))
    )
