"""The typed graph: every value of an ONNX graph in its assigned dtype, with Casts where dtypes meet.

TensorRT networks are strongly typed: precision is a property of the graph. :func:`apply` writes an assignment into a
copy, which shares the weights.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.graph.constants import convert, count_outside, largest
from harness.graph.dtypes import FLOAT, NAMES, NUMBERS, PRECISIONS
from harness.graph.edits import FreshNames, add_initializer, insert_after, new_node
from harness.graph.ir import constant_of, copy_model, elements_of, inner_graphs
from harness.graph.node_typing import InputKind, NodeTyping, node_typing
from harness.graph.types import complete_types, is_switchable, make_cast, set_dtype_attribute
from harness.lazy import onnx_ir as ir
from harness.sentences import Sentence


@dataclass(frozen=True, kw_only=True)
class Applied:
    """A typed graph and what a reader must know about it."""

    model: ir.Model
    """The typed graph; the model it was made from is unchanged."""
    notes: tuple[str, ...]
    """Saturated constants and nodes that stayed in FP32, one sentence each."""
    counts: Mapping[str, int]
    """How many computed float values have each dtype."""


def apply(model: ir.Model, dtypes: Mapping[str, str], *, default: str) -> Applied:
    """Return a copy of the model in which every value has its assigned dtype, with Casts where dtypes meet.

    ``dtypes`` maps value names to ``float32``, ``float16`` or ``bfloat16``; values without an entry get ``default``.
    Network inputs and outputs keep their names and dtypes; integers, booleans and float64 are left alone. Constants are
    converted, and saturate at the largest finite number as PyTorch's own masks do. Raises NotJudged when the dtype of a
    value cannot be known.
    """
    typed = copy_model(model)
    complete_types(typed, needed=default != "float32" or any(dtype != "float32" for dtype in dtypes.values()))
    typer = _Typer(typed, dtypes, default)
    typer.visit_graph(typed.graph)
    typer.drop_unused()
    return Applied(model=typed, notes=typer.notes(), counts=dict(typer.counts))


class _Typer:
    """Gives the values of one graph their dtypes, node by node in graph order."""

    def __init__(self, model: ir.Model, dtypes: Mapping[str, str], default: str) -> None:
        self.graph = model.graph
        self.counts: Counter[str] = Counter()
        self._opset = model.opset_imports.get("", 1)
        self._dtypes = dtypes
        self._default = default
        self._names = FreshNames(model)
        self._natural: dict[ir.Value, int] = {}
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}
        self._kept: Counter[tuple[str, str]] = Counter()
        self._saturated: dict[tuple[str, int], list[str]] = defaultdict(list)

    def visit_graph(self, graph: ir.Graph) -> None:
        """Give the nodes of a graph or of a body their dtypes, and its outputs those that they had."""
        declared = [value.dtype for value in graph.outputs]
        for node in list(graph):
            self._visit(node)
        self._restore_outputs(graph, declared)

    def _visit(self, node: ir.Node) -> None:
        """Give one node its compute dtype: cast its inputs, set its attributes and the dtypes of its outputs."""
        if node.op_type == "Constant" and node.domain == "":
            return
        typing = node_typing(node, self._opset)
        if typing.reason or typing.has_bodies:
            self._leave(node, typing)
            return
        dtype = self._compute_dtype(node)
        if node.op_type == "CastLike" and is_switchable(node.outputs[0]):
            make_cast(node)
        for index, value in enumerate(node.inputs):
            if value is None or not is_switchable(value):
                continue
            kind = typing.input_kind(index)
            if kind is not InputKind.ANY:
                wanted = {InputKind.NATURAL: self._natural_dtype(value), InputKind.FLOAT: FLOAT}.get(kind, dtype)
                node.replace_input_with(index, self._as(value, wanted))
        for index, value in enumerate(node.outputs):
            if is_switchable(value):
                self._set_dtype(value, dtype if typing.output_takes_half(index) else FLOAT)
        if any(is_switchable(value) for value in node.outputs):
            set_dtype_attribute(node, dtype)

    def _restore_outputs(self, graph: ir.Graph, declared: Sequence[ir.DataType | None]) -> None:
        """Cast the outputs of a graph back to the dtypes they were declared in, under their own names."""
        for index, (value, dtype) in enumerate(zip(list(graph.outputs), declared, strict=True)):
            if dtype is None or value.dtype == dtype:
                continue
            name = str(value.name)
            cast = self._as(value, dtype)
            if value.graph is graph:
                value.name = self._names.fresh(f"{name}_{PRECISIONS[NAMES[int(value.dtype or 0)]]}")
                cast.name = name
            graph.outputs[index] = cast

    def drop_unused(self) -> None:
        """Remove the constants of which only converted copies are used."""
        for value in {value for value, _ in self._made if constant_of(value) is not None}:
            if value.uses() or value.is_graph_output():
                continue
            producer, graph = value.producer(), value.graph
            assert isinstance(graph, ir.Graph)
            if producer is None:
                del graph.initializers[str(value.name)]
            else:
                graph.remove(producer, safe=True)

    def notes(self) -> tuple[str, ...]:
        """Return one sentence for each kind of thing a reader must know."""
        kept = [
            Sentence("many_kept", many=_many(count, Sentence("nodes_of", op=op)), why=why)
            for (op, why), count in sorted(self._kept.items())
        ]
        saturated = [
            Sentence("many_saturated", many=_many(len(found), Sentence("a_constant")), limit=limit, found=list(found))
            for (limit, _), found in sorted(self._saturated.items())
        ]
        return (*saturated, *kept)

    def _compute_dtype(self, node: ir.Node) -> int:
        wanted = {self._assigned(value) for value in node.outputs if is_switchable(value)}
        if not wanted:
            # A comparison or an index computes in the widest dtype that it reads, so that it adds no rounding.
            inputs = [value for value in node.inputs if value is not None and is_switchable(value)]
            wanted = {int(value.dtype or 0) for value in inputs if constant_of(value) is None}
        return wanted.pop() if len(wanted) == 1 else FLOAT

    def _assigned(self, value: ir.Value) -> int:
        return NUMBERS[self._dtypes.get(str(value.name), self._default)]

    def _leave(self, node: ir.Node, typing: NodeTyping) -> None:
        """Feed a node in the dtypes of the original graph; its bodies are typed inside."""
        for index, value in enumerate(node.inputs):
            if value is not None and is_switchable(value):
                node.replace_input_with(index, self._as(value, self._natural_dtype(value)))
        for body in inner_graphs(node):
            self.visit_graph(body)
        floats = [value for value in node.outputs if is_switchable(value)]
        for value in floats:
            self._set_dtype(value, int(value.dtype or 0))
        if typing.reason and any(self._assigned(value) != value.dtype for value in floats):
            self._kept[node.op_type, typing.reason] += 1

    def _set_dtype(self, value: ir.Value, dtype: int) -> None:
        self._natural[value] = int(value.dtype or 0)
        value.type = ir.TensorType(
            ir.DataType(dtype)
        )  # setting value.dtype would change a type shared with the original
        self.counts[NAMES[dtype]] += 1

    def _natural_dtype(self, value: ir.Value) -> int:
        return self._natural.get(value, int(value.dtype or 0))

    def _as(self, value: ir.Value, dtype: int) -> ir.Value:
        """Return the value in another dtype: itself, a converted constant, or a Cast right after its producer."""
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._made:
            tensor = constant_of(value)
            made = self._cast(value, dtype) if tensor is None else self._converted(value, tensor, dtype)
            self._made[value, dtype] = made
        return self._made[value, dtype]

    def _cast(self, value: ir.Value, dtype: int) -> ir.Value:
        name = self._names.fresh(f"{value.name}_as_{PRECISIONS[NAMES[dtype]]}")
        cast = new_node("Cast", [value], name, dtype, to=dtype)
        insert_after(value.graph or self.graph, value, [cast])
        return cast.outputs[0]

    def _converted(self, value: ir.Value, tensor: ir.TensorProtocol, dtype: int) -> ir.Value:
        name = self._names.fresh(f"{value.name}_{PRECISIONS[NAMES[dtype]]}")
        if outside := count_outside(tensor, dtype):
            limit = f"{largest(dtype):.5g}"
            what = (
                f"{elements_of(tensor).item():.3g}"
                if tensor.size == 1
                else Sentence("outside_elements", outside=outside)
            )
            self._saturated[limit, dtype].append(Sentence("value_is_made_of", name=value.name, what=what))
        graph = value.graph if isinstance(value.graph, ir.Graph) else self.graph  # a body has constants of its own
        return add_initializer(graph, name, convert(tensor, dtype))


def _many(count: int, what: str) -> str:
    return Sentence("many_of", count=count, what=what)
