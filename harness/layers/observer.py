"""Measure the values of an engine as they arrive: what has accumulated, what was made here, what PyTorch loses."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from harness.backends import Kernel
from harness.compare import SMALLEST_STEP, UNIT_ROUNDOFF, compare, error_shape, ratio
from harness.graph import Value
from harness.layers.local_error import (
    LARGEST,
    LocalError,
    Reached,
    follows_from_inputs,
    local_error,
    made_here,
    reached,
    saturated,
)
from harness.layers.mapping import Decision
from harness.records import ErrorStats, Mark, Status, ValueFinding
from harness.reference import Evaluator, Evaluators
from harness.sentences import Sentence
from harness.verify import FACTOR, confidence_factor

KEPT = 1024
"""How many local errors are kept while the engine runs, to be propagated to the outputs: the largest ones."""
KEPT_BYTES = 2**29
"""Limit of what these error tensors hold together; fewer are kept where they are larger."""


class KeptError(NamedTuple):
    """The local error of one value, kept to be propagated to the outputs."""

    ratio: float
    """Its relative L2 norm over what is allowed; infinite for what is not finite and for a decision."""
    number: int
    """Order of arrival; decides between equal ratios, so that no two entries compare by tensor."""
    name: str
    error: torch.Tensor
    """The engine's value less the replay; where ``own`` is set the engine's value."""
    own: torch.Tensor | None = None
    """Elements that have no difference to be added: decisions that differ, and what is beyond an end of the format."""

    def added_to(self, value: torch.Tensor) -> torch.Tensor:
        """Return a value with this error; what is no number already stays as it is."""
        error = self.error.reshape(value.shape).to(value.device)
        added = torch.where(value.isfinite(), value + error, value) if value.is_floating_point() else value
        if self.own is None:
            return added
        return torch.where(self.own.reshape(value.shape).to(value.device), error.to(added.dtype), added)


class Observer:
    """Compares each value of an engine with what the evaluators compute, and keeps figures, not tensors."""

    def __init__(
        self,
        evaluators: Evaluators,
        values: Mapping[str, Value],
        depths: Mapping[str, int],
        *,
        precision: str,
        device: torch.device | None = None,
        valid: Mapping[str, torch.Tensor] = MappingProxyType({}),
    ) -> None:
        self.evaluators, self.values, self.depths, self.precision = evaluators, values, depths, precision
        self.device = device or torch.device("cpu")
        """Where the evaluators compute, and where tensors are compared."""
        self._valid = {evaluators.canonical(name): mask for name, mask in valid.items()}
        """Which elements of the outputs count; of all other values all do."""
        self.findings: dict[str, ValueFinding] = {}
        self.extra_tensors: list[ValueFinding] = []
        """Tensors that are no value of the graph, or could not be mapped to one."""
        self.errors: list[KeptError] = []
        """The largest local errors against what is allowed; a heap."""
        self.overflows: set[str] = set()
        """The values that leave the range of the format because what they are computed from is wrong."""
        self._held = 0
        self.reached: dict[str, Reached] = {}
        """Where values that are no numbers leave the range of the format."""
        self.decisions: dict[str, torch.Tensor] = {}
        """The engine's discrete values that differ from the replay's."""
        self._seen = 0

    def add_value(self, name: str, tensor: torch.Tensor, again: torch.Tensor | None = None, **record: str) -> None:
        """Measure one value of the engine; ``record`` says where it comes from (kernel, tap, mapped_by, layout).

        ``again`` is what another run on the same inputs gave, where runs differ.
        """
        runs = () if again is None else (self._counted(name, again),)
        self._seen += 1
        tensor = tensor.to(self.device)
        replay = self._value(self.evaluators.replay, name)
        reference = self._value(self.evaluators.reference, name)
        if replay is None or reference is None:
            bad = _nonfinite_words(tensor)
            seen: Mark = "nonfinite" if bad else "not_judged"
            reason = Sentence("only_engine_bad", bad=bad)
            self._record(name, status="not_compared", mark=seen, reason=reason, **record)
        elif not tensor.numel():
            self._record(name, status="not_compared", reason=Sentence("no_elements"), **record)
        elif tuple(tensor.shape) != tuple(reference.shape):
            shapes = Sentence("shape_and_reference", shape=list(tensor.shape), shape_2=list(reference.shape))
            bad = _nonfinite_words(tensor)
            mark: Mark = "nonfinite" if bad else "suspect"
            self._record(
                name, status="compared", mark=mark, reason=Sentence("its_shape_is", shapes=shapes, bad=bad), **record
            )
        elif not reference.is_floating_point():
            self._add_discrete(name, tensor, reference, replay, record, runs)
        else:
            self._add_float(name, tensor, reference, replay, record, runs)

    def _value(self, evaluator: Evaluator, name: str) -> torch.Tensor | None:
        value = self.evaluators.value(evaluator, name)
        return None if value is None else self._counted(name, value)

    def _counted(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor with 0 for what does not count."""
        mask = self._valid.get(self.evaluators.canonical(name))
        return tensor if mask is None or mask.shape != tensor.shape else tensor.where(mask.to(tensor.device), 0)

    def add_extra_tensor(self, name: str, kernel: Kernel, tensor: torch.Tensor, decision: Decision) -> None:
        """Record a tensor that is no value of the graph, or could not be mapped to one."""
        bad = _nonfinite_words(tensor)
        reason = f"{decision.reason}{bad}"
        status: Status = "inner" if decision.inner else "unmapped"
        if not tensor.is_floating_point():
            status, reason = (
                "not_compared",
                Sentence("dtype_reason", dtype=str(tensor.dtype).removeprefix("torch."), reason=reason),
            )
        self.extra_tensors.append(
            ValueFinding(
                name=name, op=kernel.name, module="", source="", depth=-1, status=status, reason=reason,
                kernel=kernel.name, tap=name, mark="nonfinite" if bad else "not_judged",
            )
        )  # fmt: skip

    def local_limit(self, local_floor: float, elements: int, rms: float) -> float:
        """Return the largest local error that is not suspect: that of an output, and at least the format's step."""
        step = SMALLEST_STEP[self.precision] / 2 / rms if rms else 0.0  # nothing may come of zeros
        return FACTOR * max(local_floor * confidence_factor(elements), UNIT_ROUNDOFF[self.precision], step)

    def _add_float(
        self,
        name: str,
        tensor: torch.Tensor,
        reference: torch.Tensor,
        replay: torch.Tensor,
        record: dict[str, str],
        runs: Sequence[torch.Tensor],
    ) -> None:
        given, tensor = tensor, self._counted(name, tensor)
        end = LARGEST[self.precision]
        floor = self._value(self.evaluators.floor, name)
        low = self._value(self.evaluators.replay_low, name)
        # What saturates in PyTorch is right: else the floor would be so large that any error of the engine passes.
        unlimited = replay
        replay = replay if low is None else saturated(replay, low, end)
        reference = reference if floor is None else saturated(reference, floor, end)
        local_floor = math.nan if low is None else local_error(low, replay).relative
        floor_error = None if floor is None else local_error(floor, reference).relative
        stats = compare(tensor, reference, name=name)
        local = local_error(tensor, replay)
        limit = self.local_limit(0.0 if math.isnan(local_floor) else local_floor, tensor.numel(), local.rms)
        follows = False
        if local.nonfinite and low is not None and floor is not None:
            follows = follows_from_inputs(tensor, unlimited, low, floor, end=end)
        mark = self._mark(stats, local, limit, floor_error, follows=follows)
        if follows:
            self.overflows.add(name)
        if local.nonfinite and (beyond := reached(replay, self.precision)) is not None:
            self.reached[name] = beyond
        looks_like = None
        if mark in ("suspect", "nonfinite"):
            operands = self.evaluators.operands(name)
            looks_like = error_shape(tensor, replay, low, precision=self.precision, others=operands, runs=runs)
        self._record(
            name, status="compared", stats=stats, floor=floor_error, local=local.relative,
            local_floor=None if math.isnan(local_floor) else local_floor, local_bias=local.bias, largest=local.largest,
            mark=mark, looks_like=looks_like, reason=self._reason(stats, local, follows=follows), **record,
        )  # fmt: skip
        error, own = made_here(tensor, replay, local, unlimited=unlimited, end=end)
        self._keep_error(math.inf if local.nonfinite else local.relative / limit, name, error, own)
        self.evaluators.observe(name, given)

    def _mark(self, stats: ErrorStats, local: LocalError, limit: float, floor: float | None, *, follows: bool) -> Mark:
        if local.nonfinite and not follows:
            return "nonfinite"
        if local.relative > limit:
            return "suspect"
        allowed = self.local_limit(floor or 0.0, stats.compared, stats.rms_expected)
        return "passed_on" if stats.mismatched_nonfinite or not stats.relative_l2 <= allowed else "ok"

    def _reason(self, stats: ErrorStats, local: LocalError, *, follows: bool) -> str:
        if local.nonfinite:
            largest = Sentence("largest_replay", largest_replay=local.largest_replay)
            ends = Sentence("and_format_ends", precision=self.precision, largest=LARGEST[self.precision])
            over = ends if local.largest_replay > LARGEST[self.precision] else ""
            first = list(stats.first_nonfinite or ())
            why = Sentence("pytorch_on_others") if follows else Sentence("though_inputs_are")
            return Sentence(
                "not_finite_first",
                nonfinite=local.nonfinite,
                elements=stats.elements,
                first=first,
                why=why,
                largest=largest,
                over=over,
            )
        if stats.mismatched_nonfinite and stats.nonfinite_expected:
            return Sentence(
                "reference_not_finite", nonfinite_expected=stats.nonfinite_expected, elements=stats.elements
            )
        if stats.mismatched_nonfinite:
            return Sentence("not_finite_as_inputs", nonfinite_actual=stats.nonfinite_actual, elements=stats.elements)
        return ""

    def _keep_error(self, ratio: float, name: str, error: torch.Tensor, own: torch.Tensor | None = None) -> None:
        if not ratio > 0:
            return
        heapq.heappush(self.errors, KeptError(ratio, self._seen, name, error, own))
        self._held += error.nbytes
        while len(self.errors) > 1 and (len(self.errors) > KEPT or self._held > KEPT_BYTES):
            self._held -= heapq.heappop(self.errors).error.nbytes

    def _add_discrete(
        self,
        name: str,
        tensor: torch.Tensor,
        reference: torch.Tensor,
        replay: torch.Tensor,
        record: dict[str, str],
        runs: Sequence[torch.Tensor],
    ) -> None:
        given, tensor = tensor, self._counted(name, tensor)
        here = int((tensor.to(replay.dtype) != replay.to(tensor.device)).sum())
        in_all = int((tensor.to(reference.dtype) != reference.to(tensor.device)).sum())
        reason = Sentence("decisions_here", in_all=in_all, count=tensor.numel(), here=here)
        mark: Mark = "flip" if here else "passed_on" if in_all else "ok"
        looks_like = error_shape(tensor.to(replay.dtype), replay, precision=self.precision, runs=runs) if here else None
        self._record(
            name, status="compared", mark=mark, looks_like=looks_like, reason=reason if here or in_all else "", **record
        )
        if in_all:
            self.decisions[name] = tensor.to(reference.dtype)
        if here or in_all:  # what follows from other values is an error too, where nothing that was seen explains it
            expected = (replay if here else reference).to(tensor.device)
            decided = tensor.to(expected.dtype)
            self._keep_error(math.inf if here else 1.0, name, decided, decided != expected)
        self.evaluators.observe(name, given.to(replay.dtype))

    def _record(self, name: str, **fields: Any) -> None:
        value = self.values[name]
        finding = ValueFinding(
            name=name, op=value.op, module=value.module, source=value.source, folded=value.folded,
            depth=self.depths[name], **fields,
        )  # fmt: skip
        before = self.findings.get(name)
        if before is not None:  # the engine computes or copies it twice: the worse one is shown
            finding = max(before, finding, key=_badness)
        self.findings[name] = finding


def _nonfinite_words(tensor: torch.Tensor) -> str:
    """Return how many elements are not finite, to be put behind a reason; empty where all are."""
    bad = int((~tensor.isfinite()).sum()) if tensor.is_floating_point() else 0
    return Sentence("bad_elements", bad=bad, count=tensor.numel()) if bad else ""


def _badness(finding: ValueFinding) -> tuple[bool, float]:
    local = finding.local if finding.local is not None else -1.0
    return finding.mark == "nonfinite", local


def worst_first(values: Sequence[ValueFinding]) -> list[ValueFinding]:
    """Return values by how bad they are: non-finite, then by local error over local floor."""
    return sorted(values, key=lambda value: (value.mark != "nonfinite", -local_ratio(value)))


def local_ratio(value: ValueFinding) -> float:
    """Return the local error over the local floor; 0 where there is no local error."""
    return ratio(value.local or 0.0, value.local_floor or 0.0)
