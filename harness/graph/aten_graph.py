"""The decomposed exported program of a module, as far as it is run: its nodes, and what its placeholders stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.export import ExportedProgram
from torch.fx import Graph


@dataclass(frozen=True, kw_only=True, eq=False)
class AtenGraph:
    """A graph of ATen operators."""

    graph: Graph
    module: torch.nn.Module = field(default_factory=torch.nn.Module)
    """What the graph's attributes are looked up in."""
    inputs: tuple[str, ...]
    """The placeholders that are inputs."""
    weights: Mapping[str, str]
    """The names of weights and constants by placeholder."""
    tensors: Mapping[str, torch.Tensor]
    """Weights and constants by name."""

    @staticmethod
    def of(exported: ExportedProgram) -> AtenGraph:
        """Return that of an exported program."""
        inputs, weights, tensors = [], {}, {}
        for spec in exported.graph_signature.input_specs:
            if spec.kind.name == "USER_INPUT":
                inputs.append(spec.arg.name)
                continue
            assert spec.target is not None
            weights[spec.arg.name] = spec.target
            store = exported.state_dict if spec.target in exported.state_dict else exported.constants
            tensors[spec.target] = store[spec.target]
        module = exported.graph_module
        return AtenGraph(graph=module.graph, module=module, inputs=tuple(inputs), weights=weights, tensors=tensors)
