"""What an ONNX graph must be before anything computes it: every value computed once, before it is read."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from harness.errors import NotJudged, UsageError
from harness.graph.ir import constant_of, inner_graphs
from harness.graph.values import Value
from harness.lazy import onnx
from harness.lazy import onnx_ir as ir
from harness.memory import available_bytes, size_words
from harness.sentences import Sentence

_TYPES = ("to", "dtype", "output_dtype")
"""Attributes that name an element type."""
MOST_NODES = 10**6
"""Once functions are inlined; the largest models that were exported have some ten thousand."""


def check_graph(model: ir.Model, path: Path) -> None:
    """Bring the nodes into the order of the data where a file has them in another.

    Raises UsageError for a cycle, a value that nothing computes or that two nodes compute, a domain without a version,
    and a node that has not the inputs, outputs and attributes of its operator.
    """
    what = f"{path} is not a valid ONNX model"
    _check_opsets(model, what)
    _check_functions(model, what)
    if not model.graph.outputs:
        raise UsageError(f"{what}: it declares no output, so there is nothing to compare; export it again")
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        _check_text(graph, what)
        _check_inputs_exist(graph, what)
        for node in graph:
            _check_domain(model, node, what)
            if function := model.functions.get(node.op_identifier()):
                _check_call(node, function, what)
            else:
                _check_node(node, model.opset_imports.get(node.domain, 0), what)
        _sort(graph, what)


def _check_opsets(model: ir.Model, what: str) -> None:
    for domain, version in model.opset_imports.items():
        if not 1 <= version < 2**31:
            raise UsageError(f"{what}: it imports opset {version} of domain {domain or 'ai.onnx'!r}; export it again")
    for function in model.functions.values():
        for domain, version in function.opset_imports.items():
            if version != (known := model.opset_imports.get(domain, version)):
                imports = f"imports opset {version} of domain {domain or 'ai.onnx'!r}, and the model opset {known}"
                raise UsageError(f"{what}: function {function.name!r} {imports}; export it again")


def _check_functions(model: ir.Model, what: str) -> None:
    """Refuse functions that call themselves, and those that a small file makes more nodes of than anything computes."""
    counts: dict[ir.OperatorIdentifier, int] = {}
    calling: list[ir.OperatorIdentifier] = []

    def count(nodes: Iterable[ir.Node]) -> int:
        return sum(count_of(node.op_identifier()) for node in nodes)

    def count_of(name: ir.OperatorIdentifier) -> int:
        if name not in model.functions:
            return 1
        if name in calling:
            raise UsageError(f"{what}: function {name[1]!r} calls itself, so it has no end; export it again")
        if name not in counts:
            calling.append(name)
            counts[name] = count(model.functions[name].all_nodes())
            calling.pop()
        return counts[name]

    try:
        found = count(model.graph.all_nodes())
    except RecursionError:
        raise UsageError(f"{what}: its functions call each other {len(calling)} deep; export it again") from None
    if found > MOST_NODES:
        raise UsageError(f"{what}: its functions make {found:,} nodes of it, at most {MOST_NODES:,} are taken")


def _check_text(graph: ir.Graph, what: str) -> None:
    for node in graph:
        values = [value.name for value in (*node.inputs, *node.outputs) if value is not None]
        noted = (*node.metadata_props, *node.metadata_props.values())
        for text in (node.op_type, node.domain, node.name, node.doc_string, *node.attributes, *values, *noted):
            if isinstance(text, bytes):  # as protobuf gives what is no UTF-8
                raise UsageError(f"{what}: the name {text!r} is no UTF-8; copy or export it again")


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


def _check_domain(model: ir.Model, node: ir.Node, what: str) -> None:
    if node.domain not in model.opset_imports and node.op_identifier() not in model.functions:
        raise UsageError(
            f"{what}: {_named(node)} is of domain {node.domain or 'ai.onnx'!r}, and the file imports no opset of it; "
            "export it again"
        )


def _check_call(node: ir.Node, function: ir.Function, what: str) -> None:
    for kind, given, most in (
        ("inputs", len(node.inputs), len(function.inputs)),
        ("outputs", len(node.outputs), len(function.outputs)),
    ):
        if given > most:
            takes = f"has {given} {kind}, and function {function.name!r} {most}"
            raise UsageError(f"{what}: {_named(node)} {takes}; export it again")
    node.resize_outputs(len(function.outputs))  # those left out, which onnx_ir does not inline


def _check_node(node: ir.Node, version: int, what: str) -> None:
    """Hold a node against its operator's definition; one that ONNX does not define is left to who knows it."""
    schema = _schema(node.op_type, version, node.domain)
    if schema is None:
        return
    for name, attribute in node.attributes.items():
        known = schema.attributes.get(name)
        takes = "" if known is None else str(known.type).rpartition(".")[2]
        if takes and not attribute.is_ref() and attribute.type.name != takes:
            kinds = f"{attribute.type.name}, and {node.op_type} takes {takes}"
            raise UsageError(f"{what}: attribute {name!r} of {_named(node)} is {kinds}; export it again")
        if name in _TYPES and not attribute.is_ref() and attribute.value not in list(ir.DataType):
            raise UsageError(f"{what}: attribute {name!r} of {_named(node)} is {attribute.value}, which is no type")
    for name, known in schema.attributes.items():
        if known.required and name not in node.attributes:
            raise UsageError(f"{what}: {_named(node)} has no attribute {name!r}; export it again")
    for kind, given, least, most in (
        ("inputs", len(node.inputs), schema.min_input, schema.max_input),
        ("outputs", len(node.outputs), schema.min_output, schema.max_output),
    ):
        if not least <= given <= most:
            raise UsageError(
                f"{what}: {_named(node)} has {given} {kind}, and {node.op_type} from {least} to {most}; export it again"
            )
    for formal, value in zip(schema.inputs, node.inputs, strict=False):
        if value is None and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
            raise UsageError(f"{what}: {_named(node)} has no input {formal.name!r}; export it again")


@functools.cache
def _schema(op_type: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


def _sort(graph: ir.Graph, what: str) -> None:
    seen: set[ir.Node] = set()
    for node in graph:
        if any((maker := read.producer()) and maker.graph is graph and maker not in seen for read in _reads(node)):
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


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, and what the nodes in its bodies read."""
    yield from (value for value in node.inputs if value is not None)
    for graph in inner_graphs(node):
        for inside in graph:
            yield from _reads(inside)
        yield from graph.outputs


def check_ranges(model: ir.Model, path: Path) -> None:
    """Raise NotJudged for a Range of constants that memory does not hold: ONNX's shape inference computes it."""
    for node in (node for graph in model.graphs() for node in graph if node.op_type == "Range" and not node.domain):
        numbers = [constant_of(value) for value in node.inputs if value is not None]
        if len(numbers) != 3 or any(it is None or it.size != 1 for it in numbers):
            continue
        start, end, step = (float(it.numpy().reshape(())) for it in numbers if it is not None)
        count = (end - start) / step if step else 0.0
        if count * 8 > (free := available_bytes()):
            raise NotJudged(
                Sentence("counts_numbers", path=path, named=_named(node), count=count, free=size_words(free))
            )


def check_sizes(values: Mapping[str, Value], path: Path) -> None:
    """Raise NotJudged for a value of the table whose shape alone says that there is no memory for it."""
    free = available_bytes()
    for value in values.values():
        known = [size for size in value.shape or () if isinstance(size, int)]
        needed = math.prod(known) * getattr(getattr(torch, value.dtype, None), "itemsize", 1)
        if needed > free and len(known) == len(value.shape or ()):
            raise NotJudged(
                Sentence(
                    "value_takes",
                    path=path,
                    name=value.name,
                    op=value.op.removeprefix("onnx."),
                    known=known,
                    needed=size_words(needed),
                    free=size_words(free),
                )
            )


def _named(node: ir.Node) -> str:
    """Return a node by its name, or by what it computes where it has none."""
    made = ", ".join(str(value.name) for value in node.outputs)
    return f"node {node.name!r} ({node.op_type})" if node.name else f"the {node.op_type} that computes {made}"
