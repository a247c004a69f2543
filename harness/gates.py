"""The questions a bisection asks before anything is blamed; what would make all others moot comes first."""

from __future__ import annotations

import dataclasses

from harness import compare
from harness.backends.run_alone import run_serialised
from harness.errors import NotJudged, ParityError, UsageError
from harness.hunt import Hunt
from harness.precision import is_fp32
from harness.prepare import Prepared
from harness.reference import sha256_of, total_error
from harness.results import OutputResult, Result
from harness.subject import Target
from harness.tolerance import FACTOR, Tolerance

SAME = 2.0**-14
"""An FP32 graph in ONNX Runtime against PyTorch: other kernels, the same mathematics."""
_LIMIT_WHY = "the limit this search was asked for"


def prepare(hunt: Hunt) -> str:
    """Make the subject ready and return the hash of its inputs. Raises Stop where there is no reference."""
    prepared = _prepared_or_stop(hunt)
    if hunt.limit is not None:
        names = prepared.output_dtypes(hunt.case)
        tolerance = Tolerance(why=_LIMIT_WHY, relative_l2=hunt.limit)
        hunt.session.subject = dataclasses.replace(hunt.subject, tolerances=dict.fromkeys(names, tolerance))
        loses = total_error(prepared.reference(hunt.case, "fp32"), prepared.reference(hunt.case, "fp64"))
        if loses > hunt.limit:
            raise UsageError(f"--limit {hunt.limit:.3g} is below what FP32 itself loses ({loses:.3g}); give more")
    return sha256_of(prepared.inputs(hunt.case))


def _prepared_or_stop(hunt: Hunt) -> Prepared:
    try:
        prepared = hunt.session.prepared
        prepared.reference(hunt.case, "fp32")
    except NotJudged as error:
        question = "is the reference repeatable?" if "not repeatable" in str(error) else "is there a reference?"
        hunt.gate(question, "no", str(error))
        hunt.stop("not_judged", str(error))
    return prepared


def first_run(hunt: Hunt, low: Result, inputs_sha256: str) -> None:
    """Record what the first run shows; the questions that make all others moot come first."""
    same = sha256_of(hunt.session.prepared.inputs(hunt.case)) == inputs_sha256
    words = f"the same tensors, sha256 {inputs_sha256[:12]}" if same else "the engine changed its inputs"
    hunt.gate("are the inputs equal?", "yes" if same else "no", words)
    if not same:
        hunt.stop("engine", f"{hunt.target.backend} writes into its inputs, so nothing after that is comparable")
    hunt.gate("is the reference repeatable?", "yes", "two runs of PyTorch agree")
    if low.verdict == "not_judged":
        question = "can the engine be judged?" if low.outputs else "does the engine run?"
        hunt.gate(question, "no", low.reason)
        hunt.stop("not_judged", low.reason)
    repeatable = low.repeatable is not False
    words = "two runs give the same bits" if repeatable else "two runs differ; the worse one is judged"
    hunt.gate("is the engine repeatable?", "yes" if repeatable else "no", words)
    bad = [output for output in low.outputs if output.stats and output.stats.nonfinite_actual]
    words = "; ".join(f"{o.name}: {o.stats.nonfinite_actual} of {o.stats.elements} not" for o in bad if o.stats)
    hunt.gate("is everything finite?", "no" if bad else "yes", words or "every output is")
    if low.verdict == "pass":
        loses = "" if hunt.limit is not None else "; to make it better than that, give --limit"
        hunt.gate("is the engine wrong?", "no", low.reason)
        hunt.stop("none", f"nothing to repair: {low.reason}{loses}")


def fp32_engine(hunt: Hunt, low: Result) -> tuple[Result, bool]:
    """Return the FP32 engine's verdict, and False where it is wrong: then precision is not the question."""
    target = Target(hunt.target.backend, "fp32")
    result = low if is_fp32(hunt.base_plan()) else hunt.judge_target(target)
    tf32 = _is_tf32(result)
    if result.verdict == "pass" or tf32:
        words = f"{result.reason}; it computes FP32 in TF32" if tf32 else result.reason
        hunt.gate("is the FP32 engine right?", "yes", words)
        return result, True
    if result.verdict == "not_judged":
        hunt.gate("is the FP32 engine right?", "not asked", result.reason)
        hunt.notes.append(f"the FP32 engine could not be judged: {result.reason}")
        return result, True
    hunt.gate("is the FP32 engine right?", "no", result.reason)
    return result, False


def _is_tf32(result: Result) -> bool:
    """Return whether a failed FP32 engine is wrong only by computing in TF32."""
    failed = [output for output in result.outputs if output.verdict == "fail"]
    return bool(failed) and all("computes in TF32" in output.reason or _tf32_sized(output) for output in failed)


def _tf32_sized(output: OutputResult) -> bool:
    stats = output.stats
    return stats is not None and not stats.nonfinite_actual and SAME <= stats.relative_l2 <= FACTOR * 2.0**-11


def low_engine(hunt: Hunt, low: Result) -> None:
    """Record that the engine is wrong, and whether PyTorch in the same precision is as wrong."""
    hunt.gate("is the engine wrong?", "yes", low.reason)
    worse = not hunt.floor_is_wrong()
    floors = ", ".join(f"{o.name} {o.floor.relative_l2:.3g}" for o in low.outputs if o.floor)
    said = f"PyTorch {hunt.format()} loses {floors}" if floors else "PyTorch gives nothing finite either"
    hunt.gate("is it worse than PyTorch in the same precision?", "yes" if worse else "no", said)


def one_kernel_at_a_time(hunt: Hunt) -> bool:
    """Ask whether the outputs depend on the order in which kernels happen to run; return whether they do."""
    with hunt.session.target(hunt.target) as opened:
        outputs = opened.outputs(hunt.case)
        if outputs is None or opened.engine is None or not next(iter(outputs[0].values())).is_cuda:
            return False
        hunt.say("running the engine once more, one kernel at a time")
        try:
            alone = run_serialised(hunt.target.backend, opened.engine.path, hunt.session.prepared.inputs(hunt.case))
        except ParityError as problem:
            hunt.gate("is it the same with one kernel at a time?", "not asked", str(problem))
            return False
    actual, expected = outputs
    same = all(compare.bitwise_equal(alone[name], tensor.cpu()) for name, tensor in actual.items())
    if same:
        hunt.gate("is it the same with one kernel at a time?", "yes", "bit for bit")
        return False
    error = total_error(alone, {name: tensor.cpu() for name, tensor in expected.items()})
    words = f"then the outputs are {error:.3g} from the reference (CUDA_LAUNCH_BLOCKING=1)"
    hunt.gate("is it the same with one kernel at a time?", "no", words)
    hunt.advice.append(
        "the outputs change when kernels run one at a time | kernels of the engine overlap that must not: one "
        "reads what another has not written yet | until that is repaired, run with CUDA_LAUNCH_BLOCKING=1 or use "
        "the plan"
    )
    return True
