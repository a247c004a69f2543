"""Parts of an ONNX graph: a copy with more outputs, a region as a model of its own, and what crosses a region's border.

The given model is never edited, and copies share its weights. Functions are inlined, as in the value table, so that a
value has the same name here and there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from harness.errors import NotJudged, UsageError, unknown_name
from harness.graph.ir import copy_model, graph_values, inner_graphs, is_tensor, plain_model
from harness.graph.types import infer_types
from harness.lazy import onnx_ir as ir
from harness.sentences import Sentence


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy in which these values are outputs as well, after the declared ones and in their own dtypes.

    A name that already is an output is skipped. Raises UsageError for a name that no node computes, NotJudged for a
    value inside a control flow body or one that is no tensor of known dtype.
    """
    copy = copy_model(model)
    outputs = {str(value.name) for value in copy.graph.outputs}
    added = _computed_values(copy, [name for name in dict.fromkeys(names) if name not in outputs])
    _complete(copy, added)
    copy.graph.outputs.extend(added)
    return copy


def extract(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """Return the region that computes ``outputs`` from ``inputs`` as a model of its own.

    Its inputs and outputs are those named, in that order; the constants that it uses come along, with the nodes that
    compute them. Raises UsageError for unknown names, for no outputs, and when the outputs need a network input that is
    not among ``inputs``; NotJudged for a value inside a control flow body or one that is no tensor of known dtype.
    """
    if not outputs:
        raise UsageError("a region without outputs was asked for; name at least one value that it computes")
    copy = copy_model(model)
    entering = _variables(copy, list(dict.fromkeys(inputs)))
    leaving = _computed_values(copy, list(dict.fromkeys(outputs)))
    if both := [str(value.name) for value in leaving if value in entering]:
        raise UsageError(f"value {both[0]!r} is both an input and an output of the region; leave one of them out")
    nodes = _needed_nodes(copy.graph, entering, leaving)
    _complete(copy, [*entering, *leaving])
    _cut(copy.graph, entering, leaving, nodes)
    return copy


def boundary(model: ir.Model, names: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what enters and what leaves the region of the nodes that compute these values, in dataflow order.

    A value enters when a node of the region reads it and none computes it; constants, and what is computed from
    constants only, do not count. A value leaves when it is a network output or a node outside reads it. Raises
    UsageError for a name that no node computes, NotJudged for a value inside a control flow body.
    """
    model = plain_model(model)
    graph = model.graph
    region = {value.producer() for value in _computed_values(model, sorted(names))}
    variable = variable_values(graph)
    inside = {value for node in region if node is not None for value in node.outputs}
    read_inside: set[ir.Value] = set()
    read_outside = set(graph.outputs)
    for node in graph:
        (read_inside if node in region else read_outside).update(used_values(node))
    declared = set(graph.outputs)
    entering = [value for value in variable if value in read_inside and value not in inside]
    leaving = [
        value
        for node in graph
        for value in node.outputs
        if value in inside and value in read_outside and (value in variable or value in declared)
    ]
    return _names(entering), _names(leaving)


def order(model: ir.Model) -> list[str]:
    """Return the names of the computed values of the main graph in dataflow order.

    Values computed from constants only are left out.
    """
    return [str(value.name) for value in variable_values(plain_model(model).graph) if value.producer() is not None]


def variable_values(graph: ir.Graph) -> dict[ir.Value, None]:
    """Return the values that depend on a network input, in dataflow order, network inputs first."""
    found = {value: None for value in graph.inputs if not value.is_initializer()}
    for node in graph:
        if any(value in found for value in used_values(node)):
            found.update((value, None) for value in node.outputs if value.name)
    return found


def used_values(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return the values a node reads, each once: its inputs, then what its subgraphs capture."""
    direct = (value for value in node.inputs if value is not None)
    return tuple(dict.fromkeys([*direct, *captured_values(node)]))


def captured_values(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return the values of enclosing graphs that a node's subgraphs read, each once."""
    graphs = list(_nested(node))
    if not graphs:
        return ()
    own = {value for graph in graphs for value in graph_values(graph)}
    read = (value for graph in graphs for inner in graph for value in inner.inputs)
    return tuple(dict.fromkeys(value for value in read if value is not None and value not in own))


def _nested(node: ir.Node) -> Iterator[ir.Graph]:
    for graph in inner_graphs(node):
        yield graph
        for inner in graph:
            yield from _nested(inner)


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(str(value.name) for value in values)


def _computed_values(model: ir.Model, names: Iterable[str]) -> list[ir.Value]:
    """Return the values of the main graph with these names, all computed by nodes."""
    computed = {str(value.name): value for node in model.graph for value in node.outputs if value.name}
    given = {str(value.name): Sentence("network_input") for value in model.graph.inputs}
    given |= dict.fromkeys(map(str, model.graph.initializers), Sentence("weight_or_constant"))
    found = []
    for name in names:
        if name not in computed and name in given:
            raise UsageError(f"value {name!r} is {given[name]}, which no node computes; name a computed value")
        if name not in computed:
            raise _unknown(model, name, computed)
        found.append(computed[name])
    return found


def _variables(model: ir.Model, names: Iterable[str]) -> list[ir.Value]:
    """Return the values of the main graph with these names, network inputs or computed by nodes."""
    declared = {str(value.name): value for value in model.graph.inputs}
    return [declared[name] if name in declared else _computed_values(model, [name])[0] for name in names]


def _unknown(model: ir.Model, name: str, known: Collection[str]) -> UsageError | NotJudged:
    inner = {value.name for node in model.graph for graph in _nested(node) for value in graph_values(graph)}
    if name in inner:
        return NotJudged(Sentence("value_in_body", name=name))
    return unknown_name("value", name, known)


def _complete(model: ir.Model, values: Sequence[ir.Value]) -> None:
    """Fill in types and shapes where these values lack one; raises NotJudged when a dtype stays unknown."""
    if any(value.type is None or value.shape is None for value in values):
        infer_types(model)
    for value in values:
        if not is_tensor(value):
            what = Sentence("dtype_unknown") if value.type is None else Sentence("no_tensor_but", type=value.type)
            raise NotJudged(Sentence("value_no_end", name=value.name, what=what))


def _needed_nodes(graph: ir.Graph, entering: Sequence[ir.Value], leaving: Sequence[ir.Value]) -> set[ir.Node]:
    """Return the nodes that compute ``leaving``, walking back no further than ``entering``."""
    stops = set(entering)
    nodes: set[ir.Node] = set()
    inputs = {value for value in graph.inputs if not value.is_initializer()}
    pending = list(leaving)
    while pending:
        value = pending.pop()
        if value in stops:
            continue
        if value in inputs:
            raise UsageError(
                f"the region's outputs ({', '.join(_names(leaving))}) need network input {value.name!r}, which is not "
                f"among its inputs ({', '.join(_names(entering)) or 'none'}); add it, or a value between"
            )
        producer = value.producer()
        if producer is not None and producer not in nodes:
            nodes.add(producer)
            pending.extend(used_values(producer))
    return nodes


def _cut(graph: ir.Graph, entering: Sequence[ir.Value], leaving: Sequence[ir.Value], nodes: set[ir.Node]) -> None:
    """Reduce a graph to these nodes, in place, with network inputs in the place of ``entering``."""
    graph.outputs.clear()
    graph.inputs.clear()
    graph.inputs.extend(value if value.producer() is None else _replaced(graph, value) for value in entering)
    graph.outputs.extend(leaving)
    graph.remove([node for node in graph if node not in nodes], safe=True)
    used = {value for node in graph for value in used_values(node)}
    for name, value in list(graph.initializers.items()):
        if value not in used:
            del graph.initializers[name]


def _replaced(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return a new value with the name of a computed one, which every reader reads in its place."""
    name = str(value.name)
    new = ir.Value(name=name, shape=value.shape, type=value.type)
    value.replace_all_uses_with(new)
    taken = {other.name for other in graph_values(graph)}
    value.name = f"{name}_cut"
    while value.name in taken:
        value.name += "_"
    return new
