"""Run a program step by step, on demand, with an engine's own values in the place of computed ones.

An evaluator is one run of the program in one precision. The reference evaluator computes everything itself: what an
engine's value is away from it has accumulated on the way. A replay evaluator goes on from the engine's own values: what
a value is away from it was made since the last of them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import torch
from torch.fx import Node

from harness import limits
from harness.compare import distance
from harness.errors import EngineFailed
from harness.pytorch import tf32_allowed
from harness.reference.helper_values import HelperValues, nodes_between
from harness.reference.interpreter import RunNotes, TypedInterpreter, cast
from harness.reference.run_graph import RunGraph
from harness.sentences import Sentence
from harness.tensors import Tensors

FAITHFUL = 2.0**-8
"""An exporter that computes a value by parts and is farther from PyTorch than this, on the same inputs, is wrong there;
rounding in FP32 and cancellation stay below."""


class Evaluator(Protocol):
    """One run of a program, computed as far as values are asked for."""

    def value(self, name: str) -> torch.Tensor | None:
        """Return a value, computing what it needs; None when it is no single tensor or has been freed."""

    def operands(self, name: str) -> Tensors:
        """Return what a value is computed from, as far as it is there: the tensors of its own shape, by name."""

    def observe(self, name: str, tensor: torch.Tensor) -> bool:
        """Let what is computed from now on read this tensor; its shape is the value's.

        Return whether it can: not where nothing computes the value, or all that is computed from it was before.
        """

    def done(self, name: str) -> None:
        """Say that this value will not be asked for again: it is freed once all that read it have run."""

    def outputs(self) -> Tensors:
        """Compute the rest and return the outputs by their declared names."""

    def fork(self) -> Self:
        """Return an evaluator that has computed what this one has; later changes of one do not reach the other."""


class ProgramEvaluator:
    """Evaluates a graph. A value is freed when all that read it have run and it will not be asked for."""

    def __init__(
        self,
        graph: RunGraph,
        inputs: Mapping[str, torch.Tensor],
        *,
        dtype: torch.dtype,
        device: torch.device | None = None,
        dtypes: Mapping[str, torch.dtype] | None = None,
        allow_tf32: bool = False,
        weights: Mapping[str, torch.Tensor] | None = None,
        asked: Collection[str] = (),
        notes: RunNotes | None = None,
        helpers: HelperValues | None = None,
    ) -> None:
        self._runner = TypedInterpreter(
            graph, inputs, dtype=dtype, device=device, dtypes=dtypes, weights=weights, notes=notes
        )
        self._allow_tf32 = allow_tf32
        # The node that gives the outputs back has the name of the value ``output``, where a file has one.
        self._nodes: dict[str, Node] = {node.name: node for node in graph.graph.nodes if node.op != "output"}
        self._also_reads = self._composing(helpers) if helpers is not None else {}
        """What a node is computed from where a part of it that only the ONNX graph has was observed."""
        self._unread: Counter[Node] = Counter({node: len(node.users) for node in self._nodes.values()})
        self._unread.update(item for several in self._also_reads.values() for item in several)
        self._asked = set(asked) | set(graph.outputs.values())
        self._outputs = graph.outputs
        self._freed: set[Node] = set()
        self._helpers = helpers
        self._helped: dict[str, torch.Tensor | None] = {}
        """What the helpers gave, until the evaluator changes: a mapping asks for it, and then the comparison."""
        self._seen: dict[str, torch.Tensor] = {}
        """Observed values that only the ONNX graph has."""

    def value(self, name: str) -> torch.Tensor | None:
        node = self._nodes.get(name)
        if node is None:
            return self._helper(name)
        if node in self._freed:
            return None
        self._compute(node)
        result = self._runner.env[node]
        return result if isinstance(result, torch.Tensor) else None

    def operands(self, name: str) -> Tensors:
        value, node = self.value(name), self._nodes.get(name)
        if value is None or node is None:
            return {}
        read = {item.name: self._runner.env.get(item) for item in node.all_input_nodes}
        return {name: t for name, t in read.items() if isinstance(t, torch.Tensor) and t.shape == value.shape}

    def observe(self, name: str, tensor: torch.Tensor) -> bool:
        """Let what is computed from now on read this tensor, in the dtype the evaluator computes the value in.

        Return whether it can. Raises EngineFailed when it has another number of elements, or floats where the value is
        integer.
        """
        computed = self.value(name)
        if computed is None:
            return False
        _require_fit(name, tensor, computed)
        self._helped.clear()
        tensor = tensor.to(computed.device, computed.dtype, copy=True).reshape(computed.shape)
        if name in self._nodes:
            self._runner.env[self._nodes[name]] = tensor
            return True
        self._seen[name] = tensor
        return not all(map(self._is_done, self._owners(name)))

    def done(self, name: str) -> None:
        self._helped.clear()
        if name not in self._outputs.values():
            self._asked.discard(name)
            if (node := self._nodes.get(name)) is not None:
                self._free_if_read(node)

    def outputs(self) -> Tensors:
        outputs = {name: self.value(node) for name, node in self._outputs.items()}
        return {name: tensor for name, tensor in outputs.items() if tensor is not None}

    def fork(self) -> Self:
        fork = copy.copy(self)
        fork._runner = copy.copy(self._runner)
        fork._runner.env = dict(self._runner.env)
        fork._unread, fork._asked, fork._freed = self._unread.copy(), set(self._asked), set(self._freed)
        fork._helped, fork._seen = dict(self._helped), dict(self._seen)
        return fork

    @property
    def held(self) -> int:
        """How many computed values the evaluator holds, weights and inputs not counted."""
        return sum(node.op == "call_function" for node in self._runner.env)

    def _compute(self, wanted: Node) -> None:
        doing = f"computing {wanted.name!r} in PyTorch"
        with torch.inference_mode(), tf32_allowed(self._allow_tf32), limits.step(doing):
            for node in nodes_between(wanted, self._runner.env):
                self._run(node)

    def _run(self, node: Node) -> None:
        result = None if node.op == "placeholder" else self._composed(node)
        self._runner.env[node] = self._runner.run_node(node) if result is None else result
        for item in (*node.all_input_nodes, *self._also_reads.get(node, ())):
            self._unread[item] -= 1
            self._free_if_read(item)

    def _composing(self, helpers: HelperValues) -> dict[Node, list[Node]]:
        """Return what each node that has parts is composed from: it must still be there when the node is run."""
        composed = [node for node in self._nodes.values() if helpers.parts(node.name)]
        return {node: [self._nodes[name] for name in helpers.needs(node.name) if name in self._nodes]
                for node in composed}  # fmt: skip

    def _helper(self, name: str) -> torch.Tensor | None:
        if self._helpers is None or name not in self._helpers:
            return None
        if name in self._seen:
            return self._seen[name]
        if name not in self._helped:
            device = self._runner.device
            self._helped[name] = self._helpers.value(name, self._typed, seen=self._seen, device=device)
        return self._helped[name]

    def _typed(self, name: str) -> torch.Tensor | None:
        """Return a value as the evaluator's operations read it: network inputs lie there as they were given."""
        tensor = self.value(name)
        return cast(tensor, self._runner.dtype) if self._nodes[name].op == "placeholder" else tensor

    def _composed(self, node: Node) -> torch.Tensor | None:
        """Return a value from its parts in the ONNX graph where some of them were observed, else None."""
        if not self._seen or self._helpers is None:
            return None
        if isinstance(node.meta.get("val"), (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)):
            return None  # a size is a number in PyTorch and a tensor in ONNX
        parts = self._helpers.parts(node.name) & self._seen.keys()
        if not parts:
            return None
        dtype = self._runner.dtype_of(node)
        seen = {part: self._seen[part] for part in parts}

        def read(name: str) -> torch.Tensor | None:
            return self.value(name) if dtype is None else cast(self.value(name), dtype)

        if self._runner.dtype in (torch.float32, torch.float64) and node.name not in self._helpers.faithful:
            alone = self._helpers.value(node.name, read, device=self._runner.device)
            own = self._runner.run_node(node)
            if alone is not None and isinstance(own, torch.Tensor):
                same = alone.numel() == own.numel() and distance(alone.reshape(own.shape), own) <= FAITHFUL
                self._helpers.faithful[node.name] = same
        if not self._helpers.faithful.get(node.name, True):
            return None  # the exporter's parts compute another function: what is wrong shows in this value
        result = self._helpers.value(node.name, read, seen=seen, device=self._runner.device)
        for part in parts:
            if all(owner is node or self._is_done(owner) for owner in self._owners(part)):
                del self._seen[part]
        return result if dtype is None else cast(result, dtype)

    def _owners(self, part: str) -> list[Node]:
        """Return the nodes that a value which only the ONNX graph has is a part of."""
        return [self._nodes[name] for name in self._helpers.owners(part)] if self._helpers is not None else []

    def _is_done(self, node: Node) -> bool:
        return node in self._runner.env or node in self._freed

    def _free_if_read(self, node: Node) -> None:
        if self._unread[node] <= 0 and node.name not in self._asked and node in self._runner.env:
            del self._runner.env[node]
            self._freed.add(node)


def _require_fit(name: str, tensor: torch.Tensor, computed: torch.Tensor) -> None:
    if tensor.numel() != computed.numel():
        raise EngineFailed(
            Sentence("other_value_shape", name=name, shape=list(tensor.shape), shape_2=list(computed.shape))
        )
    if tensor.is_floating_point() and not computed.is_floating_point():
        raise EngineFailed(Sentence("other_value_dtype", name=name, dtype=tensor.dtype, dtype_2=computed.dtype))


@dataclass(kw_only=True, eq=False)
class Evaluators:
    """The four evaluators in which every value of one engine is measured."""

    reference: Evaluator
    """In the reference's precision: what a value is away from it has accumulated on the way."""
    floor: Evaluator
    """In the plan's precision: what PyTorch accumulates."""
    replay: Evaluator
    """In the reference's precision on the engine's own inputs: what a value is away from it was made here."""
    replay_low: Evaluator
    """In the plan's precision on the engine's own inputs: what PyTorch makes here."""
    canonical: Callable[[str], str]
    """From a value of the ONNX graph to the evaluators' own name for it."""
    uses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What will be asked for, with the evaluators' own names of it and of what a value that only the ONNX graph has is
    computed from: these are kept until all that use them are done."""

    def __post_init__(self) -> None:
        self._left = Counter(used for several in self.uses.values() for used in several)

    def value(self, evaluator: Evaluator, name: str) -> torch.Tensor | None:
        """Return a value in one evaluator; None where nothing computes it."""
        return evaluator.value(self.canonical(name))

    def operands(self, name: str) -> Tensors:
        """Return what the replay computes a value from, as the engine has it: the tensors of its own shape, by name."""
        return self.replay.operands(self.canonical(name))

    def fork(self) -> Evaluators:
        """Return a copy whose replays can be asked and changed without a trace in these; the other two are the same."""
        fork = copy.copy(self)
        fork.replay, fork.replay_low = self.replay.fork(), self.replay_low.fork()
        return fork

    def adopt(self, fork: Evaluators) -> None:
        """Take over what a fork has computed since."""
        self.replay, self.replay_low = fork.replay, fork.replay_low

    def observe(self, name: str, tensor: torch.Tensor) -> None:
        """Let both replays read the engine's value from now on."""
        for evaluator in (self.replay, self.replay_low):
            evaluator.observe(self.canonical(name), tensor)

    def done(self, names: Iterable[str]) -> None:
        """Say that these values will not be asked for again."""
        for name in names:
            several = self.uses.pop(name, (self.canonical(name),))
            self._left.subtract(several)
            for evaluator in (self.reference, self.floor, self.replay, self.replay_low):
                for used in several:
                    if self._left[used] <= 0:
                        evaluator.done(used)
