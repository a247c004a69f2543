"""What an ONNX graph must be before anything computes it: every value computed once, before it is read."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from harness.errors import UsageError


def check_graph(model: ir.Model, path: Path) -> None:
    """Bring the nodes into the order of the data where a file has them in another.

    Raises UsageError for a cycle, a value that nothing computes or that two nodes compute, and a domain without a
    version.
    """
    what = f"{path} is not a valid ONNX model"
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        _check_inputs_exist(graph, what)
        _check_domains(model, graph, what)
        _sort(graph, what)


def _check_inputs_exist(graph: ir.Graph, what: str) -> None:
    made: set[str] = set()
    for node in graph:
        for value in node.outputs:
            if value.name and value.name in made:
                raise UsageError(f"{what}: two nodes compute {value.name!r}; export it again")
            made.add(value.name or "")
        for read in node.inputs:
            if read is None or read.producer() or read.is_graph_input() or read.is_initializer():
                continue
            raise UsageError(f"{what}: {_named(node)} uses {read.name!r}, which nothing computes; export it again")
    for value in graph.outputs:
        if not (value.producer() or value.is_graph_input() or value.is_initializer()):
            raise UsageError(
                f"{what}: nothing in graph {graph.name!r} computes its output {value.name!r}; where it is a value of "
                "the graph around it, pass it through an Identity"
            )


def _check_domains(model: ir.Model, graph: ir.Graph, what: str) -> None:
    for node in graph:
        if node.domain not in model.opset_imports and node.op_identifier() not in model.functions:
            raise UsageError(
                f"{what}: {_named(node)} is of domain {node.domain or 'ai.onnx'!r}, and the file "
                "imports no opset of it; export it again"
            )


def _sort(graph: ir.Graph, what: str) -> None:
    seen: set[ir.Node] = set()
    for node in graph:
        if any(
            read and (maker := read.producer()) and maker.graph is graph and maker not in seen for read in node.inputs
        ):
            break
        seen.add(node)
    else:
        return
    try:
        graph.sort()
    except ValueError as error:
        loop = next(node for node in graph if node not in seen)
        raise UsageError(
            f"{what}: {_named(loop)} needs its own result: the graph has a cycle; export it again"
        ) from error


def _named(node: ir.Node) -> str:
    """Return a node by its name, or by what it computes where it has none."""
    made = ", ".join(str(value.name) for value in node.outputs)
    return f"node {node.name!r} ({node.op_type})" if node.name else f"the {node.op_type} that computes {made}"
