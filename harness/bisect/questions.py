"""The questions of a bisection, each answered from figures that were measured before."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Literal

from harness.backends import BACKENDS
from harness.bisect.export_check import ExportCheck
from harness.compare import compare
from harness.errors import NotJudged, NotRepeatable
from harness.graph import Plan, is_fp32, load_plan
from harness.records import IS_WRONG, OutputResult, Question, Result, Verdict, overall
from harness.sentences import Sentence, joined
from harness.subject import Target
from harness.tensors import Tensors
from harness.verify import Outcome, Run, has_tf32, is_tf32, judge_output, tolerance_for, worst_reason

_REPEATABLE = Sentence("q_reference_repeats")


def answered(question: str, yes: bool, detail: str, *, good: Literal["yes", "no"] = "yes") -> Question:
    """Return a question answered yes or no."""
    return Question(question=question, answer="yes" if yes else "no", detail=detail, good=good)


REFERENCE_REPEATS = answered(_REPEATABLE, True, Sentence("two_runs_agree"))
"""Asked wherever there is a reference: it exists only where two runs of PyTorch agree."""


def no_reference(error: NotJudged) -> Question:
    """Return the question that ends the bisection of a subject without a reference."""
    question = _REPEATABLE if isinstance(error, NotRepeatable) else Sentence("q_reference")
    return answered(question, False, str(error))


def inputs_unchanged(before: str, after: str) -> Question:
    """Return whether the engine left its inputs unchanged, by their hashes."""
    words = Sentence("sha256_same", before=before[:12]) if before == after else Sentence("writes_into_them")
    return answered(Sentence("q_inputs"), before == after, words)


def not_judged(result: Result) -> Question:
    """Return the question that ends the bisection of an engine without a verdict."""
    return answered(Sentence("q_judged") if result.outputs else Sentence("q_runs"), False, result.reason)


def about_outputs(outcome: Outcome) -> list[Question]:
    """Return whether the outputs are repeatable, finite and right."""
    result, repeats = outcome.result, outcome.repeats
    asked = []
    if result.repeatable is not None and repeats is not None:
        words = repeats.words() or Sentence("runs_same_bits", runs=repeats.runs)
        asked.append(answered(Sentence("q_repeatable"), not repeats.differing, words))
    stats = [(output.name, output.stats) for output in result.outputs if output.stats]
    bad = [
        Sentence("elements_are_not", name=name, nonfinite_actual=s.nonfinite_actual, elements=s.elements)
        for name, s in stats
        if s.nonfinite_actual
    ]
    asked.append(answered(Sentence("q_finite"), not bad, joined(bad) or Sentence("no_nan")))
    asked.append(answered(IS_WRONG, result.verdict != "pass", result.reason, good="no"))
    return asked


def fp32_right(result: Result, *, asked: bool, only_tf32: bool) -> Question:
    """Return whether the FP32 engine is right; ``asked`` says that it is the engine in question.

    An FP32 engine that computes in TF32 is right for a plan in a lower precision.
    """
    question = Sentence("q_fp32")
    words = Sentence("engine_in_question") if asked else result.reason
    words = Sentence("but_tf32", words=words) if only_tf32 else words
    if result.verdict == "not_judged":
        return Question(question=question, answer="not asked", detail=words)
    return answered(question, result.verdict == "pass" or only_tf32, words)


def export_right(check: ExportCheck) -> Question:
    """Return whether the exported graph is right, by its own error."""
    words = Sentence("computed_exactly", error=check.error)
    reason = (
        ""
        if check.right
        else Sentence("then", text=worst_reason(check.judged, overall(it.verdict for it in check.judged)))
    )
    return answered(Sentence("q_export"), check.right, words + reason)


def computes_in_tf32(target: Target, outputs: Sequence[OutputResult]) -> bool:
    """Return whether the error of a failed FP32 engine is no larger than TF32's, on a backend that has TF32."""
    return has_tf32(BACKENDS[target.backend]) and is_tf32(outputs)


def is_only_tf32(target: Target, outputs: Sequence[OutputResult]) -> bool:
    """Return whether FP32 is requested, and the error is no larger than that of computing in TF32."""
    return is_fp32(load_plan(target.precision)) and computes_in_tf32(target, outputs)


def pytorch_right(result: Result, plan: Plan, *, passes: bool) -> Question:
    """Return whether PyTorch in the same precision is right, with its error: the floor."""
    errors = [(output.name, output.floor.relative_l2) for output in result.outputs if output.floor]
    figures = [
        Sentence("name_error", name=name, error=error) if isfinite(error) else Sentence("name_not_finite", name=name)
        for name, error in errors
    ]
    words = Sentence("floor_error", precision=plan.computes_in, figures=joined(figures, ", ") or Sentence("not_finite"))
    return answered(Sentence("q_pytorch"), passes, words)


def would_pass(run: Run, case: str, plan: Plan, outputs: Tensors) -> bool:
    """Return whether outputs of PyTorch would pass as an engine's: within a given limit, else finite and not all 0.

    What PyTorch decides otherwise than in FP32 is within its own error, so decisions pass.
    """
    verdicts: list[Verdict] = []
    counted, reference = run.prepared.valid.counted, run.prepared.references.reference(case, "fp32")
    outputs = counted(case, outputs)
    for name, tensor in counted(case, reference).items():
        if not tensor.is_floating_point():
            verdicts.append("pass")
            continue
        stats = compare(outputs[name], tensor, name=name)
        tolerance = tolerance_for(name, run.limit, run.subject.tolerances, plan)
        judged = judge_output(
            name, stats, precision=plan.computes_in, floor=stats, tolerance=tolerance, is_floor=tolerance is None
        )
        verdicts.append(judged.verdict)
    return overall(verdicts) == "pass"
