"""What quantisation costs: an engine's outputs against the unquantised subject in FP32.

Beside parity and never part of it: there is no floor, only a limit that somebody set, and without one no verdict.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from harness import limits
from harness.compare import compare
from harness.errors import EngineFailed, ParityError, UsageError
from harness.graph import is_quantised
from harness.memory import guarded
from harness.metrics import measure
from harness.records import CostResult, Decisions, MetricResult, OutputResult, Verdict, overall
from harness.sentences import Sentence, joined
from harness.subject import Subject, Tolerance
from harness.tensors import Tensors, like
from harness.verify.decisions import judge_decisions
from harness.verify.result import worst_reason
from harness.verify.run import run_repeatedly
from harness.verify.target import OpenTarget, Outcome, Run
from harness.verify.tolerance import judge_output

NO_LIMIT = Sentence("cost_no_limit")
NOT_ASKED = Sentence("cost_not_asked")
_GIVE = Sentence("cost_give")


def with_cost(opened: OpenTarget, case: str, outcome: Outcome) -> Outcome:
    """Return an outcome with the cost of quantisation, where there are outputs and an unquantised subject.

    Raises UsageError where the two do not take the same inputs or give the same outputs, by name and shape.
    """
    subject, result = opened.run.subject, outcome.result
    if outcome.repeats is None:
        return outcome
    if subject.against is None:
        if subject.onnx is None or not is_quantised(opened.run.prepared.program.model):
            return outcome
        noted = dataclasses.replace(result, notes=(*result.notes, NOT_ASKED))
        return dataclasses.replace(outcome, result=noted)
    opened.say("computing the unquantised model", case)
    against = subject.against.name
    try:
        with limits.work(subject.name, "computing the unquantised model"), guarded(f"{subject.name}/{case}"):
            expected = unquantised(opened.run, case)
            actual = like(expected, _named_as(outcome.repeats.worst, expected))
            cost = judge_cost(subject, actual, expected, counted=partial(opened.run.prepared.valid.counted, case))
            sha256 = opened.run.unquantised.graph.identity.weights_sha256
            cost = dataclasses.replace(cost, weights_sha256=sha256)
    except UsageError:
        raise
    except ParityError as error:
        cost = CostResult(against=against, verdict="not_judged", reason=str(error))
    assert result.verdict != "known"  # the ledger comes later
    verdict = overall([result.verdict, cost.verdict])
    result = dataclasses.replace(result, cost=cost)
    if verdict != outcome.result.verdict:
        result = dataclasses.replace(result, verdict=verdict, reason=f"cost: {cost.reason}")
        if verdict == "fail":
            on = shlex.join(["-b", result.backend, "-p", opened.target.precision])
            step = f"parity bisect {subject.as_typed} --quant {on}"
            result = dataclasses.replace(result, failure="wrong_answer", next_step=step if subject.onnx else "")
    return dataclasses.replace(outcome, result=result)


def engine_cost(opened: OpenTarget, case: str, *, exact: Tensors, expected: Tensors) -> CostResult:
    """Return what an engine's quantisation costs, without a verdict on its parity: by its worst run.

    ``exact`` is what its graph gives in exact fake-quantisation, ``expected`` the unquantised outputs. Raises NotJudged
    where there is no engine here, EngineFailed where it does not run or gives other outputs than declared.
    """
    run, name = opened.run, opened.run.subject.name
    counted = partial(run.prepared.valid.counted, case)
    with limits.work(name, "running the engine"), guarded(f"{name}/{case}"):
        opened.check()
        if opened.is_pytorch:
            actual = run.prepared.references.floor(case, opened.plan).outputs
        else:
            session, given = opened.load(), opened.inputs(case)
            own = run.prepared.graph.output_dtypes if opened.plan.as_file else {}
            actual = run_repeatedly(
                lambda: opened.steps.run("running", lambda: session.run(given)),
                inputs=given, expected=exact, declared={name: own.get(name, it.dtype) for name, it in exact.items()},
                on_gpu=opened.on_gpu, runs=run.settings.runs, counted=counted,
            ).worst  # fmt: skip
        return judge_cost(run.subject, like(exact, actual), expected, counted=counted)


def unquantised(run: Run, case: str) -> Tensors:
    """Return the FP32 outputs of the unquantised subject for a case.

    Raises UsageError where it does not take the same inputs, by name and shape.
    """
    against = run.subject.against
    assert against is not None
    what = Sentence("cost_other_inputs", name=run.subject.name, name_2=against.name)
    ours = run.prepared.inputs[case]
    try:
        theirs = run.unquantised.inputs[case]
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from error
    if _shapes(ours) != _shapes(theirs):
        raise UsageError(f"{what}: {_words(ours)} and {_words(theirs)}")
    return run.unquantised.references.reference(case, "fp32")


def judge_cost(
    subject: Subject,
    actual: Tensors,
    expected: Tensors,
    *,
    counted: Callable[[Tensors], Tensors] = lambda outputs: outputs,
) -> CostResult:
    """Return what quantisation costs by the subject's limits, of which there may be none.

    ``counted`` gives outputs with 0 for what does not count; metrics see all of them.
    """
    assert subject.against is not None
    against, actual = subject.against.name, _named_as(actual, expected)
    tolerances = subject.cost if isinstance(subject.cost, Mapping) else dict.fromkeys(expected, subject.cost)
    if unknown := sorted(set(tolerances) - set(expected)):
        raise UsageError(f"{subject.name}: cost= names {unknown[0]!r}, which is no output ({', '.join(expected)})")
    ours, theirs = counted(actual), counted(expected)
    without = Sentence("cost_metrics_decide") if subject.cost_metrics else NO_LIMIT
    outputs = [
        _judged(name, ours[name], wanted, tolerances.get(name), against=against, without=without)
        for name, wanted in theirs.items()
    ]
    metrics = [measure(metric, actual, expected) for metric in subject.cost_metrics]
    verdict, reason = _overall(outputs, metrics, [name for name, one in tolerances.items() if one is not None])
    return CostResult(against=against, verdict=verdict, reason=reason, outputs=tuple(outputs), metrics=tuple(metrics))


def _overall(
    outputs: Sequence[OutputResult], metrics: Sequence[MetricResult], limited: Sequence[str]
) -> tuple[Verdict, str]:
    """Return the verdict of what has a limit; beside a task metric an output without one can only fail."""
    counted = [one for one in outputs if one.name in limited or one.verdict == "fail"]
    if limited and not metrics:
        counted = list(outputs)
    verdict = overall([*(one.verdict for one in counted), *(one.verdict for one in metrics)])
    if not counted and not metrics:
        largest = max((one.stats.relative_l2 for one in outputs if one.stats is not None), default=None)
        found = "" if largest is None else Sentence("cost_error", largest=largest)
        return "not_judged", Sentence("cost_unlimited", what=NO_LIMIT, found=found, give=_GIVE)
    if any(one.verdict == verdict for one in counted):
        return verdict, worst_reason(counted, verdict)
    decided = next(one for one in metrics if one.verdict == verdict)
    return verdict, Sentence("of", name=decided.name, reason=decided.reason)


def _judged(
    name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: Tolerance | None, *, against: str, without: str
) -> OutputResult:
    """Return the verdict on one output; ``without`` says what it means that it has no limit."""
    if not expected.is_floating_point():
        return _judged_codes(name, actual, expected, tolerance)
    try:
        stats = compare(actual, expected, name=name)
    except EngineFailed as error:
        return OutputResult(name=name, verdict="fail", reason=str(error))
    found = judge_output(name, stats, precision="fp32", tolerance=tolerance)
    if stats.nan_expected or not stats.compared or (found.verdict == "fail" and not found.allowed):
        return found  # wrong, or nothing to compare, at any limit
    reason = Sentence("cost_error_from", relative_l2=stats.relative_l2, against=against)
    if tolerance is None:
        return dataclasses.replace(found, verdict="not_judged", reason=joined((reason, without)))
    figures = {"relative_l2": stats.relative_l2, "max_absolute": stats.absolute["max"], "cosine": stats.cosine}
    held: list[str] = [
        Sentence("figure_allowed", figure=figure, figures=figures[figure], limit=limit)
        for figure, limit in found.allowed.items()
    ]
    if held:
        reason = Sentence("cost_held", reason=reason, held=held, why=tolerance.why)
    return dataclasses.replace(found, reason=reason if held else found.reason)


def _judged_codes(name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: Tolerance | None) -> OutputResult:
    """Return the verdict on indices, labels or booleans: those that differ are counted, by ``max_absolute`` limited."""
    if actual.shape != expected.shape:
        shapes = Sentence("shape_of_unquantised", shape=list(actual.shape), shape_2=list(expected.shape))
        return OutputResult(name=name, verdict="fail", reason=shapes)
    away = (actual.to(torch.int64) - expected.to(torch.int64)).abs()
    counts = Decisions(
        shape=tuple(expected.shape), dtype=str(actual.dtype).removeprefix("torch."), elements=expected.numel(),
        differ=int((away != 0).sum()), largest=int(away.max()) if away.numel() else 0,
        zero=not (actual.any() or expected.any()),
    )  # fmt: skip
    if tolerance is not None and tolerance.max_absolute is not None:
        codes = Tolerance(why=tolerance.why, max_absolute=tolerance.max_absolute)
        return judge_decisions(name, counts, precision="fp32", tolerance=codes)
    if tolerance is not None and not counts.differ:
        return judge_decisions(name, counts, precision="fp32")
    reason = Sentence("cost_codes_differ", differ=counts.differ, elements=counts.elements, what=NO_LIMIT)
    return OutputResult(name=name, verdict="not_judged", reason=reason, decisions=counts)


def _named_as(actual: Tensors, expected: Tensors) -> Tensors:
    """Return outputs by the names of the unquantised ones; a single output needs no name to be known.

    Raises UsageError where their names differ.
    """
    if set(actual) == set(expected):
        return {name: actual[name] for name in expected}
    if len(actual) == len(expected) == 1:
        return dict(zip(expected, actual.values(), strict=True))
    raise UsageError(
        f"the quantised model gives {', '.join(sorted(actual))} and the unquantised one {', '.join(sorted(expected))}; "
        "the cost needs the same outputs, by name"
    )


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _words(tensors: Tensors) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(_shapes(tensors).items()))
