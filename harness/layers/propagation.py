"""What an engine's local errors do to the outputs: PyTorch is run with them added on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from harness.errors import NotJudged, first_line
from harness.layers.local_error import LARGEST, beyond
from harness.layers.observation import Unobserved
from harness.layers.observer import KeptError, Observer
from harness.reference import CANNOT_RUN, Evaluator, Evaluators
from harness.sentences import Sentence
from harness.tensors import Tensors


class Propagation:
    """Runs the graph of one case with errors added: each value is computed from what is before it, then plus its own.

    So what a later value adds is added to what carries the earlier errors already. What these carry beyond the end of
    the format becomes infinite where the engine's did.
    """

    def __init__(self, before: Unobserved, observer: Observer) -> None:
        self._before, self._depths = before, observer.depths
        self._overflows = observer.overflows
        self._end = LARGEST[observer.precision]
        self.runs = 0
        """How often the whole graph was computed."""
        self.expected = self.together(())
        """The outputs without any error, in the precision of the reference."""

    def together(self, errors: Sequence[KeptError]) -> Tensors:
        """Return the outputs with all these errors, in the reference's precision.

        An error that cannot be added is left out; :meth:`alone` gives None for it. Raises NotJudged when the graph
        cannot be run with them: indices that are computed from what is no number may be none.
        """
        return self._run(errors, low=False)[0]

    def with_floor(self, errors: Sequence[KeptError]) -> tuple[Tensors, Tensors]:
        """Return the same, and the outputs in the plan's precision with the same errors: what PyTorch loses there."""
        return self._run(errors, low=True)

    def _run(self, errors: Sequence[KeptError], *, low: bool) -> tuple[Tensors, Tensors]:
        self.runs += 1
        evaluators, by_name = self._evaluators(errors), {kept.name: kept for kept in errors}
        try:
            for name in self._in_order({*by_name, *self._overflows}):
                own, kept = evaluators.canonical(name), by_name.get(name)
                value = evaluators.reference.value(own)
                if kept is None:
                    self._overflow(evaluators.reference, own)
                else:
                    rounded = evaluators.floor.value(own) if low and value is not None else None
                    _add(evaluators.reference, own, kept)
                    if rounded is not None and value is not None:
                        evaluators.floor.observe(own, _rounded_alike(kept.added_to(value), value, rounded))
                evaluators.done([name])
            counted = self._before.counted
            return counted(evaluators.reference.outputs()), counted(evaluators.floor.outputs()) if low else {}
        except CANNOT_RUN as error:
            raise NotJudged(Sentence("errors_not_run", said=first_line(error))) from error

    def alone(self, errors: Sequence[KeptError]) -> Iterator[tuple[KeptError, Tensors | None]]:
        """Yield each error with the outputs that it alone gives, in dataflow order; None where it cannot be added."""
        evaluators = self._evaluators(errors)
        for kept in sorted(errors, key=lambda kept: self._depths[kept.name]):  # what is before them is computed once
            name = evaluators.canonical(kept.name)
            evaluators.reference.value(name)
            disturbed, outputs = evaluators.reference.fork(), None
            try:
                if _add(disturbed, name, kept):
                    for overflow in self._in_order(self._overflows - {kept.name}):
                        self._overflow(disturbed, evaluators.canonical(overflow))
                    outputs = self._before.counted(disturbed.outputs())
            except CANNOT_RUN:
                pass
            yield kept, outputs
            evaluators.done([kept.name])

    def _evaluators(self, errors: Sequence[KeptError]) -> Evaluators:
        before, asked = self._before, {kept.name for kept in errors} | self._overflows
        return before.prepared.graph.evaluators(before.inputs, before.opened.plan, asked)

    def _in_order(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=self._depths.__getitem__)

    def _overflow(self, evaluator: Evaluator, name: str) -> None:
        """Let what lies beyond the end of the format be infinite, where something still reads the value."""
        value = evaluator.value(name)
        if value is not None and bool((value.abs() > self._end).any()):
            evaluator.observe(name, beyond(value, self._end))


def _add(evaluator: Evaluator, name: str, kept: KeptError) -> bool:
    """Add an error to a value; return False where nothing computes the value, or reads it any more."""
    value = evaluator.value(name)
    if value is None:
        return False
    return evaluator.observe(name, kept.added_to(value))


def _rounded_alike(disturbed: torch.Tensor, value: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Return a disturbed value with the rounding of the undisturbed one, which is no larger where the value is smaller.

    A mask of -1e4 is rounded to multiples of 8 in FP16: what an engine has in its place is not.
    """
    if not value.is_floating_point():
        return disturbed
    lost = (rounded.to(value.dtype) - value) * (disturbed / value).abs().clamp(max=1)
    held = lost.isfinite() & (value.abs() <= torch.finfo(rounded.dtype).max)
    return torch.where(held, disturbed + lost, disturbed)
