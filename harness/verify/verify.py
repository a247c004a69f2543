"""From a subject and its targets to verdicts: prepare, build, load, run, compare, judge."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from harness import limits
from harness.backends import Engine, lost_gpu
from harness.errors import EngineFailed, Failure, NotJudged, ParityError, TookTooLong, UsageError
from harness.graph import Plan, input_specs
from harness.memory import guarded
from harness.records import Attempt, CodesResult, OutputResult, Result, Verdict, overall
from harness.reference import StaleReference
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.tensors import Tensors
from harness.verify.codes import judge_quantised
from harness.verify.cost import with_cost
from harness.verify.inputs import generated_words, sizes_notes
from harness.verify.judging import compare_outputs, floor_of, judge_outputs, valid_note
from harness.verify.prepare import prepare
from harness.verify.result import engine_info, next_step, provenance, with_attempts, worst_reason
from harness.verify.run import Repeats, run_repeatedly
from harness.verify.settling import Settled, settle
from harness.verify.shapes import with_shapes
from harness.verify.target import OpenTarget, Outcome, Run
from harness.verify.weights import infinite_words


def verify(
    subject: Subject,
    *,
    targets: Sequence[Target],
    cases: Sequence[str],
    settings: Settings,
    judge: Callable[[OpenTarget, str], Result] | None = None,
) -> Iterator[Result]:
    """Yield one result per target and case; an engine is freed before the next one is built.

    ``judge`` gives the result of an opened target and a case, by default its verdict. Trouble with a backend or a
    subject is a result (``fail`` or ``not_judged``). UsageError is raised.
    """
    run = Run(subject, settings)
    for target in targets:
        with run.target(target) as opened:
            for case in cases:
                yield verify_case(opened, case).result if judge is None else judge(opened, case)


def verify_case(opened: OpenTarget, case: str) -> Outcome:
    """Return the verdict on one case of one target, with the outputs it is about. Raises UsageError only.

    A second call returns the first one's outcome. What failed in a way that ``settings.retry_on`` names is tried again;
    a wrong answer is none of these.
    """
    if case not in opened.outcomes:
        opened.outcomes[case] = with_cost(opened, case, _best_attempt(opened, case))
    return opened.outcomes[case]


def _best_attempt(opened: OpenTarget, case: str) -> Outcome:
    """Return the outcome of the last attempt, with a record of all where there were several."""
    settings, tried = opened.run.settings, list[Attempt]()
    while True:
        outcome = _attempt(opened, case)
        result = outcome.result
        tried.append(Attempt(verdict=result.verdict, failure=result.failure, reason=result.reason))
        left = settings.retries + 1 - len(tried)
        if result.failure not in settings.retry_on or result.limit in ("--run-timeout", "--budget") or not left:
            break
        if lost := lost_gpu():
            result = dataclasses.replace(result, notes=(*result.notes, f"not tried again: {lost}"))
            break
        opened.say(
            Sentence(
                "attempt_ended",
                count=len(tried),
                count_2=len(tried) + left,
                failure=result.failure,
                reason=result.reason,
            ),
            case,
        )
        opened.renew(anew=result.failure == "timeout")
    if len(tried) > 1:
        result = with_attempts(result, tried, settings.retries + 1)
    return dataclasses.replace(outcome, result=result)


def _attempt(opened: OpenTarget, case: str) -> Outcome:
    """Return the verdict of one attempt. This is the whole job, from top to bottom."""
    started, spent = time.perf_counter(), dict(opened.steps.spent_s)
    plan = opened.plan
    failure: Failure = ""
    limit = ""
    repeats: Repeats | None = None
    expected: Tensors | None = None
    outputs: tuple[OutputResult, ...] = ()
    notes: tuple[str, ...] = ()
    codes: CodesResult | None = None
    try:
        with limits.work(opened.run.subject.name, "judging its outputs"), guarded(f"{opened.run.subject.name}/{case}"):
            opened.check()
            prepared = opened.run.prepared
            references, inputs = prepared.references, prepared.inputs
            if opened.is_pytorch:  # there is no engine: its outputs are the floor
                expected = references.expected(case, plan)
                repeats = Repeats(worst=references.floor(case, plan).outputs)
            else:
                opened.build()
                session = opened.load()
                expected = references.expected(case, plan)
                opened.say("running the engine", case)
                given = opened.inputs(case)
                repeats = run_repeatedly(
                    lambda: opened.steps.run("running", lambda: session.run(given)),
                    inputs=given,
                    expected=expected,
                    declared=opened.declared(case),
                    on_gpu=opened.on_gpu,
                    runs=opened.run.settings.runs,
                    counted=partial(prepared.valid.counted, case),
                )
            outputs, notes, settled, codes = _judged(opened, case, repeats.worst, expected)
            outputs = with_shapes(opened, case, outputs, repeats, settled)
            if opened.run.subject.onnx is not None:
                notes = (*notes, *sizes_notes(input_specs(prepared.program.model), inputs[case]))
            of_codes = [codes.verdict] if codes is not None and codes.decides else []
            verdict: Verdict = overall([*(output.verdict for output in outputs), *of_codes])
            if verdict != "pass":
                limits.check(met=True)  # or an excuse that was not looked for in time would be missing
        reason = worst_reason(outputs, verdict, codes)
        failure = "wrong_answer" if verdict == "fail" else ""
    except StaleReference as error:
        verdict, reason, failure = "fail", str(error), "wrong_answer"
    except EngineFailed as error:
        verdict, reason, failure = "fail", str(error), error.failure
    except NotJudged as error:
        verdict, reason, failure, outputs = "not_judged", str(error), error.failure, ()
        limit = error.option if isinstance(error, TookTooLong) else ""
    generated = generated_words(opened.run.subject, case)
    if generated:
        notes = (*notes, Sentence("case_is_generated", case=case, generated=generated))
    differ = Sentence("not_repeatable", words=repeats.words()) if repeats is not None and repeats.differing else ""
    if differ:
        notes = (*notes, differ)
        reason += Sentence("then", text=differ) if verdict == "fail" else ""
    result = Result(
        subject=opened.run.subject.name,
        case=case,
        backend=opened.target.backend,
        precision=opened.target.precision_name,
        source=opened.run.subject.source,
        plan_source=opened.plan_source,
        verdict=verdict,
        reason=reason,
        failure=failure,
        limit=limit,
        engine=engine_info(opened),
        provenance=provenance(opened, case),
        outputs=outputs,
        codes=codes,
        repeatable=None if repeats is None or opened.is_pytorch else not repeats.differing,
        generated=generated,
        runs=None if repeats is None or opened.is_pytorch else repeats.runs,
        notes=tuple(dict.fromkeys([*(opened.engine.report.notes if opened.engine else ()), *notes])),
        next_step=next_step(opened, case) if verdict == "fail" else "",
        owner=opened.run.subject.owner,
        timings_s={"judge": time.perf_counter() - started, **opened.steps.since(spent)},
    )
    return Outcome(result=result, repeats=repeats, expected=expected)


def judged_by(
    opened: OpenTarget, case: str, plan: Plan | None = None, *, actual: Tensors | None = None
) -> tuple[OutputResult, ...]:
    """Return the verdicts on a case of a target with the floor that PyTorch has in another plan, or in the target's.

    ``actual`` are outputs in the place of the target's own. What keeps the case from being judged at all is the verdict
    of :func:`verify_case`, whose outputs are returned then.
    """
    if actual is not None:
        expected = opened.run.prepared.references.expected(case, opened.plan)
        return _judged(opened, case, actual, expected, plan)[0]
    outcome = verify_case(opened, case)
    if outcome.repeats is None or outcome.expected is None:
        return outcome.result.outputs
    return _judged(opened, case, outcome.repeats.worst, outcome.expected, plan)[0]


def _judged(
    opened: OpenTarget, case: str, actual: Tensors, expected: Tensors, other: Plan | None = None
) -> tuple[tuple[OutputResult, ...], tuple[str, ...], Settled, CodesResult | None]:
    """Return the verdicts on outputs by the floor of the target's plan, or another one, notes, and what was right.

    Of a quantised engine the verdict on its codes is returned too.
    """
    plan, prepared = other or opened.plan, opened.run.prepared
    if prepared.graph.is_quantised and not opened.is_pytorch:
        outputs, codes = judge_quantised(opened, case, actual, plan)
        return outputs, prepared.references.notes(case), Settled(expected=expected, floor=None), codes
    floor, notes = floor_of(prepared.references, case, plan)
    alike, low = (it and prepared.valid.as_in(case, it, expected) for it in (actual, floor))
    assert alike is not None
    settled = settle(prepared, case, plan, alike, expected, low)
    compared = compare_outputs(
        actual, settled.expected, settled.floor, precision=plan.computes_in, decisions=settled.decisions,
        wide=partial(prepared.references.floor_with_wide, case, plan), valid=prepared.valid.of(case, expected),
    )  # fmt: skip
    notes = (*prepared.references.notes(case), *notes, *settled.notes)
    notes = (*notes, *(output.note for output in compared if output.note), *valid_note(compared))
    if any(output.stats is not None and output.stats.nonfinite_expected for output in compared):
        infinite = infinite_words(prepared.graph.weights.items())
        notes = (*notes, Sentence("reference_infinite", infinite=infinite)) if infinite else notes
    return judge_outputs(opened, case, compared, other), notes, settled, None


def update_references(subject: Subject, cases: Sequence[str], settings: Settings) -> Iterator[Path]:
    """Compute and store the FP32 reference and the FP64 truth of these cases; yield each file when it is written."""
    with limits.work(subject.name, "preparing the model"):
        references = prepare(subject, settings).references
    for case in cases:
        with limits.work(subject.name, f"computing the reference of {case!r}"):
            path = references.save(case)
        yield path


def build_engines(
    subject: Subject, targets: Sequence[Target], settings: Settings
) -> Iterator[tuple[Target, Engine | ParityError]]:
    """Yield the engine of every target, built or found in the cache, or why there is none. Raises UsageError."""
    run = Run(subject, settings)
    for target in targets:
        with run.target(target) as opened:
            built: Engine | ParityError
            try:
                with limits.work(subject.name, "making the engine ready"):
                    built = opened.build()
            except UsageError:
                raise
            except ParityError as error:
                built = error
            yield target, built
