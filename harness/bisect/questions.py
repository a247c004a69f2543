"""The questions a bisection asks before anything is blamed; what would make all others moot comes first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness import compare
from harness.backends import BACKENDS, run_serialised
from harness.bisect.state import Hunt
from harness.compare import total_error
from harness.errors import NotJudged, NotRepeatable, ParityError, UsageError
from harness.graph import is_fp32
from harness.records import IS_WRONG, NOT_REPEATABLE, OutputResult, Result, overall
from harness.subject import Target
from harness.tensors import Tensors, on_devices_of, sha256_of
from harness.verify import (
    OpenTarget,
    Prepared,
    compare_outputs,
    floor_of,
    has_tf32,
    is_tf32,
    judge_outputs,
    verify_case,
    worst_reason,
)

SAME = 2.0**-14
"""An FP32 graph in ONNX Runtime against PyTorch: other kernels, the same mathematics."""
_RACE = (
    "the outputs change when kernels run one at a time | kernels of the engine overlap that must not: one reads what "
    "another has not written yet | until that is repaired, run with CUDA_LAUNCH_BLOCKING=1"
)


def prepare(hunt: Hunt) -> str:
    """Make the subject ready and return the hash of its inputs. Raises Stop where there is no reference."""
    prepared = _prepared_or_stop(hunt)
    if hunt.limit is not None:
        references = prepared.references
        loses = total_error(references.reference(hunt.case, "fp32"), references.reference(hunt.case, "fp64"))
        if loses > hunt.limit:
            raise UsageError(f"--limit {hunt.limit:.3g} is below what FP32 itself loses ({loses:.3g}); give more")
    return sha256_of(prepared.inputs[hunt.case])


def _prepared_or_stop(hunt: Hunt) -> Prepared:
    try:
        prepared = hunt.session.prepared
        prepared.references.reference(hunt.case, "fp32")
    except NotJudged as error:
        unrepeatable = isinstance(error, NotRepeatable)
        question = "is the reference repeatable?" if unrepeatable else "is there a reference?"
        hunt.gate(question, "no", str(error))
        hunt.stop("not_judged", str(error))
    return prepared


def first_run(hunt: Hunt, low: Result, inputs_sha256: str) -> None:
    """Record what the first run shows; the questions that make all others moot come first."""
    same = sha256_of(hunt.session.prepared.inputs[hunt.case]) == inputs_sha256
    words = f"the same tensors, sha256 {inputs_sha256[:12]}" if same else "the engine changed its inputs"
    hunt.gate("are the inputs equal?", "yes" if same else "no", words)
    if not same:
        hunt.stop("engine", f"{hunt.target.backend} writes into its inputs, so nothing after that is comparable")
    hunt.gate("is the reference repeatable?", "yes", "two runs of PyTorch agree")
    if low.verdict == "not_judged":
        question = "can the engine be judged?" if low.outputs else "does the engine run?"
        hunt.gate(question, "no", low.reason)
        hunt.stop("not_judged", low.reason)
    differ = next((note for note in low.notes if note.startswith(NOT_REPEATABLE)), "")
    if low.repeatable is not None:
        words = differ.removeprefix(f"{NOT_REPEATABLE}: ") or "all runs give the same bits"
        hunt.gate("is the engine repeatable?", "no" if differ else "yes", words)
    bad = [output for output in low.outputs if output.stats and output.stats.nonfinite_actual]
    words = "; ".join(f"{o.name}: {o.stats.nonfinite_actual} of {o.stats.elements} not" for o in bad if o.stats)
    hunt.gate("is everything finite?", "no" if bad else "yes", words or "every output is")
    if low.verdict == "pass":
        loses = "" if hunt.limit is not None else "; to make it better than that, give --limit"
        hunt.gate(IS_WRONG, "no", low.reason)
        hunt.stop("none", f"nothing to repair: {low.reason}{loses}")


def fp32_engine(hunt: Hunt, low: Result) -> tuple[Result, bool]:
    """Return the FP32 engine's verdict, and False where it is wrong: then precision is not the question.

    One that computes in TF32 is right for a plan in a lower format, and wrong where FP32 itself is asked for.
    """
    target = Target(hunt.target.backend, "fp32")
    asked = is_fp32(hunt.base_plan())
    result = low if asked else hunt.judge_target(target)
    tf32 = not asked and _computes_in_tf32(target, result.outputs)
    if result.verdict == "pass" or tf32:
        words = f"{result.reason}; it computes FP32 in TF32" if tf32 else result.reason
        hunt.gate("is the FP32 engine right?", "yes", words)
        return result, True
    if result.verdict == "not_judged":
        hunt.gate("is the FP32 engine right?", "not asked", result.reason)
        hunt.notes.append(f"the FP32 engine could not be judged: {result.reason}")
        return result, True
    hunt.gate("is the FP32 engine right?", "no", result.reason)
    if result is low or result.repeatable is not False:
        return result, False
    return result, _is_right_serialised(hunt, target)


def _is_right_serialised(hunt: Hunt, target: Target) -> bool:
    """Return whether an FP32 engine whose runs differ is right when one kernel runs at a time; then it is a race."""
    question = "is the FP32 engine right with one kernel at a time?"
    found = _serialised(hunt, target, question)
    if found is None:
        return False
    outputs = _judged(found, hunt.case)
    verdict = overall(output.verdict for output in outputs)
    right = verdict == "pass" or _computes_in_tf32(target, outputs)
    hunt.gate(question, "yes" if right else "no", worst_reason(outputs, verdict))
    hunt.fp32_races = right
    if right:
        hunt.notes.append("the FP32 engine is right when its kernels wait; what follows is about precision")
        hunt.advice.append(_RACE)
    return right


def _computes_in_tf32(target: Target, outputs: Sequence[OutputResult]) -> bool:
    """Return whether a failed FP32 engine is wrong by no more than computing in TF32, where its backend may do that."""
    return has_tf32(BACKENDS[target.backend]) and is_tf32(outputs)


def low_engine(hunt: Hunt, low: Result) -> None:
    """Record that the engine is wrong, and whether PyTorch in the same precision is as wrong."""
    hunt.gate(IS_WRONG, "yes", low.reason)
    worse = not hunt.floor_is_wrong()
    floors = ", ".join(f"{o.name} {o.floor.relative_l2:.3g}" for o in low.outputs if o.floor)
    said = f"PyTorch {hunt.format()} loses {floors}" if floors else "PyTorch gives nothing finite either"
    hunt.gate("is it worse than PyTorch in the same precision?", "yes" if worse else "no", said)


def one_kernel_at_a_time(hunt: Hunt) -> bool:
    """Ask whether the outputs depend on the order in which kernels happen to run; return whether they do."""
    question = "is it the same with one kernel at a time?"
    found = _serialised(hunt, hunt.target, question)
    if found is None:
        return False
    if all(compare.bitwise_equal(found.alone[name], tensor) for name, tensor in found.actual.items()):
        hunt.gate(question, "yes", "bit for bit")
        return False
    alone, wrong = total_error(found.alone, found.expected), total_error(found.actual, found.expected)
    outputs = _judged(found, hunt.case)
    passes = "and it passes; " if overall(output.verdict for output in outputs) == "pass" else ""
    words = f"then the outputs are {alone:.3g} from the reference, {passes}as they are, {wrong:.3g}"
    hunt.gate(question, "no", f"{words} (CUDA_LAUNCH_BLOCKING=1)")
    if not alone < wrong / 2:
        return False  # other bits, as wrong: a sum in another order, not a kernel that does not wait
    if _RACE not in hunt.advice:
        hunt.advice.append(_RACE)
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Serialised:
    """An engine's worst run, and a run in which no kernel began before the one before it had ended."""

    opened: OpenTarget
    actual: Tensors
    expected: Tensors
    alone: Tensors


def _judged(found: _Serialised, case: str) -> tuple[OutputResult, ...]:
    """Return the verdicts on the run in which no kernel began before the one before it had ended."""
    plan = found.opened.plan
    floor, _ = floor_of(found.opened.run.prepared.references, case, plan)
    compared = compare_outputs(found.alone, found.expected, floor, precision=plan.computes_in)
    return judge_outputs(found.opened, case, compared)


def _serialised(hunt: Hunt, target: Target, question: str) -> _Serialised | None:
    """Run the engine once more, one kernel at a time; None where there is nothing to ask, or no answer."""
    with hunt.session.target(target) as opened:
        outcome = verify_case(opened, hunt.case)
        if outcome.repeats is None or outcome.expected is None or opened.engine is None or not opened.on_gpu:
            return None
        hunt.say("running the engine once more, one kernel at a time")
        try:
            alone = run_serialised(target.backend, opened.engine.path, hunt.session.prepared.inputs[hunt.case])
        except ParityError as problem:
            hunt.gate(question, "not asked", str(problem))
            return None
    return _Serialised(
        opened=opened, actual=outcome.repeats.worst, expected=outcome.expected,
        alone=on_devices_of(outcome.expected, alone),
    )  # fmt: skip
