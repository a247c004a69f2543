"""Which values of the graph each kernel of an engine can have written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch

from harness.backends import Kernel
from harness.graph import Values, used_values, variable_values
from harness.lazy import onnx_ir

TORCH_DTYPES = {
    "FLOAT": torch.float32,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "DOUBLE": torch.float64,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "BOOL": torch.bool,
}
_RESHAPES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The values that a kernel's tensors may be, in graph order."""

    leaving: tuple[str, ...] = ()
    """Made by its nodes, and read by others or network outputs."""
    inside: tuple[str, ...] = ()
    """Made and read by its nodes only; a kernel that shares nodes with others may still write them."""
    read: tuple[str, ...] = ()
    """Read by its nodes: what a kernel that copies, pads or casts writes."""
    after: tuple[str, ...] = ()
    """What the leaving values become by a constant factor or another shape: builders move the scale of an attention
    into the weights of the MatMul before it."""
    unfinished: frozenset[str] = frozenset()
    """Those that a later kernel computes too: this one may write a partial result of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((*self.leaving, *self.inside, *self.read, *self.after)))


@dataclass(frozen=True, kw_only=True)
class EngineKernels:
    """The kernels of an engine with the values they may write, in the names of the value table."""

    kernels: Sequence[Kernel]
    candidates: Sequence[Candidates]
    """What each kernel may write."""
    inputs: frozenset[str]
    """Network inputs by name."""
    dtypes: Mapping[str, set[torch.dtype]]
    """The dtypes that a value has in the typed graph: two where it is cast."""
    computed_in: Mapping[str, str]
    """The kernel that each value is computed in, by name; the last one where there are several."""

    @classmethod
    def of(cls, typed: onnx_ir.Model, values: Values, kernels: Sequence[Kernel]) -> Self:
        """Return what these kernels of an engine, which was built from a typed graph, may write."""
        graph = _read_graph(typed, values)
        last = {node: kernel.index for kernel in kernels for node in kernel.nodes}
        writers = {name: kernel for kernel in kernels for name in kernel.writes}
        return cls(
            kernels=kernels,
            candidates=[_candidates(kernel, graph, last=last, writers=writers) for kernel in kernels],
            inputs=graph.inputs,
            dtypes=graph.dtypes,
            computed_in={
                value: kernels[index].name for node, index in last.items() for value in graph.made.get(node, ())
            },
        )


@dataclass(frozen=True, kw_only=True)
class _Graph:
    """A typed graph in the names of the value table, without what is computed from constants: builders fold it."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    made: dict[str, list[str]] = field(default_factory=dict)
    """What each node makes."""
    readers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The nodes that read each value."""
    scaling: set[str] = field(default_factory=set)
    """Nodes that only reshape, reorder or multiply by a constant."""
    dtypes: dict[str, set[torch.dtype]] = field(default_factory=lambda: defaultdict(set))

    def made_by(self, nodes: Collection[str]) -> list[str]:
        """Return what these nodes make, in graph order, each value once."""
        return list(dict.fromkeys(value for node, values in self.made.items() if node in nodes for value in values))

    def scaled(self, values: Sequence[str]) -> list[str]:
        """Return what these values become by a constant factor or another shape, however many steps away."""
        found: dict[str, None] = {}
        pending = list(values)
        while pending:
            nodes = [node for node in self.readers[pending.pop()] if node in self.scaling]
            made = [value for node in nodes for value in self.made[node] if value not in found]
            found.update(dict.fromkeys(made))
            pending += made
        return [value for value in found if value not in values]


def _read_graph(typed: onnx_ir.Model, values: Values) -> _Graph:
    alias = _cast_aliases(typed, values)

    def name(value: onnx_ir.Value) -> str:
        return alias.get(str(value.name), str(value.name))

    graph = _Graph(
        inputs=frozenset(str(value.name) for value in typed.graph.inputs),
        outputs=frozenset(name(value) for value in typed.graph.outputs),
    )
    variable = variable_values(typed.graph)
    for value in variable:
        if value.dtype is not None and (dtype := TORCH_DTYPES.get(value.dtype.name)) is not None:
            graph.dtypes[name(value)].add(dtype)
    for node in typed.graph:
        own = str(node.name)
        varying = [value for value in node.inputs if value in variable]
        if node.op_type in _RESHAPES or (node.op_type in ("Mul", "Div") and len(varying) == 1):
            graph.scaling.add(own)
        graph.made[own] = [name(value) for value in node.outputs if value in variable]
        for read in used_values(node):
            if read in variable:
                graph.readers[name(read)].add(own)
    return graph


def _candidates(kernel: Kernel, graph: _Graph, *, last: Mapping[str, int], writers: Mapping[str, Kernel]) -> Candidates:
    if not kernel.nodes:  # added by the builder: a copy of what the kernels before it wrote
        before = [writers[name] for name in kernel.reads if name in writers]
        return Candidates(read=tuple(graph.made_by({node for writer in before for node in writer.nodes})))
    nodes = set(kernel.nodes)
    made = graph.made_by(nodes)
    # A kernel that only casts a network input makes no value of its own.
    leaving = [
        value
        for value in made
        if value not in graph.inputs and (value in graph.outputs or graph.readers[value] - nodes)
    ]
    unfinished = {value for node in nodes for value in graph.made.get(node, ()) if last.get(node, -1) > kernel.index}
    return Candidates(
        leaving=tuple(leaving),
        inside=tuple(value for value in made if value not in leaving),
        read=tuple(value for value, readers in graph.readers.items() if readers & nodes and value not in made),
        after=tuple(graph.scaled(leaving)),
        unfinished=frozenset(unfinished),
    )


def _cast_aliases(typed: onnx_ir.Model, values: Values) -> dict[str, str]:
    """Return the values of a typed graph that are another value in another dtype: typing added a Cast."""
    alias: dict[str, str] = {}
    for node in typed.graph:
        if node.op_type == "Cast" and node.inputs[0] is not None:
            source, made = str(node.inputs[0].name), str(node.outputs[0].name)
            if made not in values:
                alias[made] = alias.get(source, source)
            elif source not in values and node.inputs[0].producer() is not None:
                alias[source] = made  # a network output's own Cast: what it casts is that output
    return alias
