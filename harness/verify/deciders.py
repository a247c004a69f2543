"""Where the values of an output are decided: the nodes of the graph at which numbers become indices, bits or codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.graph import constant_of, copy_model, elements_of, infer_types, plain_model, used_values, variable_values
from harness.lazy import onnx_ir as ir

COMPARISONS = frozenset({"Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"})
ROUNDINGS = frozenset({"Round", "Floor", "Ceil", "Sign", "Cast", "QuantizeLinear"})
BESTS = frozenset({"ArgMax", "ArgMin"})
MOVES = frozenset(
    {"Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "GatherElements",
     "GatherND", "Concat", "Expand", "Tile", "Split", "Pad"}
)  # fmt: skip
"""Operators whose results are elements of what they are given, moved."""
_KEEP_INTEGERS = MOVES | {"Clip", "Relu", "Min", "Max", "Abs", "Neg", "Add", "Sub", "Mul", "Where"}
ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Min", "Max", "Pow", "Sqrt", "Reciprocal", "Exp", "Log",
     "Sigmoid", "Tanh", "Relu", "Clip", "Where", "Cast", "CastLike", "Not", "And", "Or", "Xor"}
) | COMPARISONS | ROUNDINGS  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Decider:
    """A node that decides; its result, and what it reads."""

    node: ir.Node
    name: str
    """The value that it decides."""

    @property
    def op(self) -> str:
        """Its operator."""
        return self.node.op_type

    @property
    def reads(self) -> tuple[str, ...]:
        """What it decides by: for all but comparisons and quantisation its first input alone."""
        several = self.op in COMPARISONS or self.op == "QuantizeLinear"
        read = self.node.inputs if several else self.node.inputs[:1]
        return tuple(str(value.name) for value in read if value is not None)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the values of one output come from."""

    deciders: tuple[Decider, ...]
    """The last decision on every way to the output, in dataflow order."""
    unknown: tuple[str, ...]
    """Operators that read floats and whose decisions have no margin here (``NonMaxSuppression``, ``Loop``)."""

    @property
    def reads(self) -> tuple[str, ...]:
        """What its deciders read."""
        return tuple(dict.fromkeys(name for decider in self.deciders for name in decider.reads))


def readable(model: ir.Model) -> ir.Model:
    """Return a model with functions inlined, and with the dtype of every value that ONNX can infer; it is only read."""
    plain = plain_model(model)
    if any(value.dtype is None for node in plain.graph for value in node.outputs):
        plain = copy_model(model)
        infer_types(plain)
    return plain


def is_float(value: ir.Value) -> bool:
    """Return whether a value holds floats; one of unknown dtype may."""
    return value.dtype is None or value.dtype.is_floating_point()


def value_of(model: ir.Model, name: str) -> ir.Value:
    """Return a value of the main graph by its name."""
    return next(value for value in (*model.graph.outputs, *_values(model)) if value.name == name)


def origin_of(model: ir.Model, name: str) -> Origin:
    """Return where a value of integers, booleans or codes is decided."""
    places = {node: place for place, node in enumerate(model.graph)}
    found: dict[ir.Node, Decider] = {}
    unknown: dict[str, None] = {}
    start = value_of(model, name)
    pending, seen = [start], {start}
    while pending:
        value = pending.pop()
        node = value.producer()
        if node is None or constant_of(value) is not None or node.op_type in ("Shape", "Size"):
            continue
        if _decides(node, value):
            found[node] = Decider(node=node, name=str(value.name))
        elif not is_float(value) and node.op_type not in COMPARISONS and _reads_floats(node):
            unknown[node.op_type] = None
        else:
            new = [read for read in used_values(node) if read not in seen]
            seen.update(new)
            pending += new
    return Origin(deciders=tuple(sorted(found.values(), key=lambda it: places[it.node])), unknown=tuple(unknown))


def is_decided(model: ir.Model, name: str) -> bool:
    """Return whether floats of the main graph are decisions: whole by the way they are computed from one."""
    value = value_of(model, name)
    return _holds_integers(value) and bool(origin_of(model, name).deciders)


def _decides(node: ir.Node, value: ir.Value) -> bool:
    """Return whether a node makes a decision of floats that are no decisions themselves."""
    if node.domain != "":
        return False
    data = [read for read in node.inputs if read is not None]
    if node.op_type in COMPARISONS:  # of whole numbers with a constant: what made them whole decides
        return any(is_float(read) and constant_of(read) is None and not _holds_integers(read) for read in data)
    known = ROUNDINGS | BESTS if value is node.outputs[0] else {"TopK"}
    if node.op_type == "Cast" and is_float(value):
        return False
    return node.op_type in known and is_float(data[0]) and not _holds_integers(data[0])


def _reads_floats(node: ir.Node) -> bool:
    return any(is_float(read) and not _holds_integers(read) for read in used_values(node))


def _holds_integers(value: ir.Value) -> bool:
    """Return whether floats are whole numbers by the way they are computed, so that rounding them decides nothing."""
    pending, seen = [value], {value}
    while pending:
        value = pending.pop()
        node, constant = value.producer(), constant_of(value)
        if not is_float(value):
            continue
        if constant is not None:
            array = np.asarray(elements_of(constant), dtype=np.float64)
            if not np.array_equal(array, np.trunc(array)):
                return False
        elif node is None:
            return False
        elif node.op_type in ("Round", "Floor", "Ceil", "Sign"):
            continue
        elif node.op_type in _KEEP_INTEGERS or node.op_type in ("Cast", "CastLike"):
            new = [read for read in node.inputs if read is not None and read not in seen]
            seen.update(new)
            pending += new
        else:
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class Cone:
    """The part of a graph that computes some outputs from decided values."""

    entering: tuple[str, ...]
    """What its nodes read and none of them computes, beside the decided values; in dataflow order."""
    outputs: tuple[str, ...]
    """The outputs that depend on a decided value."""
    ops: frozenset[str]
    """Its operators."""


def cone_of(model: ir.Model, decided: Iterable[str], outputs: Iterable[str]) -> Cone:
    """Return the part of a graph between values, by name, and those of these outputs that depend on them."""
    given = {value for value in _values(model) if value.name in set(decided)}
    reached: set[ir.Value] = set(given)
    for node in model.graph:
        if any(read in reached for read in used_values(node)):
            reached.update(value for value in node.outputs if value.name)
    names, variable = set(outputs), variable_values(model.graph)
    wanted = list(dict.fromkeys(value for value in _values(model) if value.name in names and value in reached))
    inside: set[ir.Node] = set()
    entering: set[ir.Value] = set()
    pending = list(wanted)
    while pending:
        value = pending.pop()
        producer = value.producer()
        if value in given or value not in variable:
            continue
        if producer is None or value not in reached:
            entering.add(value)
        elif producer not in inside:
            inside.add(producer)
            pending += used_values(producer)
    return Cone(
        entering=tuple(str(value.name) for value in _values(model) if value in entering),
        outputs=tuple(str(value.name) for value in wanted),
        ops=frozenset(node.op_type for node in inside),
    )


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph:
        yield from node.outputs
