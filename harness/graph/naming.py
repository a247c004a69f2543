"""One name per value: what an exporter calls a value is what the traced program calls it, and inputs and outputs go by
their paths, which no other value shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch.export import ExportedProgram

from harness.graph.folding import computing_node
from harness.graph.ir import graph_values
from harness.lazy import onnx_ir


def output_nodes(program: ExportedProgram) -> list[str]:
    """Return the nodes that compute the outputs, in their order."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    specs = program.graph_signature.output_specs
    return [node.name for node, spec in zip(output.args[0], specs, strict=True) if spec.kind.name == "USER_OUTPUT"]


def name_parts(program: ExportedProgram, model: onnx_ir.Model) -> None:
    """Give the parts of a split the names of their FX nodes, as the exporter does for all operators but this one.

    Its optimiser folds the sequence that a split returns into a Split whose outputs are called ``SPLIT_split_INDEX``.
    """
    items = (node for node in program.graph.nodes if computing_node(node) is not node)
    parts = {f"{computing_node(node).name}_split_{node.args[1]}": node.name for node in items}
    for value in (value for node in model.graph if node.op_type == "Split" for value in node.outputs):
        value.name = parts.get(str(value.name), value.name)


def name_ends(program: ExportedProgram, model: onnx_ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Call inputs and outputs by these names, and whatever else is called so inside by another one.

    In the traced program the node that computes an output keeps its own name.
    """
    taken = {*inputs, *outputs}
    computed = dict(zip(outputs, output_nodes(program), strict=True))
    given = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    ends = [*model.graph.inputs, *model.graph.outputs]
    ids = {id(end) for end in ends}
    inner = [value for value in _values(model) if id(value) not in ids]
    nodes = [node for node in program.graph.nodes if node.op != "output"]
    known = taken | {node.name for node in nodes} | {str(value.name) for value in inner}

    def another(name: str) -> str:
        while name in known:
            name += "_value"
        known.add(name)
        return name

    called = dict(zip(given, inputs, strict=True))
    inside = {
        node.name: another(node.name)
        for node in nodes
        if node.name in taken and node.name not in called and computed.get(node.name) != node.name
    }
    _rename(program, inside | called)
    for value in inner:
        if value.name in taken:
            value.name = inside.get(value.name) or another(value.name)
    for value, name in zip(ends, (*inputs, *outputs), strict=True):
        value.name = name


def _values(model: onnx_ir.Model) -> Iterator[onnx_ir.Value]:
    """Yield the values of all graphs, weights and those of bodies among them."""
    for graph in model.graphs():
        yield from graph_values(graph)


def _rename(program: ExportedProgram, names: Mapping[str, str]) -> None:
    for node in program.graph.nodes:
        node.name = names.get(node.name, node.name)
    for spec in (*program.graph_signature.input_specs, *program.graph_signature.output_specs):
        if hasattr(spec.arg, "name"):
            spec.arg.name = names.get(spec.arg.name, spec.arg.name)
