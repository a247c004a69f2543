"""The steps of a bisection: where a wrong output comes from, what to keep in FP32, and a plan that passes.

Steps that cost few runs and can end the search come first. Plans are searched in PyTorch and confirmed on the engine.
A fault of the engine is located by observing its values or, where that changes the result, by building parts of the
graph alone. A plan that is reported has passed on the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness import limits
from harness.bisect import advice, questions
from harness.bisect.context import Context
from harness.bisect.culprits import diagnosis_of_engine, diagnosis_of_precision, harmless_in, look_at
from harness.bisect.export_check import check_exported_graph, computes_its_graph
from harness.bisect.findings import Findings
from harness.bisect.goals import aim_of
from harness.bisect.places import Places, search_places
from harness.bisect.plan_search import price, search_plan
from harness.bisect.races import race_in, race_in_fp32
from harness.bisect.region_reproducer import write_region
from harness.bisect.screening import Screen
from harness.bisect.units import candidates_in_engine
from harness.compare import total_error
from harness.errors import NotJudged, ParityError, UsageError
from harness.graph import is_fp32, is_quantised, open_onnx
from harness.layers import compare_layers
from harness.memory import guarded
from harness.records import Bisection
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.temporary import temporary_folder
from harness.tensors import sha256_of

MAX_BUILDS = 30
Step = Callable[[Context, Findings], Findings]


def bisect(
    subject: Subject,
    target: Target,
    case: str,
    settings: Settings,
    *,
    max_builds: int = MAX_BUILDS,
    limit: float | None = None,
    plan_file: Path | None = None,
    reproducer: Path | None = None,
    executor: Executor | None = None,
    width: int = 1,
) -> Bisection:
    """Return where the error of a wrong engine comes from, the smallest plan that passed, and a reproducer.

    ``limit`` is the relative L2 error that outputs may have, in place of the derived limits. The plan is written to
    ``plan_file`` whenever a smaller one passes, so an interruption loses nothing. ``width`` plans are built at a time
    through ``executor``, a pool of threads (it must share this process's memory). Raises UsageError for an option out
    of range; any other problem is in the result.
    """
    found = Findings(target=target)
    subject = replace(subject, against=None, cost=None, cost_metrics=())  # what quantisation costs is no fault
    if found.base_plan.as_file and not (subject.onnx and is_quantised(open_onnx(subject.onnx_file))):
        what = Sentence("typed_as_is", precision=target.precision, name=subject.name)
        raise UsageError(f"{what}; give the precision that it is computed in, such as -p fp16")
    with temporary_folder() as folder, guarded(subject.name):
        context = Context(
            subject=subject, target=target, case=case, settings=settings, folder=folder, max_builds=max_builds,
            limit=limit, plan_file=plan_file, reproducer=reproducer, executor=executor, width=width,
        )  # fmt: skip
        try:
            with limits.search(subject.name, "bisecting"):
                found = run_steps(STEPS, context, found)
        except limits.TimeIsUp:  # before the first step
            found = replace(found, interrupted=True)
        return _record(context, found)


def run_steps(steps: tuple[Step, ...], context: Context, found: Findings) -> Findings:
    """Run the steps in their order until one ends the bisection; return the findings, after an interruption too."""
    for step in steps:
        try:
            if found.ended or found.interrupted:
                break
            found = step(context, found)
        except KeyboardInterrupt:
            found = replace(found, interrupted=True)
        except UsageError:
            raise
        except ParityError as error:
            found = replace(found, complete=False).noted(str(error)).ending(found.kind, found.finding or str(error))
    return found


def judge_target(context: Context, found: Findings) -> Findings:
    """Check the reference, the inputs and the outputs, and judge the engine."""
    case = context.case
    try:
        reference = (references := context.prepared.references).reference(case, "fp32")
    except NotJudged as error:
        return found.asked(questions.no_reference(error)).ending("not_judged", str(error))
    if (limit := context.limit) is not None:
        both = (reference, references.reference(case, "fp64"))
        own = total_error(*(context.prepared.valid.counted(case, outputs) for outputs in both))
        if own > limit:
            raise UsageError(f"--limit {limit:.3g} is below the error of FP32 itself ({own:.3g}); give a larger one")
    inputs = context.prepared.inputs[case]
    before = sha256_of(inputs)
    outcome = context.judge(found.target)
    after, result = sha256_of(inputs), outcome.result
    found = found.asked(questions.inputs_unchanged(before, after))
    if after != before:
        return found.ending("engine", Sentence("writes_inputs", backend=found.target.backend))
    found = replace(found.asked(questions.REFERENCE_REPEATS), result=result)
    if result.verdict == "not_judged" and not found.loses_too_much:
        return found.asked(questions.not_judged(result)).ending("not_judged", result.reason)
    found = found.asked(*questions.about_outputs(outcome))
    if result.verdict == "pass":
        less = "" if limit is not None else Sentence("ask_smaller")
        return found.ending("none", Sentence("nothing_to_repair", reason=result.reason, less=less))
    if result.codes is not None:
        return found.noted(advice.OF_CODES).ending("engine", result.reason)
    return found


def judge_fp32(context: Context, found: Findings) -> Findings:
    """Judge the FP32 engine: where it fails, the precision is not the cause."""
    target = Target(found.target.backend, "fp32")
    asked = is_fp32(found.base_plan)
    result = found.failure if asked else context.judge(target).result
    # An FP32 engine that computes in TF32 passes for a plan in a lower format, and fails where FP32 is requested.
    only_tf32 = not asked and questions.computes_in_tf32(target, result.outputs)
    found = found.asked(questions.fp32_right(result, asked=asked, only_tf32=only_tf32))
    if result.verdict == "not_judged":
        return found.noted(Sentence("fp32_not_judged", reason=result.reason))
    if result.verdict == "pass" or only_tf32:
        return replace(found, fp32_right=True)
    if asked:
        return found
    if result.repeatable is False:
        race = race_in_fp32(context.run, target, context.case)
        found = replace(found, fp32_races=race.races).asked(*race.questions)
        if race.races:
            found = found.noted(Sentence("fp32_right_alone"))
            return replace(found, fp32_right=True)
    return replace(found, target=target, result=result).noted(Sentence("fp32_wrong_too"))


def check_export(context: Context, found: Findings) -> Findings:
    """Compare the exported graph with PyTorch where no engine has shown that it is right; a file was not exported."""
    if found.fp32_right or context.subject.onnx is not None:
        return found
    context.say(found.target, "comparing the ONNX graph with PyTorch")
    try:
        with context.run.target(found.target) as opened:
            check = check_exported_graph(opened, context.case)
    except NotJudged as error:
        return found.noted(Sentence("export_not_checked", error=error))
    found = found.asked(questions.export_right(check))
    if check.diagnosis is None or not check.diagnosis.culprits:
        return found.ending("not_judged", advice.undecided(check)) if check.undecided else found
    names = tuple(culprit.value for culprit in check.diagnosis.culprits)
    found = replace(found, export=check.diagnosis, diagnosis=check.diagnosis, region=names)
    if computes_its_graph(context, found.target):
        return found.ending("export", advice.export_finding(check.diagnosis))
    return found.noted(Sentence("engine_not_graph"))


def compare_with_pytorch(context: Context, found: Findings) -> Findings:
    """Judge PyTorch in the same precision: where it fails, the precision is the cause, else the engine."""
    if is_fp32(found.base_plan):
        return replace(found, kind="engine")
    case, plan = context.case, found.base_plan
    floor = context.prepared.references.floor(case, plan)
    passes = questions.would_pass(context.run, case, plan, floor.outputs)
    found = found.asked(questions.pytorch_right(found.failure, plan, passes=passes))
    return replace(found, kind="engine" if passes else "precision")


def run_one_kernel_at_a_time(context: Context, found: Findings) -> Findings:
    """Run a wrong engine once more without overlapping kernels: a smaller error shows a race."""
    if found.kind != "engine":
        return found
    race = race_in(context.run, found.target, context.case)
    return replace(found, races=race.races).asked(*race.questions)


def observe_values(context: Context, found: Findings) -> Findings:
    """Compare the values inside a wrong engine with PyTorch, where they can be observed."""
    if found.kind != "engine":
        return found
    try:
        with context.run.target(found.target) as opened:
            report = compare_layers(opened, context.case)
    except NotJudged as error:
        return found.noted(Sentence("values_not_seen", error=error))
    diagnosis = diagnosis_of_engine(look_at(report), Places(), found.export, context.prepared.program.values)
    found = replace(found, report=report, diagnosis=diagnosis).noted(*report.notes)
    return replace(found, finding=advice.engine_finding(found)) if diagnosis.culprits else found


def find_region(context: Context, found: Findings) -> Findings:
    """Search the values at fault: in PyTorch for a fault of the precision, else in parts of the graph built alone."""
    context.budget.begin_search()
    return _find_in_pytorch(context, found) if found.kind == "precision" else _find_in_engine(context, found)


def _find_in_pytorch(context: Context, found: Findings) -> Findings:
    case, plan, precision = context.case, found.base_plan, found.target.precision
    aim = aim_of(context.run, case, precision, found.failure)
    screened = Screen(context.run, case, precision, aim).search(partial(context.say, found.target))
    stopped = screened.interrupted
    found = replace(found, screened=screened, region=screened.region, aim=screened.aim, interrupted=stopped)
    if stopped and not screened.region:
        return found
    cause = context.prepared.references.first_beyond(case, plan) if found.without_floor else ""
    return replace(
        found, candidates=screened.candidates if screened.region else None, cause=cause,
        finding=advice.precision_finding(plan, screened.region, few=screened.few, cause=cause),
        diagnosis=diagnosis_of_precision(screened, context.prepared.program.values, cause),
    )  # fmt: skip


def _find_in_engine(context: Context, found: Findings) -> Findings:
    values, result, report = context.prepared.program.values, found.failure, found.report
    precision, look = found.target.precision, look_at(report)
    places = search_places(context, found.target, result, report, look, overlapping=found.races)
    diagnosis = diagnosis_of_engine(look, places, found.export, values, harmless=harmless_in(report))
    parts = [place.region for place in places.found]
    region = parts[0].names if parts else tuple(culprit.value for culprit in diagnosis.culprits[:1])
    concerned = [culprit.value for culprit in diagnosis.culprits if culprit.made_by == "engine"]
    concerned += [name for part in parts for name in part.names]
    found = replace(
        found, diagnosis=diagnosis, region=region, part=parts[0] if parts else None,
        only_tf32=questions.is_only_tf32(found.target, result.outputs),
        candidates=candidates_in_engine(values, concerned, report),
        aim=None if found.base_plan.dtype == "fp32" else aim_of(context.run, context.case, precision, result),
        complete=found.complete and places.complete, interrupted=places.interrupted,
    )  # fmt: skip
    if found.interrupted and not found.region:
        return found
    return replace(found, finding=advice.engine_finding(found))


def write_reproducer(context: Context, found: Findings) -> Findings:
    """Write the part of the graph that fails alone as a reproducer, which is kept only if it shows the fault."""
    if found.part is None:
        return found
    try:
        return replace(found, reproducer=str(write_region(context, found, found.part)))
    except ParityError as error:
        return found.noted(Sentence("no_reproducer_since", error=error))


def find_plan(context: Context, found: Findings) -> Findings:
    """Search the smallest plan that passes on the engine."""
    if found.candidates is None or is_fp32(found.base_plan) or found.base_plan.tf32:
        return found
    if found.races and found.fp32_races:
        return found.noted(Sentence("no_plan_searched"))
    assert found.aim is not None
    plans = search_plan(context, found.target, found.candidates, found.aim)
    found = replace(found, plans=plans, complete=found.complete and plans.complete, interrupted=plans.interrupted)
    if found.screened is not None and (words := plans.disagreement(found.screened.trials)):
        found = found.noted(words)
    if found.races and found.plan is not None:
        found = found.noted(Sentence("plan_may_pass_by_chance"))
    return found


def time_plan(context: Context, found: Findings) -> Findings:
    """Time the plan's engine beside full low precision and full FP32."""
    if found.plan is None:
        return found
    try:
        return replace(found, price=price(context, found.target, found.plan))
    except ParityError as error:
        return found.noted(Sentence("plan_not_timed", error=error))


STEPS: tuple[Step, ...] = (
    judge_target, judge_fp32, check_export, compare_with_pytorch, run_one_kernel_at_a_time, observe_values, find_region,
    write_reproducer, find_plan, time_plan,
)  # fmt: skip


def _record(context: Context, found: Findings) -> Bisection:
    budget, finding, notes, time_is_up = context.budget, found.finding, found.notes, limits.time_was_up()
    if found.interrupted:
        why = str(time_is_up or "interrupted")
        until = Sentence("until_finding") if found.kind == "not_judged" else Sentence("until_values")
        finding = finding or Sentence("ended_before", why=why, until=until)
        notes = (*notes, Sentence("found_so_far", why=why))
    return Bisection(
        subject=context.subject.name, case=context.case, backend=found.target.backend,
        precision=found.target.precision_name, kind=found.kind, finding=finding, advice=advice.advice_on(found),
        commands=advice.commands_for(context, found), gates=found.questions,
        result=replace(found.result, next_step="") if found.result is not None else None, races=found.races,
        diagnosis=found.diagnosis, cause=found.cause, region=found.region, plan=found.plan,
        plan_values=found.plans.values if found.plans else None,
        goal=found.aim.goal if found.aim and found.candidates else None,
        by_values=found.screened.by_values if found.screened else (),
        plan_file=str(context.plan_file) if found.plan is not None and context.plan_file else "",
        reproducer=found.reproducer, price=found.price, trials=found.trials, builds=budget.built,
        gate_builds=budget.for_questions, max_builds=budget.most,
        complete=found.complete and not found.interrupted, interrupted=found.interrupted and time_is_up is None,
        limit=time_is_up.option if found.interrupted and time_is_up else "",
        notes=tuple(dict.fromkeys(notes)),
    )  # fmt: skip
