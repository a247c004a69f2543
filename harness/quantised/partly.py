"""A quantised graph on one case with any of its operators in floats, run after run: only what changed is computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from harness.graph import QuantisedUnit, known_floats
from harness.quantised.evaluator import Evaluator
from harness.quantised.judging import Quantised
from harness.reference import OnnxCall
from harness.tensors import Tensors

_Reads = Mapping[Node, Mapping[int, Any]]
"""What operators read in the place of some of their arguments: another node, or a tensor."""


class PartlyQuantised:
    """The exact outputs of a quantised graph on one case, with any units in floats.

    A unit in floats reads what stands before its Q. Nothing is rewritten: the interpreter reads another value. Of a run
    that was kept the next takes all values that do not come from a unit in which the two differ.
    """

    def __init__(
        self, case: Quantised, units: Mapping[str, QuantisedUnit], weights: Mapping[str, torch.Tensor] | None = None,
        *, room: int = 2**29,
    ) -> None:  # fmt: skip
        """``weights`` are the floats of weights that are in the graph as codes alone, by name.

        The values that are kept of one run hold at most ``room`` bytes; others are computed again where needed.
        """
        self._case, self._room = case, room
        self._reads = _reads_in_floats(case, units, weights or {})
        self._nodes = {node.target.node.name: node for node in self._reads if isinstance(node.target, OnnxCall)}
        self._kept: dict[frozenset[str], dict[Node, Any]] = {}

    def outputs(self, left: Collection[str], *, keep: bool = False) -> Tensors:
        """Return the outputs by name with these units in floats; ``keep`` what was computed for later runs."""
        reads = {self._nodes[name]: self._reads[self._nodes[name]] for name in left if name in self._nodes}
        needed = self._needed(reads)
        known = {node: None for node in self._case.graph.graph.nodes if node not in needed}
        known |= self._unchanged(frozenset(left), reads)
        kept = self._kept.setdefault(frozenset(left), {}) if keep else None
        return self._case.run(runner=_Partly, reads=reads, known=known, kept=kept, room=self._room)

    def _unchanged(self, left: frozenset[str], reads: _Reads) -> dict[Node, Any]:
        """Return the values of a kept run that a run with these units in floats computes alike: of the most alike."""
        found: dict[Node, Any] = {}
        for other, values in self._kept.items():
            changed = {self._nodes[name] for name in left ^ other if name in self._nodes}
            for node in self._case.graph.graph.nodes:
                if not changed.isdisjoint(inputs_of(node, reads)):
                    changed.add(node)
            alike = {node: value for node, value in values.items() if node not in changed}
            found = max(found, alike, key=len)
        return found

    def _needed(self, reads: _Reads) -> set[Node]:
        """Return the nodes that the outputs come from: a quantiser that nobody reads is not run."""
        needed: set[Node] = set()
        for node in reversed(self._case.graph.graph.nodes):
            if node.op == "output" or node in needed:
                needed |= {node, *inputs_of(node, reads)}
        return needed


class _Partly(Evaluator):
    """An evaluator in which some operators read other values than the graph says."""

    def __init__(
        self, *args: Any, reads: _Reads, known: dict[Node, Any], kept: dict[Node, Any] | None, room: int, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._reads, self._known, self._keep, self._room = reads, known, kept, room

    def arguments_of(self, node: Node) -> tuple[Any, ...]:
        """Return what a node reads."""
        other = self._reads.get(node, {})
        return tuple(other.get(index, given) for index, given in enumerate(node.args))

    def results(self) -> Any:
        """Run the graph and return what it returns, in order."""
        last: dict[Node, Node] = {}
        for node in reversed(self.graph.nodes):
            for item in inputs_of(node, self._reads) if node not in self._known else ():
                last.setdefault(item, node)
        self.garbage_collect_values, self.user_to_last_uses = True, {}
        for item, node in last.items():
            self.user_to_last_uses.setdefault(node, []).append(item)
        return self.run(initial_env=dict(self._known), enable_io_processing=False)

    def run_node(self, n: Node) -> Any:
        """Run one node; FX calls this."""
        result = super().run_node(n)
        if self._keep is not None and n.op == "call_function":
            size = sum(it.nbytes for it in tree_leaves(result) if isinstance(it, torch.Tensor))
            if size <= self._room:
                self._room -= size
                self._keep[n] = result
        return result


def inputs_of(node: Node, reads: _Reads) -> list[Node]:
    """Return the nodes that a node reads, where some operators read other values than the graph says."""
    if node not in reads:
        return node.all_input_nodes
    other = reads[node]
    given = [other.get(index, item) for index, item in enumerate(node.args)]
    return [item for item in [*given, *node.kwargs.values()] if isinstance(item, Node)]


def _reads_in_floats(
    case: Quantised, units: Mapping[str, QuantisedUnit], weights: Mapping[str, torch.Tensor]
) -> dict[Node, dict[int, Any]]:
    """Return what each unit's operator reads in floats in the place of some of its arguments."""
    by_name = {node.name: node for node in case.graph.graph.nodes}
    found: dict[Node, dict[int, Any]] = {}
    for node in case.graph.graph.nodes:
        unit = units.get(str(node.target.node.name)) if isinstance(node.target, OnnxCall) else None
        if unit is None:
            continue
        found[node] = reads = {}
        for index, before, codes in zip(unit.inputs, unit.before, unit.codes, strict=True):
            constant = case.graph.weights.get(codes)
            if before:
                reads[index] = by_name[before]
            elif constant is not None and (floats := known_floats(weights, codes, constant.shape)) is not None:
                reads[index] = floats.to(case.options.get("device"), torch.float64)
    return found
