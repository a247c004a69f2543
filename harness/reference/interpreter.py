"""Run a subject's graph in PyTorch, op by op, with a dtype per value: the reference, the truth and the floor.

The reference is FP32 with TF32 off, the truth FP64, the floor the precision plan of the engine. All three run the same
graph that the engine is built from, so a difference is the engine's and not the model's. An exported module and an ONNX
file are run by the same code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.fx import Interpreter, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves, tree_map

from harness import limits
from harness.errors import NoMemory
from harness.graph import InputKind
from harness.memory import available_bytes, size_words
from harness.pytorch import tf32_allowed
from harness.reference.fake_quantisation import FAKE_QUANTISATION
from harness.reference.kept_run import KeptRun
from harness.reference.onnx_calls import OnnxCall
from harness.reference.products import is_product
from harness.reference.run_graph import FLOATS, RunGraph, SourceKind, branch_run_graph
from harness.sentences import Sentence
from harness.tensors import Tensors

CANNOT_RUN = (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError)
"""What PyTorch raises where an operation cannot take what it is given."""
LARGE = 2**28
"""Elements from which on a value is held against the memory that is free."""
_LEAVES = (torch.Tensor, int, float, str, torch.dtype, torch.device)
_HALVES = (torch.float16, torch.bfloat16)
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


@dataclass
class RunNotes:
    """What a typed run had to do beyond running the ops."""

    emulated: set[str] = dataclasses.field(default_factory=set)
    """Ops without a kernel in their dtype: computed in FP32 on rounded inputs, and rounded."""
    elsewhere: set[str] = dataclasses.field(default_factory=set)
    """ONNX operators that PyTorch has not: ONNX Runtime computed them."""
    saturated: set[str] = dataclasses.field(default_factory=set)
    """Values with a constant outside their format, which became the format's largest finite value."""

    def lines(self) -> tuple[str, ...]:
        """Return the notes as sentences."""
        lines = []
        if self.emulated:
            lines.append(Sentence("floor_emulates", emulated=sorted(self.emulated)))
        if self.elsewhere:
            names = ", ".join(sorted(self.elsewhere))
            lines.append(Sentence("only_ort_computes", names=names))
        if self.saturated:
            lines.append(Sentence("floor_saturates", count=len(self.saturated)))
        return tuple(lines)


def run_graph(
    graph: RunGraph,
    inputs: Mapping[str, torch.Tensor],
    *,
    dtype: torch.dtype,
    device: torch.device | None = None,
    dtypes: Mapping[str, torch.dtype] | None = None,
    allow_tf32: bool = False,
    weights: Mapping[str, torch.Tensor] | None = None,
    on_value: Callable[[str, torch.Tensor], None] | None = None,
    notes: RunNotes | None = None,
    saturate: torch.dtype | None = None,
    kept: KeptRun | None = None,
) -> Tensors:
    """Run a graph with every FP32 value in ``dtype``, or as ``dtypes`` says by name; return outputs by declared name.

    A value is freed after its last use; ``on_value`` sees each one as it is made. Outputs have the dtype they were
    computed in. The first input decides the device, where none is given; ``weights`` that are there already need not be
    copied. ``saturate`` limits constants to the range of that format, whatever is computed in.
    ``kept`` has the values of the first run that it is given to: another on the same inputs in the same ``dtype`` goes
    on from where its ``dtypes`` differ, and notes what it runs itself.
    """
    runner = TypedInterpreter(
        graph, inputs, dtype=dtype, device=device, dtypes=dtypes, weights=weights, on_value=on_value, notes=notes
    )
    runner.saturate, runner.kept = saturate, kept
    with torch.inference_mode(), tf32_allowed(allow_tf32), limits.step(f"the graph in PyTorch {dtype}"):
        by_node = dict(zip(graph.result_names, runner.results(), strict=True))
    return {name: by_node[node] for name, node in graph.outputs.items()}


class TypedInterpreter(Interpreter):
    """Runs each op in the dtype its value is assigned; values that are not FP32 in the graph keep theirs."""

    def __init__(
        self,
        graph: RunGraph,
        inputs: Mapping[str, Any],
        *,
        dtype: torch.dtype,
        device: torch.device | None = None,
        dtypes: Mapping[str, torch.dtype] | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
        on_value: Callable[[str, torch.Tensor], None] | None = None,
        notes: RunNotes | None = None,
    ) -> None:
        super().__init__(graph.module, garbage_collect_values=False, graph=graph.graph)
        self.run_graph, self.inputs = graph, inputs
        self.dtype, self.dtypes = dtype, dtypes or {}
        self.device = device or next((it.device for it in tree_leaves(dict(inputs))), torch.device("cpu"))
        self.weights = weights or {}
        self.on_value, self.notes = on_value, RunNotes() if notes is None else notes
        self.extra_traceback = False
        self.saturate: torch.dtype | None = None
        self.kept: KeptRun | None = None

    def results(self) -> Sequence[Any]:
        """Run the graph and return what it returns, in order."""
        self.garbage_collect_values, self.user_to_last_uses = True, self.run_graph.last_uses
        known: dict[Node, Any] = {}
        if self.kept is not None and not self.kept.is_filling:
            known = self.kept.before_first_other({node: self.dtype_of(node) for node in self.graph.nodes})
        results: Sequence[Any] = self.run(initial_env=known, enable_io_processing=False)
        if self.kept is not None:
            self.kept.is_filling = False
        return results

    def run_node(self, n: Node) -> Any:
        """Run one node; FX calls this."""
        if n.op == "placeholder":
            return self._placeholder(n)
        if n.op != "call_function":
            return super().run_node(n)
        result = self._call(n, self.dtype_of(n))
        if isinstance(result, torch.Tensor) and result.numel() > LARGE:
            _require_room(n.name, result)
        if self.saturate is not None and n.name in self.run_graph.computed_constants:
            result = tree_map(self._overflown, result)
        if self.kept is not None and self.kept.is_filling:
            self.kept.add(n, result, self.dtype_of(n))
        if self.on_value is not None and isinstance(result, torch.Tensor):
            self.on_value(n.name, result)
        return result

    def dtype_of(self, node: Node) -> torch.dtype | None:
        """Return the dtype this node computes in; None for a node whose results are not FP32 in the graph."""
        if node.name not in self.run_graph.floats:
            return None
        if node.name in self.run_graph.exact:
            return self._exact
        if isinstance(node.target, OnnxCall):
            wanted = {self._assigned(str(value.name)) for value in node.target.node.outputs if value.name}
            return wanted.pop() if len(wanted) == 1 else self._exact
        return self._assigned(node.name)

    @property
    def _exact(self) -> torch.dtype:
        """The dtype of what no plan rounds."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def _assigned(self, name: str) -> torch.dtype:
        return self.dtypes.get(name, self.dtype)

    def _placeholder(self, node: Node) -> Any:
        source = self.run_graph.sources[node.name]
        if source.kind is SourceKind.INPUT:
            return self._to_device(self.inputs[source.name])
        kept = self.weights.get(source.name)
        return self._to_device(self.run_graph.weights[source.name] if kept is None else kept)

    def _to_device(self, value: Any) -> Any:
        return mapped(lambda it: it.to(self.device) if isinstance(it, torch.Tensor) else it, value)

    def _call(self, node: Node, wanted: torch.dtype | None) -> Any:
        reads = wanted or self._highest(node)
        args, kwargs = self._arguments(node, reads)
        if reads is torch.float16 and self.device.type == "cpu" and is_product(node):
            args, kwargs = tree_map(partial(cast, dtype=torch.float32), (args, kwargs))
        try:
            result = self._run(node, args, kwargs)
        except NotImplementedError:  # what PyTorch's dispatch raises for a dtype that a kernel has not
            if reads not in _HALVES:
                raise
            self.notes.emulated.add(str(node.target))
            exact = tree_map(lambda value: _retyped(value, reads, torch.float32), (args, kwargs))
            result = self._run(node, *exact)
        return result if wanted is None else mapped(lambda value: cast(value, wanted), result)

    def arguments_of(self, node: Node) -> tuple[Any, ...]:
        """Return what a node reads, as the graph says."""
        return node.args

    def _arguments(self, node: Node, reads: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a node's arguments in the dtypes that it reads them in."""
        target = node.target
        if target in _CONTROL_FLOW:
            return self.fetch_args_kwargs_from_env(node)
        if isinstance(target, OnnxCall):
            natural = torch.float64 if reads == torch.float64 else self._exact  # doubles of the file stay doubles
            kinds = {InputKind.COMPUTE: reads, InputKind.ANY: None}
            args = tuple(
                self._argument(node, item, kinds.get(target.input_kind(index), natural))
                for index, item in enumerate(self.arguments_of(node))
            )
        else:
            args = tuple(self._argument(node, item, reads) for item in self.arguments_of(node))
        return args, {name: self._argument(node, item, reads) for name, item in node.kwargs.items()}

    def _argument(self, node: Node, item: Any, reads: torch.dtype | None) -> Any:
        if isinstance(item, Node):
            loaded = self._read(node, item, reads)
        else:
            loaded = map_arg(item, lambda arg: self._read(node, arg, reads))
        return loaded if reads is None else mapped(lambda value: self._number(node, value, reads), loaded)

    def _read(self, reader: Node, node: Node, reads: torch.dtype | None) -> Any:
        """Return a value as a node reads it."""
        value = self.env[node]
        if reads is None:
            return value
        low = self.saturate or reads
        if low in _HALVES and self._is_weight(node) and isinstance(value, torch.Tensor) and value.dtype in FLOATS:
            return self._saturated(reader, node, value, low).to(reads)
        return mapped(lambda it: cast(it, reads), value)

    def _is_weight(self, node: Node) -> bool:
        return node.op == "placeholder" and self.run_graph.sources[node.name].kind is SourceKind.WEIGHT

    def _saturated(self, reader: Node, weight: Node, value: torch.Tensor, low: torch.dtype) -> torch.Tensor:
        """Return a constant within the range of a format, as the graph of an engine holds it: finite stays finite."""
        limit = torch.finfo(low).max
        if self.run_graph.largest(weight, value) <= limit:
            return value
        self.notes.saturated.add(reader.name)
        return torch.where(value.isfinite(), value.clamp(-limit, limit), value)

    def _overflown(self, value: Any) -> Any:
        """Return a number that was computed from constants as a format holds it: nothing saturates it."""
        assert self.saturate is not None
        if not isinstance(value, torch.Tensor) or value.dtype not in FLOATS:
            return value
        return torch.where(value.abs() > torch.finfo(self.saturate).max, value.sign() * torch.inf, value)

    def _number(self, node: Node, value: Any, reads: torch.dtype) -> Any:
        """Return an argument that is no tensor: a dtype of the precision, a number that it holds, this device."""
        if isinstance(value, torch.dtype):
            return reads if value in FLOATS else value
        if isinstance(value, torch.device):
            return self.device
        low = self.saturate or reads
        if isinstance(value, float) and low in _HALVES:
            # What PyTorch itself writes when the model is in this precision: finfo(dtype).min, not -inf.
            limit = torch.finfo(low).max
            if limit < abs(value) < float("inf"):
                self.notes.saturated.add(node.name)
                return limit if value > 0 else -limit
        return value

    def _highest(self, node: Node) -> torch.dtype:
        """Return the precision of a comparison, an index or a shape: the highest of what it reads."""
        given = [item for item in node.all_input_nodes if not self._is_weight(item)]
        present = self._dtypes_of(given) or self._dtypes_of(node.all_input_nodes)
        for dtype in (torch.float64, torch.float32):
            if dtype in present:
                return dtype
        # FP16 and BF16 hold values the other cannot, so their common precision is FP32.
        return torch.float32 if set(_HALVES) <= present else next(iter(present), self.dtype)

    def _dtypes_of(self, nodes: Sequence[Node]) -> set[torch.dtype]:
        """Return the float dtypes among the results of nodes."""
        values = (value for node in nodes for value in tree_leaves(self.env[node]))
        return {it.dtype for it in values if isinstance(it, torch.Tensor)} & {*FLOATS, torch.float64}

    def _run(self, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        target: Any = node.target
        if isinstance(target, OnnxCall):
            double = self.dtype == torch.float64
            return target(args, kwargs, run_body=self._run_body, double=double, elsewhere=self.notes.elsewhere)
        if target in _CONTROL_FLOW:
            return _CONTROL_FLOW[target](self, *args)
        target = FAKE_QUANTISATION.get(target, target)
        # A kernel of another device or dtype may lay its result out differently than the traced one did, and a view of
        # it may then not exist; reshape is the same mathematics.
        return torch.ops.aten.reshape.default(*args) if target in _VIEWS else target(*args, **kwargs)

    def _run_body(self, graph: RunGraph, values: Mapping[str, Any]) -> Sequence[Any]:
        """Run the body of a control flow node in the same precision."""
        runner = TypedInterpreter(
            graph, values, dtype=self.dtype, device=self.device, dtypes=self.dtypes, on_value=self.on_value,
            notes=self.notes,
        )  # fmt: skip
        runner.saturate = self.saturate
        return runner.results()

    def _run_traced(self, module: torch.fx.GraphModule, operands: Sequence[Any]) -> tuple[Any, ...]:
        graph = branch_run_graph(module)
        results = self._run_body(graph, dict(zip(graph.sources, operands, strict=True)))
        return tuple(results) if isinstance(results, (tuple, list)) else (results,)  # a condition gives one alone

    def _cond(self, condition: Any, then: Any, other: Any, operands: Sequence[Any] = ()) -> tuple[Any, ...]:
        return self._run_traced(then if bool(condition) else other, operands)

    def _while_loop(self, condition: Any, body: Any, carried: Sequence[Any], fixed: Sequence[Any] = ()) -> Any:
        values = tuple(carried)
        while bool(self._run_traced(condition, (*values, *fixed))[0]):
            values = self._run_traced(body, (*values, *fixed))
        return values


_CONTROL_FLOW: Mapping[Any, Callable[..., Any]] = {
    torch.ops.higher_order.cond: TypedInterpreter._cond,
    torch.ops.higher_order.while_loop: TypedInterpreter._while_loop,
}


def _require_room(name: str, value: torch.Tensor) -> None:
    """Raise NoMemory for a value that only a view of little holds: who computes it, or from it, needs it whole."""
    needed, free = value.numel() * value.itemsize, available_bytes()
    if value.device.type == "cpu" and needed > free + value.untyped_storage().nbytes():
        shape = list(value.shape)
        raise NoMemory(
            Sentence("value_takes_here", name=name, shape=shape, needed=size_words(needed), free=size_words(free))
        )


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return what PyTorch's ``tree_map`` does, which takes 15 times as long for one tensor or number."""
    if value is None or isinstance(value, _LEAVES):
        return change(value)
    return tree_map(change, value)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast a tensor of the graph's working precision; integers, booleans and everything else stay."""
    if isinstance(value, torch.Tensor) and (value.dtype in FLOATS or value.dtype is torch.float64):
        return value.to(dtype)
    return value


def _retyped(value: Any, low: torch.dtype, dtype: torch.dtype) -> Any:
    return dtype if value is low else cast(value, dtype)
