"""The verdict on one run of one engine: every output against its reference, its floor and its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch

from harness import limits
from harness.backends import Backend
from harness.compare import SMALLEST_STEP, UNIT_ROUNDOFF, compare
from harness.errors import EngineFailed, NotJudged, ParityError
from harness.graph import Plan, is_fp32, load_plan
from harness.records import Decisions, ErrorStats, OutputResult, PartResult
from harness.sentences import Sentence
from harness.subject import Tolerance
from harness.tensors import Tensors
from harness.verify.decisions import judge_decisions
from harness.verify.parts import FACTOR, judge_parts
from harness.verify.references import References
from harness.verify.target import OpenTarget
from harness.verify.tolerance import PART_HOLDS, cannot_hold, judge_output
from harness.verify.weights import infinite_words

CANCELLED = 2 * FACTOR
"""Roundings of the terms of a difference that is mathematically zero, which an engine may leave: three of each."""
_LIMIT_WHY = "--limit"
_NAMED = 3
"""Outputs that a note names."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One output against its reference, in figures; nothing is judged yet."""

    name: str
    stats: ErrorStats | None
    """The engine against the reference; None where they cannot be compared."""
    floor: ErrorStats | None
    """PyTorch in the engine's precision against the same reference; None where there is no such floor."""
    parts: tuple[PartResult, ...] = ()
    """Of an output of floats: the whole and its worst parts against the floor."""
    empty: bool = False
    """Whether both are empty, in the same shape."""
    problem: str = ""
    """Why they cannot be compared."""
    note: str = ""
    """Why this output has no floor though others have."""
    decisions: Decisions | None = None
    """The counts of an output that is no float."""
    valid: int | None = None
    """How many elements count; None where all do."""
    elements: int = 0
    """How many there are."""


def floor_of(references: References, case: str, plan: Plan) -> tuple[Tensors | None, tuple[str, ...]]:
    """Return what PyTorch gives in the engine's precision, or None, with notes on how it came about or why not."""
    if is_fp32(plan):
        return references.reference(case, "fp32"), ()
    try:
        floor = references.floor(case, plan)
    except NotJudged as error:  # an explicit tolerance may still judge
        limits.check(met=True)
        return None, (Sentence("no_floor_since", error=error),)
    return floor.outputs, floor.notes


def compare_outputs(
    actual: Tensors,
    expected: Tensors,
    floor: Tensors | None,
    *,
    precision: str,
    decisions: Mapping[str, Decisions | EngineFailed] = MappingProxyType({}),
    wide: Callable[[], Tensors] | None = None,
    valid: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> list[Compared]:
    """Return the figures of every expected output; ``decisions`` are the counts of those that are no floats.

    ``wide`` gives the floor with all in FP32 that the precision cannot hold, for what is no number in the floor.
    ``valid`` are the masks of the outputs of which not all elements count.
    """
    found = []
    for name, tensor in expected.items():
        note, own_floor, mask = "", None if floor is None else floor[name], valid.get(name)
        count = None if mask is None else int(mask.sum())
        if own_floor is not None and own_floor.shape != tensor.shape:
            shapes = Sentence("and_the_reference", shape=list(own_floor.shape), shape_2=list(tensor.shape))
            note, own_floor = Sentence("no_floor_other_shape", name=name, precision=precision, shapes=shapes), None
        try:
            if not tensor.numel() and actual[name].shape == tensor.shape:
                found.append(Compared(name=name, stats=None, floor=None, empty=True))
            elif (counts := decisions.get(name)) is not None:
                if isinstance(counts, EngineFailed):
                    raise counts
                if mask is not None:
                    moved = (bool(it[mask].any()) for it in (actual[name].to(mask.device), tensor))
                    counts = replace(counts, elements=int(mask.sum()), zero=not any(moved))
                one = Compared(name=name, stats=None, floor=None, decisions=counts)
                found.append(replace(one, valid=count, elements=tensor.numel()))
            else:
                one = compare_floats(name, actual[name], tensor, own_floor, precision=precision, wide=wide, valid=mask)
                found.append(replace(one, note=note, valid=count, elements=tensor.numel()))
        except EngineFailed as error:
            found.append(Compared(name=name, stats=None, floor=None, problem=str(error)))
    return found


def compare_floats(
    name: str,
    actual: torch.Tensor,
    expected: torch.Tensor,
    floor: torch.Tensor | None,
    *,
    precision: str,
    wide: Callable[[], Tensors] | None = None,
    valid: torch.Tensor | None = None,
) -> Compared:
    """Return the figures of an output of floats and of its parts; where the floor is none, of its parts alone.

    An engine that gives numbers where the floor has none computes something in FP32: its parts are held against the
    floor that does so too. Elements that are not ``valid`` are left out. Raises EngineFailed where the two cannot be
    compared.
    """

    def counting(tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor with what does not count infinite: a pair of equal infinities is compared nowhere."""
        if valid is None or tensor.shape != valid.shape:
            return tensor
        return tensor.where(valid.to(tensor.device), torch.inf)

    def against(tensor: torch.Tensor, wanted: torch.Tensor) -> ErrorStats:
        stats = compare(tensor, wanted, name=name)
        return stats if valid is None else _of_valid(stats, tensor, valid.to(tensor.device))

    actual, expected = counting(actual), counting(expected)
    stats = against(actual, expected)
    if floor is None:
        return Compared(name=name, stats=stats, floor=None)
    floor = counting(floor)
    floor_stats = against(floor, expected)
    if stats.nan_expected or stats.mismatched_nonfinite:
        return Compared(name=name, stats=stats, floor=floor_stats)
    held = not cannot_hold(floor_stats, precision)
    roundoff = UNIT_ROUNDOFF[precision]
    if floor_stats.mismatched_nonfinite and wide is not None and precision != "fp32":
        floor = counting(wide()[name])
        if floor.shape != expected.shape or cannot_hold(compare(floor, expected), precision):
            floor = expected  # nothing says what may be lost: a few roundings
    elif not held:
        floor, roundoff = expected, PART_HOLDS / FACTOR
    parts = judge_parts(actual, expected, floor, roundoff=roundoff, step=SMALLEST_STEP[precision])
    return Compared(name=name, stats=stats, floor=floor_stats, parts=parts)


def _of_valid(stats: ErrorStats, actual: torch.Tensor, valid: torch.Tensor) -> ErrorStats:
    """Return figures without the infinities that stand for what does not count."""
    left_out = int((~valid).sum())
    first = (~actual.isfinite() & valid).nonzero()[:1].tolist() if stats.nonfinite_actual > left_out else []
    return replace(
        stats, elements=stats.elements - left_out, nonfinite_actual=stats.nonfinite_actual - left_out,
        nonfinite_expected=stats.nonfinite_expected - left_out, first_nonfinite=tuple(first[0]) if first else None,
    )  # fmt: skip


def judge_tensors(
    name: str,
    actual: torch.Tensor,
    expected: torch.Tensor,
    floor: torch.Tensor | None,
    *,
    precision: str,
    tolerance: Tolerance | None = None,
    cause: str = "",
) -> OutputResult:
    """Return the verdict on one output of floats from its tensors alone: the engine's, the reference and the floor."""
    [compared] = compare_outputs(
        {name: actual}, {name: expected}, None if floor is None else {name: floor}, precision=precision
    )
    if compared.stats is None:
        return _without_figures(compared)
    return judge_output(
        name, compared.stats, precision=precision, floor=compared.floor, parts=compared.parts, tolerance=tolerance,
        cause=cause,
    )  # fmt: skip


def _without_figures(compared: Compared, *, nothing: bool = False) -> OutputResult:
    """Return the verdict on an output that was not compared; ``nothing`` says that no output of the case was."""
    if compared.empty and nothing:
        reason = Sentence("every_output_empty")
        return OutputResult(name=compared.name, verdict="not_judged", reason=reason)
    if compared.empty:
        return OutputResult(name=compared.name, verdict="pass", reason=Sentence("empty_as_reference"))
    return OutputResult(name=compared.name, verdict="fail", reason=compared.problem)


def judge_outputs(
    opened: OpenTarget, case: str, compared: Sequence[Compared], plan: Plan | None = None
) -> tuple[OutputResult, ...]:
    """Return the verdict on every output; ``plan`` is that of the floor, where it is not the target's."""
    run, is_own, plan = opened.run, plan is None, plan or opened.plan
    references = run.prepared.references
    expected = references.expected(case, plan)
    nothing = all(output.empty for output in compared)
    results = []
    for output in compared:
        if output.decisions is not None:
            tolerance = run.subject.tolerances.get(output.name)  # one of a precision is meant for floats
            results.append(
                judge_decisions(output.name, output.decisions, precision=plan.computes_in, tolerance=tolerance)
            )
            continue
        if output.stats is None:
            results.append(_without_figures(output, nothing=nothing))
            continue
        tolerance = tolerance_for(output.name, run.limit, run.subject.tolerances, plan)
        if tolerance is None and (words := _cancelled(output.stats, references, case, plan, output.name)):
            results.append(OutputResult(name=output.name, verdict="not_judged", reason=words, stats=output.stats))
            continue
        tf32_floor, cause = None, ""
        if output.floor is not None and not is_fp32(plan) and cannot_hold(output.floor, plan.computes_in):
            cause = references.first_beyond(case, plan)
        if output.stats.nan_expected:
            cause = infinite_words(references.graph.weights.items())
        if is_fp32(plan) and has_tf32(opened.backend):
            tf32_floor = partial(_tf32_floor, references, case, output.name, expected[output.name])
        results.append(
            judge_output(
                output.name,
                output.stats,
                precision=plan.computes_in,
                floor=output.floor,
                parts=output.parts,
                tf32_floor=tf32_floor,
                reference_error=None if is_fp32(plan) else partial(_reference_error, references, case, output.name),
                tolerance=tolerance,
                is_floor=opened.is_pytorch and is_own,
                cause=cause,
            )
        )
    return tuple(map(_with_valid, results, compared))


def valid_note(compared: Sequence[Compared]) -> tuple[str, ...]:
    """Return how many elements count of the outputs of which not all do."""
    some = [output for output in compared if output.valid not in (None, output.elements)]
    counts = [
        Sentence("valid_count", name=output.name, valid=output.valid, elements=output.elements)
        for output in some[:_NAMED]
    ]
    others = Sentence("valid_others", count=len(some) - _NAMED) if len(some) > _NAMED else ""
    return (Sentence("valid_left_out", counts=list(counts), others=others),) if some else ()


def _with_valid(result: OutputResult, compared: Compared) -> OutputResult:
    """Return a verdict with how many elements it is about, where not all count."""
    if compared.valid is None:
        return result
    left_out = compared.elements - compared.valid
    words = Sentence("valid_of_elements", valid=compared.valid, elements=compared.elements, left_out=left_out)
    return replace(result, valid=compared.valid, reason=f"{result.reason}; {words}")


def _cancelled(stats: ErrorStats, references: References, case: str, plan: Plan, output: str) -> str:
    """Return that an output is zero because its terms cancel, and the engine's is their rounding; else nothing."""
    if not stats.zero_expected or stats.zero_actual or stats.nonfinite_actual:
        return ""
    terms = references.graph.terms_of(references.inputs[case], output)
    if not stats.absolute["max"] <= CANCELLED * UNIT_ROUNDOFF[plan.computes_in] * terms:
        return ""
    return Sentence("zeros_cancelled", terms=terms, max=stats.absolute["max"])


def has_tf32(backend: Backend) -> bool:
    """Return whether a backend may compute in TF32."""
    return "tf32" in backend.precisions


def tolerance_for(
    output: str, limit: float | None, tolerances: Mapping[str, Tolerance], plan: Plan
) -> Tolerance | None:
    """Return the explicit limit of an output: of the whole run, else by its name, the plan's, or the plan's precision.

    A plan of fp16 may lose what fp16 may lose.
    """
    if limit is not None:
        return Tolerance(why=_LIMIT_WHY, relative_l2=limit)
    names = (output, plan.name, plan.computes_in)
    return next((tolerances[name] for name in names if name in tolerances), None)


def _tf32_floor(references: References, case: str, name: str, expected: torch.Tensor) -> ErrorStats | None:
    """Return what PyTorch loses in TF32; None where there is no TF32 to measure."""
    try:
        floor = references.floor(case, load_plan("tf32"))
    except NotJudged:
        return None
    low, right = ({name: it} for it in (floor.outputs[name], expected))
    return _floor_stats(*(references.valid.counted(case, it)[name] for it in (low, right)))


def _reference_error(references: References, case: str, name: str) -> ErrorStats | None:
    """Return how far the FP32 reference is from FP64; None where there is no FP64."""
    try:
        both = (references.reference(case, precision) for precision in ("fp32", "fp64"))
        return compare(*(references.valid.counted(case, {name: outputs[name]})[name] for outputs in both))
    except ParityError:
        return None


def _floor_stats(floor: torch.Tensor, expected: torch.Tensor) -> ErrorStats | None:
    """Return the figures of a floor; None where it has another shape, which no engine is to blame for."""
    return compare(floor, expected) if floor.shape == expected.shape else None
