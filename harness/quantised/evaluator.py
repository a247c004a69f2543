"""The exact evaluator: a graph of Q and DQ in FP64, with an engine's codes in the place of its own where it has any."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch.fx import Node

from harness import limits
from harness.quantised.codes import Grid
from harness.quantised.rounding import Rounding
from harness.reference import OnnxCall, RunGraph, TypedInterpreter
from harness.tensors import Tensors

Look = Callable[[str, torch.Tensor, Grid], None]
"""Called at every Q with its name, its input in units of the scale, and its grid."""


def quantisers(graph: RunGraph) -> tuple[str, ...]:
    """Return the names of the codes of every ``QuantizeLinear`` of a graph, bodies excepted, in dataflow order."""
    return tuple(node.name for node in graph.graph.nodes if _is_quantiser(node))


def last_results(graph: RunGraph) -> dict[str, tuple[str, ...]]:
    """Return the results of operators that read codes and that no ``QuantizeLinear`` comes after, outputs excepted.

    No code shows what they do. Each comes with the declared outputs that come from it. What a backend commonly computes
    in one kernel with the operator is followed.
    """
    before_codes: set[Node] = set()
    for node in reversed(graph.graph.nodes):
        if any(_is_quantiser(user) or user in before_codes for user in node.users):
            before_codes.add(node)
    outputs, found = set(graph.outputs.values()), dict[str, tuple[str, ...]]()
    for node in graph.graph.nodes:
        if _op(node) in ("", "Cast", "QuantizeLinear", "DequantizeLinear") or node in before_codes:
            continue
        if any(_is_dequantised(item) for item in node.all_input_nodes):
            last = node
            while len(last.users) == 1 and _op(user := next(iter(last.users))) in _SAME_KERNEL:
                last = user
            if last.name in graph.floats and last.name not in outputs:
                after = _after(last)
                found[last.name] = tuple(name for name, node in graph.outputs.items() if node in after)
    return found


def _after(node: Node) -> set[str]:
    """Return the names of the nodes that a value goes into, at any distance."""
    found, left = set[str](), [node]
    while left:
        users = [user for user in left.pop().users if user.name not in found]
        found |= {user.name for user in users}
        left += users
    return found


_SAME_KERNEL = ("Add", "Relu", "Clip")
"""What a kernel does with its sums before it writes them."""


def _op(node: Node) -> str:
    return str(node.target.node.op_type) if isinstance(node.target, OnnxCall) else ""


def _is_quantiser(node: Node) -> bool:
    return _op(node) == "QuantizeLinear"


def _is_dequantised(node: Node) -> bool:
    while _op(node) == "Cast":
        node = node.all_input_nodes[0]
    return _op(node) == "DequantizeLinear"


class Evaluator(TypedInterpreter):
    """Runs a quantised graph; between Q and DQ everything is computed in ``dtype``, FP64 for the exact evaluator."""

    def __init__(
        self,
        graph: RunGraph,
        inputs: Mapping[str, torch.Tensor],
        *,
        given: Mapping[str, torch.Tensor],
        reciprocal: bool,
        look: Look | None = None,
        rounding: Rounding | None = None,
        generator: torch.Generator | None = None,
        also: Collection[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(graph, inputs, **options)
        self.also: Tensors = dict.fromkeys(also, torch.empty(0))
        """Values inside, by name."""
        self._given, self._reciprocal, self._look = given, reciprocal, look
        self._rounding, self._generator = rounding, generator

    def run_node(self, n: Node) -> Any:
        """Run one node; FX calls this."""
        result = self._quantise(n) if _is_quantiser(n) else self._rounded(n)
        if n.name in self.also:
            self.also[n.name] = result
        return result

    def _rounded(self, n: Node) -> Any:
        """Run a node that gives no codes, and note its rounding or move it by that."""
        result = super().run_node(n)
        if self._rounding is None or n.op != "call_function":
            return result
        if self._generator is not None:
            return self._rounding.moved(n.name, result, self._generator)
        self._rounding.note(n, *self._arguments(n, torch.float64), result)
        return result

    def _quantise(self, node: Node) -> torch.Tensor:
        args, keywords = self._arguments(node, torch.float64)
        call = node.target
        assert isinstance(call, OnnxCall)
        x, scale, zero = (*args, None)[:3]
        grid = Grid.of(x, scale, zero, {**call.fixed, **keywords})
        ratio = grid.ratio(x, reciprocal=self._reciprocal)
        if self._look is not None:
            self._look(node.name, ratio, grid)
        given = self._given.get(node.name)
        return grid.codes(ratio) if given is None else given.to(self.device)


def evaluate(
    graph: RunGraph, inputs: Mapping[str, torch.Tensor], *, given: Mapping[str, torch.Tensor] | None = None,
    reciprocal: bool = False, dtype: torch.dtype = torch.float64, runner: type[Evaluator] = Evaluator, **options: Any,
) -> Tensors:  # fmt: skip
    """Return the outputs by name, computed exactly, or in ``dtype``; ``given`` are codes by the name of their Q.

    ``reciprocal`` says how a backend scales; see :class:`Arithmetic`. The other options are those of the ``runner`` and
    of the interpreter; ``also`` names values inside to return as well.
    """
    running = runner(graph, inputs, given=given or {}, reciprocal=reciprocal, dtype=dtype, **options)
    with torch.inference_mode(), limits.step("the quantised graph"):
        by_node = dict(zip(graph.result_names, running.results(), strict=True))
    return {**{name: by_node[node] for name, node in graph.outputs.items()}, **running.also}
