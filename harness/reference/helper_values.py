"""Values that only the ONNX graph has, computed from those that PyTorch has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import onnx_ir as ir
import torch

from harness.errors import unknown_name
from harness.graph import constant_of
from harness.pytorch import tf32_allowed
from harness.reference.node_runner import NodeRunner
from harness.reference.node_values import CPU, common_precision, declared_tensor, read_on
from harness.reference.onnx_operators import evaluate
from harness.reference.precision_view import PrecisionView, rounds_to

_LOW_PRECISIONS = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


class HelperValues:
    """Computes the values of an ONNX graph that PyTorch has not from those that it has.

    ``known`` are the names PyTorch knows, ``aliases`` its names for the declared outputs of the graph; names that the
    graph lacks are of no use here and harmless. ``name in helpers`` says whether a value is one to compute.
    """

    def __init__(
        self, model: ir.Model, known: Collection[str], runner: NodeRunner, *, aliases: Mapping[str, str] | None = None
    ) -> None:
        self._model, self._runner = model, runner
        values = self._view(torch.float32).values
        names = {name: (aliases or {}).get(name, name) for name in values}
        self._known = {
            name: other for name, other in names.items() if other in known or values[name].producer() is None
        }
        graph_names = {value: name for name, value in values.items()}
        known_values = {values[name] for name in self._known}
        self._regions = {
            name: self._region(value, graph_names, known_values - {value}) for name, value in values.items()
        }
        self._names = {other: name for name, other in self._known.items()}
        self._owners: dict[str, set[str]] = defaultdict(set)
        for name, other in self._known.items():
            for part in self._regions[name].parts:
                self._owners[part].add(other)

    def __contains__(self, name: object) -> bool:
        """Return whether this is a value of the graph that PyTorch does not know."""
        return name in self._regions and name not in self._known

    def needs(self, name: str) -> tuple[str, ...]:
        """Return PyTorch's names of what a value is computed from, network inputs included.

        Raises UsageError for a name the graph has not.
        """
        if name not in self._regions:
            raise unknown_name("value", name, self._regions)
        return tuple(self._known[source] for source in self._regions[name].sources)

    def parts(self, name: str) -> frozenset[str]:
        """Return the values of this kind that lie between a value, by PyTorch's name, and what it is computed from."""
        return self._regions[self._names[name]].parts if name in self._names else frozenset()

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
        from its parts too. The precision is that of what ``get`` gives: FP64 where that is FP64, rounded to float16 or
        bfloat16 after every node where all of it is, else FP32. Raises UsageError for an unknown name, NotJudged when
        a node cannot run or a tensor has not the shape of the graph's value.
        """
        name = self._names.get(name, name)
        if name not in self._regions:
            raise unknown_name("value", name, self._regions)
        region = self._regions[name]
        given = {source: get(self._known[source]) for source in region.sources}
        tensors = {source: tensor for source, tensor in given.items() if tensor is not None}
        if len(tensors) < len(given):
            return None
        tensors |= {part: seen[part] for part in region.parts & seen.keys()}
        dtype = common_precision({tensor.dtype for tensor in tensors.values()})
        view = self._view(dtype)
        env: dict[ir.Value, Any] = {
            view.values[source]: declared_tensor(tensor, view.values[source], device)
            for source, tensor in tensors.items()
        }
        wanted = view.values[name]
        with torch.no_grad(), tf32_allowed(False):
            for node in view.nodes_between(wanted, env):
                env.update(self._run_here(view, node, env, device))
        result = read_on(device, wanted, env)
        if not isinstance(result, torch.Tensor):
            return None
        return result.to(dtype) if result.dtype.is_floating_point else result

    def _run_here(
        self, view: PrecisionView, node: ir.Node, env: Mapping[ir.Value, Any], device: torch.device
    ) -> dict[ir.Value, Any]:
        """Run one node where its inputs are, or in ONNX Runtime on the CPU."""

        def read(value: ir.Value | None) -> Any:
            return read_on(device, value, env)

        if low := rounds_to(node):
            return {node.outputs[0]: read(node.inputs[0]).to(low).to(torch.float32)}
        result = evaluate(node, read, opset=view.model.opset_imports.get("", 0))
        if result is not None:
            return {node.outputs[0]: result}
        arrays = {
            value: given.cpu().contiguous().numpy() if isinstance(given, torch.Tensor) else given
            for value in view.reads[node]
            if (given := env.get(value)) is not None
        }
        return self._runner.run_on(view.model, node, arrays)

    def _view(self, dtype: torch.dtype) -> PrecisionView:
        name = "float64" if dtype == torch.float64 else "float32"
        return self._runner.view(self._model, dtype=name, dtypes={}, default=_LOW_PRECISIONS.get(dtype), tf32=False)

    def _region(self, value: ir.Value, names: Mapping[ir.Value, str], known: Collection[ir.Value]) -> _Region:
        view = self._view(torch.float32)
        reads = dict.fromkeys(read for node in view.nodes_between(value, known) for read in view.reads[node])
        found = [names[read] for read in reads if read in names and constant_of(read) is None]
        return _Region(
            sources=tuple(name for name in found if name in self._known),
            parts=frozenset(name for name in found if name not in self._known),
        )


@dataclass(frozen=True, kw_only=True)
class _Region:
    """What a value is computed by, as far as PyTorch knows nothing in between."""

    sources: tuple[str, ...]
    """What PyTorch knows."""
    parts: frozenset[str]
    """What only the ONNX graph has."""
