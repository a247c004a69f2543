"""Which values of the graph each kernel of an engine can have written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir
import torch

from harness.backends import Kernel
from harness.graph import Values, used_values, variable_values


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
    """What becomes of those that leave by a constant factor or another shape: a builder moves the factor of an
    attention into the weights of the product before it."""
    unfinished: frozenset[str] = frozenset()
    """Those that a later kernel works on too: what this one writes may be a part of the way to them."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((*self.leaving, *self.inside, *self.read, *self.after)))


class Makers:
    """Which values the kernels of an engine make, in the names of the value table."""

    def __init__(self, typed: onnx_ir.Model, values: Values, kernels: Sequence[Kernel]) -> None:
        self.kernels = kernels
        self.dtypes: dict[str, set[torch.dtype]] = defaultdict(set)
        """The dtypes a value has in the typed graph; two where a Cast makes a twin of it."""
        self._made: dict[str, list[str]] = {}
        self._readers: dict[str, set[str]] = defaultdict(set)
        self._scales: set[str] = set()
        """Nodes that only reshape, reorder or multiply by a constant."""
        self._last = {node: kernel.index for kernel in kernels for node in kernel.nodes}
        self._writer = {name: kernel for kernel in kernels for name in kernel.writes}
        alias = _cast_aliases(typed, values)
        variable = variable_values(typed.graph)  # what is computed from constants, a builder folds
        for value in variable:
            self._note_dtype(alias, value)
        for node in typed.graph:
            varying = [value for value in node.inputs if value in variable]
            if node.op_type in _RESHAPES or (node.op_type in ("Mul", "Div") and len(varying) == 1):
                self._scales.add(str(node.name))
            made = [str(value.name) for value in node.outputs if value in variable]
            self._made[str(node.name)] = [alias.get(name, name) for name in made]
            for read in used_values(node):
                if read in variable:
                    self._readers[alias.get(str(read.name), str(read.name))].add(str(node.name))
        self._outputs = {alias.get(str(value.name), str(value.name)) for value in typed.graph.outputs}
        self.inputs = {str(value.name) for value in typed.graph.inputs}
        """Network inputs by name."""
        self.candidates = [self._candidates(kernel) for kernel in kernels]
        """What each kernel may write."""

    def _note_dtype(self, alias: Mapping[str, str], value: onnx_ir.Value) -> None:
        if value.dtype is not None and (dtype := TORCH_DTYPES.get(value.dtype.name)) is not None:
            self.dtypes[alias.get(str(value.name), str(value.name))].add(dtype)

    def fused(self) -> dict[str, str]:
        """Return the kernel that each value is computed in, by name; the last one where there are several."""
        return {
            value: self.kernels[index].name for node, index in self._last.items() for value in self._made.get(node, ())
        }

    def _candidates(self, kernel: Kernel) -> Candidates:
        if not kernel.nodes:  # the builder's own: a copy of something that the kernels before it wrote
            before = [self._writer[name] for name in kernel.reads if name in self._writer]
            nodes = {node for writer in before for node in writer.nodes}
            return Candidates(read=tuple(self._made_by(nodes)))
        nodes = set(kernel.nodes)
        made = self._made_by(nodes)
        outside = {value for value in made if value in self._outputs or self._readers[value] - nodes}
        # The Cast of a network input is no work of the kernel that could be wrong in its place.
        leaving = [value for value in made if value in outside and value not in self.inputs]
        makers = {value: node for node in nodes for value in self._made.get(node, ())}
        return Candidates(
            leaving=tuple(leaving),
            inside=tuple(value for value in made if value not in leaving),
            read=tuple(value for value, readers in self._readers.items() if readers & nodes and value not in made),
            after=tuple(self._after(leaving)),
            unfinished=frozenset(value for value in made if self._last.get(makers[value], -1) > kernel.index),
        )

    def _after(self, values: Sequence[str]) -> list[str]:
        """Return the values that these become by a constant factor or another shape, however many steps away."""
        found: dict[str, None] = {}
        pending = list(values)
        while pending:
            scaled = [node for node in self._readers[pending.pop()] if node in self._scales]
            made = [value for node in scaled for value in self._made[node] if value not in found]
            found.update(dict.fromkeys(made))
            pending += made
        return [value for value in found if value not in values]

    def _made_by(self, nodes: Collection[str]) -> list[str]:
        return list(dict.fromkeys(value for node, values in self._made.items() if node in nodes for value in values))


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


_RESHAPES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


TORCH_DTYPES = {
    "FLOAT": torch.float32,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "DOUBLE": torch.float64,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "BOOL": torch.bool,
}
