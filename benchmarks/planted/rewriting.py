"""Faults written into a typed graph before its engine is built.

The wrong value keeps its name, so it is wrong wherever it is made: in the whole graph, in a part of it, as an output.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.planted.faults import WAYS, Fault, Nodes, size
from harness.graph import constant_of, infer_types


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """What becomes of a typed graph before the engine is built."""

    faults: tuple[Fault, ...] = ()
    half: bool = False
    """Round every FP16 value: ONNX Runtime on the CPU leaves out casts between operators, and computes in FP32."""
    halves: bool = False
    """Sum matrix products in two halves: as right as the other order."""
    weights: str = ""
    """A file with the weights of the whole graph."""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Rewrite:
        """Return what ``dataclasses.asdict`` made data of."""
        return cls(**{**data, "faults": tuple(Fault(**fault) for fault in data["faults"])})


def rewrite(model: ir.Model, wanted: Rewrite) -> None:
    """Write the faults into a graph, those whose value it makes."""
    infer_types(model)
    for fault in wanted.faults:
        _apply(model, fault, Path(wanted.weights) if wanted.weights else None)
    model.graph.sort()  # what holds another value is made before it
    if wanted.half:
        for node in [node for node in model.graph if node.op_type != "Constant"]:
            for value in [value for value in node.outputs if value.dtype == ir.DataType.FLOAT16]:
                nodes = Nodes(f"{value.name}__half", None)
                _put_behind(value, nodes.in_half(value), nodes)
    if wanted.halves:
        for node in [node for node in model.graph if node.op_type == "MatMul" and node.inputs[0].shape is not None]:
            nodes = Nodes(f"{node.outputs[0].name}__sum", None)
            _put_behind(node.outputs[0], _in_halves(nodes, node), nodes)


def _in_halves(n: Nodes, node: ir.Node) -> ir.Value:
    a, b = node.inputs
    count = size(a, -1)
    even, odd = (n.constant(np.arange(start, count, 2), np.int64) for start in (0, 1))
    axis = len(b.shape) - 2
    last = len(a.shape) - 1
    parts = [n.MatMul(n.Gather(a, part, axis=last), n.Gather(b, part, axis=axis)) for part in (even, odd)]
    return n.Add(*parts)


def _apply(model: ir.Model, fault: Fault, weights: Path | None) -> None:
    graph = model.graph
    made = {str(value.name): value for node in graph for value in node.outputs}
    value = _typed(made.get(fault.value), fault.value)
    if value is None or not _shows(fault, graph, made):
        return
    node = value.producer()
    assert node is not None
    floats = [v.dtype for v in (*node.outputs, *node.inputs) if v is not None and constant_of(v) is None]
    if fault.half and ir.DataType.FLOAT16 not in floats:
        return
    nodes = Nodes(fault.value + "__wrong" + ("" if fault.at is None else str(fault.at)), weights)
    spoilt = value if fault.at is None else node.inputs[fault.at]
    new = WAYS[fault.how](nodes, spoilt, node, *fault.args)
    if new is None:
        return
    if fault.at is None:
        _put_behind(value, new, nodes)
    else:
        graph.insert_before(node, nodes.made)
        node.replace_input_with(fault.at, new)


def _typed(value: ir.Value | None, name: str) -> ir.Value | None:
    """Return the value that a declared output is cast from, where typing has renamed it."""
    node = value.producer() if value is not None else None
    source = node.inputs[0] if node is not None and node.op_type == "Cast" else None
    return source if source is not None and str(source.name).startswith(f"{name}_fp") else value


def _shows(fault: Fault, graph: ir.Graph, made: dict[str, ir.Value]) -> bool:
    outputs = {str(value.name) for value in graph.outputs}
    if fault.fused and (fault.fused not in made or {fault.value, fault.fused} & outputs):
        return False
    return not (fault.hidden and any(_inner_reads(value) for value in graph.outputs))


def _inner_reads(value: ir.Value) -> bool:
    """Return whether an output is read inside the graph too, itself or what it is cast from."""
    node = value.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Cast" else value
    return len(source.uses()) > (0 if source is value else 1) or bool(value.uses())


def _put_behind(value: ir.Value, new: ir.Value, nodes: Nodes) -> None:
    """Let ``new`` have the name and the readers of a value."""
    own = set(nodes.made)
    name, graph, producer = value.name, value.graph, value.producer()
    assert isinstance(graph, ir.Graph)
    assert producer is not None
    readers = [use for use in value.uses() if use.node not in own]
    producer.append(nodes.made)
    for use in readers:
        use.node.replace_input_with(use.idx, new)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = new
    value.name, new.name = f"{name}__right", name
    new.type, new.shape = value.type, value.shape
