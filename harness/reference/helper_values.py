"""Values that only the ONNX graph has, computed from those that PyTorch has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch.fx import Node

from harness.errors import NotJudged, unknown_name
from harness.lazy import onnx_ir as ir
from harness.pytorch import tf32_allowed
from harness.reference.interpreter import TypedInterpreter
from harness.reference.onnx_calls import onnx_run_graph
from harness.sentences import Sentence

CPU = torch.device("cpu")


class HelperValues:
    """Computes the values of an ONNX graph that PyTorch has not from those that it has.

    ``known`` are the names PyTorch knows, ``aliases`` its names for the declared outputs of the graph; names that the
    graph lacks are of no use here and harmless. ``name in helpers`` says whether a value is one to compute.
    """

    def __init__(self, model: ir.Model, known: Collection[str], *, aliases: Mapping[str, str] | None = None) -> None:
        self._graph = onnx_run_graph(model)
        self.faithful: dict[str, bool] = {}
        """Whether the parts of a value, by PyTorch's name, compute what PyTorch does, as far as that was asked."""
        values = (*model.graph.inputs, *(value for node in model.graph for value in node.outputs))
        self._shapes = {str(value.name): value.shape for value in values}
        sources = self._graph.sources
        nodes = {node.name: node for node in self._graph.graph.nodes if node.op != "output"}
        self._nodes = {name: node for name, node in nodes.items() if name not in self._graph.weights}
        names = {name: (aliases or {}).get(name, name) for name in self._nodes}
        self._known = {name: other for name, other in names.items() if other in known or name in sources}
        self._given = {self._nodes[name] for name in self._known}
        self._regions: dict[str, _Region] = {}
        """Those that were asked for: of a chain of n values that PyTorch has not, all would be n squared / 2 parts."""
        self._names = {other: name for name, other in self._known.items()}
        self._owners: dict[str, set[str]] = defaultdict(set)
        for name, other in self._known.items():
            for part in self._region(name).parts:
                self._owners[part].add(other)

    def __contains__(self, name: object) -> bool:
        """Return whether this is a value of the graph that PyTorch does not know."""
        return name in self._nodes and name not in self._known

    def needs(self, name: str) -> tuple[str, ...]:
        """Return PyTorch's names of what a value, by either name, is computed from, network inputs included.

        Raises UsageError for a name the graph has not.
        """
        return tuple(self._known[source] for source in self._region(self._names.get(name, name)).sources)

    def parts(self, name: str) -> frozenset[str]:
        """Return the values of this kind that lie between a value, by PyTorch's name, and what it is computed from."""
        return self._region(self._names[name]).parts if name in self._names else frozenset()

    def owners(self, part: str) -> Collection[str]:
        """Return PyTorch's names of the values that a value of this kind is a part of."""
        return self._owners[part]

    def value(
        self,
        name: str,
        get: Callable[[str], torch.Tensor | None],
        *,
        seen: Mapping[str, torch.Tensor] = MappingProxyType({}),
        device: torch.device = CPU,
    ) -> torch.Tensor | None:
        """Return a value computed from what ``get`` gives for :meth:`needs`, on ``device``; None if that is None.

        Its parts are taken from ``seen`` where they are there; a value that PyTorch knows, by its name, is computed
        from its parts too. The precision is that of what ``get`` gives: FP64 where that is FP64, float16 or bfloat16
        where all of it is, else FP32. Raises UsageError for an unknown name, NotJudged when a node cannot run or a
        tensor has not the shape of the graph's value.
        """
        name = self._names.get(name, name)
        region = self._region(name)
        given = {source: get(self._known[source]) for source in region.sources}
        tensors = {source: tensor for source, tensor in given.items() if tensor is not None}
        if len(tensors) < len(given):
            return None
        tensors |= {part: seen[part] for part in region.parts & seen.keys()}
        dtype = _common_precision(tensors.values())
        runner = TypedInterpreter(self._graph, {}, dtype=dtype, device=device)
        for source, tensor in tensors.items():
            self._require_shape(source, tensor)
            runner.env[self._nodes[source]] = tensor.detach().to(device)
        wanted = self._nodes[name]
        with torch.no_grad(), tf32_allowed(False):
            for node in nodes_between(wanted, runner.env):
                runner.env[node] = runner.run_node(node)
        result = runner.env[wanted]
        return result if isinstance(result, torch.Tensor) else None

    def _require_shape(self, name: str, tensor: torch.Tensor) -> None:
        declared = self._shapes.get(name)
        if declared is not None and (
            len(declared) != tensor.ndim
            or any(isinstance(size, int) and size != have for size, have in zip(declared, tensor.shape, strict=True))
        ):
            raise NotJudged(Sentence("value_shape_declared", name=name, shape=list(tensor.shape), declared=declared))

    def _region(self, name: str) -> _Region:
        if name not in self._nodes:
            raise unknown_name("value", name, self._nodes)
        if name not in self._regions:
            steps = nodes_between(self._nodes[name], self._given, anyway=True)
            reads = dict.fromkeys(item.name for step in steps for item in step.all_input_nodes)
            found = [source for source in reads if source in self._nodes]
            self._regions[name] = _Region(
                sources=tuple(source for source in found if source in self._known),
                parts=frozenset(source for source in found if source not in self._known),
            )
        return self._regions[name]


def nodes_between(wanted: Node, known: Container[Node], *, anyway: bool = False) -> list[Node]:
    """Return the nodes to run for a value, in the order to run them, where these values are known.

    ``anyway`` means even where it is known itself.
    """
    ordered: list[Node] = []
    visited: set[Node] = set()
    pending = [(wanted, False)]
    while pending:
        node, ready = pending.pop()
        if ready:
            ordered.append(node)
        elif node not in visited and (node not in known or (anyway and node is wanted)):
            visited.add(node)
            pending.append((node, True))
            pending.extend((item, False) for item in reversed(node.all_input_nodes))
    return ordered


def _common_precision(tensors: Collection[torch.Tensor]) -> torch.dtype:
    """Return float64 where one is float64, the one float dtype where all share it, else float32."""
    floats = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if torch.float64 in floats:
        return torch.float64
    return floats.pop() if len(floats) == 1 else torch.float32


@dataclass(frozen=True, kw_only=True)
class _Region:
    """What a value is computed by, as far as PyTorch knows nothing in between."""

    sources: tuple[str, ...]
    """What PyTorch knows."""
    parts: frozenset[str]
    """What only the ONNX graph has."""
