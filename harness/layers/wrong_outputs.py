"""What is wrong with the outputs of an engine, and how much of it another computation shows as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.compare import finite_error
from harness.records import OutputResult, PartResult
from harness.sentences import Sentence
from harness.tensors import Tensors
from harness.verify import HOLDS, judge_tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What of an output's error is beyond its limit: these elements, or one figure of them."""

    mask: torch.Tensor | None = None
    """The elements; None for all."""
    along: torch.Tensor | None = None
    """For a scale or a bias: the direction, of length 1, whose component is what is wrong."""

    def of(self, error: torch.Tensor) -> torch.Tensor:
        """Return what of an error counts, as a vector."""
        seen = error.flatten() if self.mask is None else error[self.mask]
        return seen if self.along is None else (seen * self.along).sum().reshape(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class WrongOutput:
    """One output that is beyond its limit: the engine's, and what of its error is too much."""

    name: str
    actual: torch.Tensor
    """The engine's."""
    view: View
    excess: float
    """How many times what is allowed it loses; infinite where that is no number."""
    total: float
    """Its squared error: of floats in the view, of others and of what is not finite the elements that are wrong."""

    def left(self, computed: Tensors) -> float:
        """Return the share of the squared error that is left when the engine is held against these outputs."""
        return _squared(self.actual, computed[self.name].to(self.actual.device), self.view) / self.total


def wrong_outputs(results: Sequence[OutputResult], actual: Tensors, expected: Tensors) -> list[WrongOutput]:
    """Return the outputs that are beyond their limits, the farthest first.

    ``expected`` is what they are held against now. Those that were not judged stand for the wrong ones where none
    failed; those that cannot be compared are left out.
    """
    failed = [output for output in results if output.verdict == "fail"]
    found = []
    for output in failed or [output for output in results if output.verdict != "pass"]:
        a = actual[output.name]
        e = expected[output.name].to(a.device)
        if a.shape != e.shape:
            continue
        part = _worst_part(output)
        for view in ([_view(part, a.double(), e.double())] if part else []) + [View()]:
            total = _squared(a, e, view)
            if 0 < total < math.inf:
                excess = abs(part.error) / part.allowed if part and part.allowed else math.inf
                found.append(WrongOutput(name=output.name, actual=a, view=view, excess=excess, total=total))
                break
    return sorted(found, key=lambda wrong: -wrong.excess)


def judge_against(actual: Tensors, expected: Tensors, floor: Tensors, *, precision: str) -> list[OutputResult]:
    """Return the verdicts on an engine's outputs held against others than the reference's, with a floor of their own.

    Right is also what is no number on both sides at the same places, and decisions of which no more differ than in the
    floor.
    """
    return [_judged(name, actual[name].to(e.device), e, floor[name], precision) for name, e in expected.items()]


def holds(floor: Tensors, expected: Tensors) -> bool:
    """Return whether PyTorch in a precision loses so little that it says what an engine may lose."""
    floats = [name for name, tensor in expected.items() if tensor.is_floating_point()]
    return all(finite_error(floor[name].to(expected[name].dtype), expected[name]) <= HOLDS for name in floats)


def _judged(
    name: str, actual: torch.Tensor, expected: torch.Tensor, floor: torch.Tensor, precision: str
) -> OutputResult:
    def result(right: bool, reason: str) -> OutputResult:
        return OutputResult(name=name, verdict="pass" if right else "fail", reason=reason)

    if actual.shape != expected.shape or floor.shape != expected.shape:
        return result(False, Sentence("another_shape"))
    if not expected.is_floating_point():
        differ, allowed = (int((it.to(expected) != expected).sum()) for it in (actual, floor))
        return result(differ <= allowed, Sentence("decisions_differ_here", differ=differ))
    finite = expected.isfinite()
    if not torch.equal(actual.isfinite(), finite):
        return result(False, Sentence("no_number_elsewhere"))
    if not bool(finite.all()):
        actual, expected, floor = actual[finite], expected[finite], floor[finite].nan_to_num(0, 0, 0)
    if torch.equal(actual.to(expected), expected):
        return result(True, Sentence("the_same"))
    return judge_tensors(name, actual, expected, floor, precision=precision)


def _worst_part(output: OutputResult) -> PartResult | None:
    """Return what of an output is beyond its limit: the whole where its norm is, else the worst of its parts."""
    failing = [part for part in output.parts if part.fails and math.isfinite(part.error)]
    whole = [part for part in failing if part.kind == "whole" and part.figure == "relative_l2"]
    return max(whole or failing, key=lambda part: abs(part.error) / part.allowed if part.allowed else math.inf,
               default=None)  # fmt: skip


def _view(part: PartResult, actual: torch.Tensor, expected: torch.Tensor) -> View:
    """Return how an error is seen in one part: its elements, and of these the figure that failed."""
    size, error = expected.abs(), actual - expected
    mask = torch.ones_like(size, dtype=torch.bool)
    if part.kind == "slice" and part.axis is not None and part.index is not None:
        mask = torch.zeros_like(mask)
        mask.select(part.axis, part.index).fill_(True)
    elif part.kind == "octave" and part.low is not None and part.high is not None:
        mask = (size >= part.low) & (size < part.high)
    elif part.kind == "zeros":
        mask = size == 0
    if part.figure == "max_absolute":
        mask &= error.abs() > part.allowed
    along = {"bias": torch.ones_like(size), "scale": expected}.get(part.figure)
    return View(mask=mask, along=None if along is None else torch.nn.functional.normalize(along[mask], dim=0))


def _squared(actual: torch.Tensor, computed: torch.Tensor, view: View) -> float:
    """Return the squared distance of an engine's output from what was computed; infinite where only that is no number.

    Where the engine's is no number, and of decisions, it is how many elements differ.
    """
    if actual.shape != computed.shape:
        return math.inf
    if not computed.is_floating_point():
        return float((actual.to(computed.dtype) != computed).sum())
    a, e = actual.double(), computed.double()
    finite = a.isfinite()
    differ = int((finite != e.isfinite()).sum())
    if not bool(finite.all()):
        return float(differ)
    return math.inf if differ else float(view.of(a - e).square().sum())
