"""Observe the values of an engine: between its kernels, as outputs of further engines, or in PyTorch itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from harness.backends import TapSession
from harness.compare import bitwise_equal
from harness.errors import EngineFailed, NotJudged, UsageError
from harness.graph import load_plan, matching, order
from harness.layers.engine_kernels import EngineKernels
from harness.layers.kernel_taps import KernelTaps
from harness.layers.observer import Observer
from harness.records import Result
from harness.sentences import Sentence
from harness.tensors import Tensors, like
from harness.verify import OpenTarget, Prepared, typed_graph

GROUP_BYTES = 2**30
"""Values that are made outputs of one engine hold at most this many bytes."""
ITEM_BYTES = 4
"""Of every value, whatever it is computed in."""


@dataclass(frozen=True, kw_only=True)
class Unobserved:
    """One case of a target as it was judged, without taps."""

    opened: OpenTarget
    case: str
    result: Result
    outputs: Tensors
    """The outputs that were judged, with 0 for what does not count."""

    @property
    def prepared(self) -> Prepared:
        """The subject made ready."""
        return self.opened.run.prepared

    @property
    def inputs(self) -> Tensors:
        """The inputs of the case."""
        return self.prepared.inputs[self.case]

    def counted(self, outputs: Tensors) -> Tensors:
        """Return outputs with 0 for what does not count."""
        return self.prepared.valid.counted(self.case, outputs)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What observing delivered; nothing is concluded yet."""

    observer: Observer
    """The findings on every value that was observed."""
    outputs: tuple[Tensors, ...]
    """The outputs of every engine that was observed, on the devices of the unobserved ones."""
    computed_in: Mapping[str, str] = field(default_factory=dict)
    """The kernel that each value is computed in, where kernels were observed."""
    notes: tuple[str, ...] = ()


def observe_unfused(before: Unobserved) -> Observation:
    """Observe the tensors between the kernels of an engine that is fused as the unobserved one is.

    Raises NotJudged for an engine that cannot be tapped, EngineFailed for one that does not read its inputs.
    """
    opened, prepared, plan = before.opened, before.prepared, before.opened.plan
    inputs = opened.inputs(before.case)
    with opened.observed(taps=True) as session:
        if not isinstance(session, TapSession):
            raise NotJudged(Sentence("cannot_be_tapped", name=opened.backend.name))
        tapped, kernels = session, opened.steps.run("tapping", session.kernels)
        engine = EngineKernels.of(typed_graph(prepared, plan).model, prepared.program.values, kernels)
        asked = {name for candidates in engine.candidates for name in candidates.names}
        taps = KernelTaps(engine, _observer(before, asked))
        opened.say(f"observing the tensors between {len(kernels)} kernels", before.case)
        outputs = opened.steps.run("tapping", lambda: tapped.tap(inputs, taps.on_tensor))
        opened.steps.run("tapping", taps.flush)
    for name, tensor in taps.inputs.items():
        if name in inputs and not bitwise_equal(tensor.to(inputs[name].device), inputs[name]):
            raise EngineFailed(Sentence("engine_input_changed", name=name))
    return Observation(observer=taps.observer, outputs=(like(before.outputs, outputs),), computed_in=engine.computed_in)


def observe_outputs(before: Unobserved, pattern: str) -> Observation:
    """Observe values as outputs, in as many engines as their size asks for; ``pattern`` is one of a precision plan.

    Raises UsageError for a pattern that names no computed value.
    """
    opened, inputs = before.opened, before.opened.inputs(before.case)
    observer = _observer(before, names := _computed_values(before.prepared, pattern))
    groups = list(_groups(names, before)) or [[]]  # a graph may compute nothing but its outputs
    outputs: list[Tensors] = []
    unseen = [] if pattern else sorted(before.outputs, key=observer.depths.__getitem__)
    for number, group in enumerate(groups, start=1):
        opened.say(f"observing {len(group)} values as outputs, engine {number} of {len(groups)}", before.case)
        with opened.observed(marked=group) as session:
            made = opened.steps.run("running", partial(session.run, inputs))
            again = {}  # what another run gives, where runs are known to differ
            if before.result.repeatable is False:
                made = {name: tensor.clone() for name, tensor in made.items()}
                again = opened.steps.run("running", partial(session.run, inputs))
        for name in group:
            while unseen and observer.depths[unseen[0]] < observer.depths[name]:  # an output may be read inside too
                output = unseen.pop(0)
                observer.add_value(output, made[output], again.get(output), mapped_by="exact")
            observer.add_value(name, made.pop(name), again.get(name), mapped_by="exact")
            observer.evaluators.done([name])
        outputs.append(like(before.outputs, made))
    for name in unseen:
        observer.add_value(name, outputs[-1][name], again.get(name), mapped_by="exact")
    several = Sentence("engines_observed", count=len(groups))
    return Observation(observer=observer, outputs=tuple(outputs), notes=(several,) if len(groups) > 1 else ())


def observe_pytorch(before: Unobserved) -> Observation:
    """Observe every value of the floor: the backend is PyTorch itself."""
    program = before.prepared.program
    depths = program.depths()
    names = [
        name
        for name, value in program.values.items()
        if name in depths and value.shape is not None and (name == value.origin or name in program.outputs)
    ]
    observer = _observer(before, names)
    for name in sorted(names, key=depths.__getitem__):
        tensor = observer.evaluators.floor.value(name)
        if tensor is not None:
            observer.add_value(name, tensor, mapped_by="exact")
        observer.evaluators.done([name])
    return Observation(observer=observer, outputs=(before.outputs,))


def _observer(before: Unobserved, asked: Collection[str]) -> Observer:
    prepared, plan = before.prepared, before.opened.plan
    evaluators = prepared.graph.evaluators(before.inputs, plan, asked)
    program, device = prepared.program, prepared.graph.device
    valid = prepared.valid.of(before.case, before.outputs)
    return Observer(
        evaluators, program.values, program.depths(), precision=plan.computes_in, device=device, valid=valid
    )


def _computed_values(prepared: Prepared, pattern: str) -> list[str]:
    """Return the computed values of the graph, in dataflow order, that a pattern names; all for no pattern."""
    program = prepared.program
    computed = set(order(program.model)) - set(program.outputs)
    names = [name for name in program.values if name in computed]
    if pattern:
        named = matching(pattern, program.values)
        names = [name for name in names if name in named]
        if not names:
            raise UsageError(f"--layers outputs:{pattern} names no value that the graph computes")
    return sorted(names, key=program.depths().__getitem__)


def _groups(names: Sequence[str], before: Unobserved) -> Iterator[list[str]]:
    """Yield the names in groups whose values, as the case has them, hold at most GROUP_BYTES."""
    sizes = _bytes_of(names, before)
    group: list[str] = []
    held = 0
    for name in names:
        size = sizes[name]
        if group and held + size > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _bytes_of(names: Sequence[str], before: Unobserved) -> dict[str, int]:
    """Return how many bytes each value has in the case; one that only the engine computes counts as the largest other.

    What the sizes of the inputs do not tell (a size that the graph computes, a shape that nobody knows) is measured in
    PyTorch: that takes less time than engines that are not needed.
    """
    program, inputs = before.prepared.program, before.inputs
    sizes = {
        str(dim): size
        for value in program.model.graph.inputs
        for dim, size in zip(value.shape or (), inputs[str(value.name)].shape, strict=False)
    }
    counts: dict[str, int] = {}
    for name in names:
        shape = program.values[name].shape
        dims = [None] if shape is None else [dim if isinstance(dim, int) else sizes.get(dim) for dim in shape]
        if all(dim is not None for dim in dims):
            counts[name] = math.prod(dim or 0 for dim in dims)
    unknown = [name for name in names if name not in counts]
    if unknown:
        evaluators = before.prepared.graph.evaluators(before.inputs, load_plan("tf32"), unknown)
        for name in unknown:
            value = evaluators.value(evaluators.reference, name)
            if value is not None:
                counts[name] = value.numel()
            evaluators.done([name])
    largest = max(counts.values(), default=0)
    return {name: ITEM_BYTES * counts.get(name, largest) for name in names}
