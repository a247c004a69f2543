"""From "the output is wrong" to whose fault it is, what to keep in FP32, and a plan that passes.

The order of the questions is the method: what is cheap to know and would make all else moot comes first. Plans are
searched in PyTorch and confirmed on the engine; a fault of the engine's own is found by looking into it or, where
looking changes it, by building parts of the graph alone. Nothing is inferred: a plan that is reported was seen to pass.
"""

from __future__ import annotations

import math
import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from harness import layers
from harness.backends import BACKENDS, environment
from harness.bisect import plan_search, questions
from harness.bisect.regions import CASE, ExportFault, Region, Regions, export_fault
from harness.bisect.reproducer import Spec, write
from harness.bisect.screening import Screen, Units, plain, require_float
from harness.bisect.search import smallest_interval
from harness.bisect.state import Hunt, Stop, few
from harness.errors import NotJudged, ParityError, UsageError
from harness.graph import is_fp32, order
from harness.layers import local_ratio, worst_first
from harness.records import Bisection, LayerReport, OutputResult, Result, ValueFinding, is_nonfinite
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.verify import FACTOR, Run, has_tf32, is_tf32, write_graph

MAX_BUILDS = 30


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
    """Return whose fault a wrong engine is, the smallest plan that was seen to pass, and a reproducer.

    ``limit`` is the relative L2 error that outputs may have, where the limit derived from PyTorch is not the question.
    The plan is written to ``plan_file`` whenever a smaller one passes, so an interruption loses nothing. ``width``
    plans are built at a time through ``executor``, which must share this process's memory (threads will do: builders
    are processes of their own). Raises UsageError for a request that makes no sense; other trouble is in the result.
    """
    if max_builds < 1:
        raise UsageError(f"--max-builds {max_builds} leaves nothing to confirm a plan with; give at least 1")
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(f"--limit {limit} is not a relative error; give a number above 0, such as 1e-3")
    with tempfile.TemporaryDirectory(prefix="parity-bisect-") as folder:
        hunt = Hunt(
            subject, target, case, settings, folder=Path(folder), max_builds=max_builds, limit=limit,
            plan_file=plan_file, reproducer_folder=reproducer, executor=executor, width=width,
        )  # fmt: skip
        return _run(hunt)


def _run(hunt: Hunt) -> Bisection:
    """Ask the questions in their order; whatever ends the search, what was found is kept."""
    try:
        _search(hunt)
    except Stop:
        pass
    except KeyboardInterrupt:
        hunt.complete, hunt.interrupted = False, True
        hunt.notes.append("interrupted: this is what was found so far")
        hunt.finding = hunt.finding or "interrupted before there was a finding"
    except UsageError:
        raise
    except ParityError as error:
        hunt.complete = False
        hunt.finding = hunt.finding or str(error)
        hunt.notes.append(str(error))
    return Bisection(
        subject=hunt.subject.name, case=hunt.case, backend=hunt.target.backend, precision=hunt.target.precision_name,
        kind=hunt.kind, finding=hunt.finding, advice=(*hunt.advice, *_commands(hunt)), gates=tuple(hunt.gates),
        region=hunt.region, plan=hunt.plan,
        plan_file=str(hunt.plan_file) if hunt.plan is not None and hunt.plan_file else "",
        reproducer=hunt.reproducer, price=hunt.price, trials=tuple(hunt.trials), builds=hunt.builds,
        gate_builds=hunt.builds if hunt.gate_builds is None else hunt.gate_builds, max_builds=hunt.max_builds,
        complete=hunt.complete, interrupted=hunt.interrupted, notes=tuple(dict.fromkeys(hunt.notes)),
    )  # fmt: skip


def _search(hunt: Hunt) -> None:
    inputs = questions.prepare(hunt)
    low = hunt.judge_target(hunt.target)
    questions.first_run(hunt, low, inputs)
    fp32, right = questions.fp32_engine(hunt, low)
    if not right:
        _find_in_fp32(hunt, fp32)
    else:
        if fp32 is not low:
            questions.low_engine(hunt, low)
        hunt.gate_builds = hunt.builds
        if hunt.floor_is_wrong():
            _find_precision(hunt)
        else:
            _find_engine(hunt, low)
    if hunt.plan is not None and not hunt.interrupted:
        hunt.price = plan_search.price(hunt)


def _find_in_fp32(hunt: Hunt, fp32: Result) -> None:
    """Say whether the export or the engine is at fault for an FP32 engine that is wrong."""
    fault = _export_fault(hunt)
    if fault is not None:
        _report_export(hunt, fault)
        return
    if not is_fp32(hunt.base_plan()):
        hunt.notes.append("the FP32 engine is wrong too, so what follows is about FP32")
        hunt.target = Target(hunt.target.backend, "fp32")
    _find_engine(hunt, fp32)


def _find_precision(hunt: Hunt) -> None:
    screen = Screen(hunt.session.prepared, hunt.case, hunt.base_plan(), hunt.right)
    require_float(screen.units)
    found = screen.search(hunt.say)
    hunt.trials += screen.trials[-3:]
    hunt.kind = "precision"
    if found is None:
        hunt.finding = f"PyTorch {hunt.format()} is as wrong, and no set of values kept in FP32 makes it right"
        hunt.advice.append(
            "PyTorch is wrong with everything in FP32 | the limit is tighter than FP32 itself | give a larger --limit"
        )
        return
    hunt.region = found
    hunt.finding = f"precision: PyTorch {hunt.format()} loses as much; {few(found)} in FP32 makes it right"
    place = len(hunt.advice)
    try:
        rest = [unit for unit in screen.rank(screen.units.coarse()) if unit not in found]
        plan_search.confirm(hunt, list(found), rest)
    finally:  # an engine may need less than PyTorch does
        hunt.advice.insert(
            place,
            f"PyTorch {hunt.format()} fails as the engine does | the format, not the engine, cannot hold these values "
            f"| {'use the plan' if hunt.plan is not None else f'keep {few(found)} in FP32'}",
        )


def _find_engine(hunt: Hunt, low: Result) -> None:
    hunt.kind = "engine"
    races = questions.one_kernel_at_a_time(hunt)
    plan = hunt.base_plan()
    hunt.regions = regions = Regions(hunt.session, hunt.case, hunt.target, plan, hunt.folder / "regions")
    report = _look(hunt)
    hunt.gate_builds = hunt.builds  # looking is a question too
    regions.may_build = partial(_may_build, hunt)
    suspects = _suspects(report) if report is not None else []
    may_be_tf32 = is_fp32(plan) and has_tf32(BACKENDS[hunt.target.backend])
    hunt.only_tf32 = may_be_tf32 and is_tf32(low.outputs)
    regions.beyond_tf32 = may_be_tf32 and not hunt.only_tf32
    regions.nonfinite_only = bool(report and not report.trusted and is_nonfinite(low))
    region = None if regions.nonfinite_only else _region_of_suspects(hunt, regions, report, suspects)
    if region is None:
        region = _region_by_parts(hunt, regions)
    if region is None and regions.nonfinite_only:
        regions.nonfinite_only = False
        region = _region_of_suspects(hunt, regions, report, suspects)
    values = list(region.names) if region else [value.name for value in suspects[:1]]
    hunt.region = tuple(values)
    _say_engine(hunt, values, races=races)
    place = len(hunt.advice)
    try:
        if region is not None:
            _write_reproducer(hunt, region)
        if is_fp32(plan) or plan.tf32:
            return
        if races and hunt.fp32_races:
            hunt.notes.append("no plan was looked for: FP32 engines race too, so one that passes once may fail again")
            return
        plan_search.confirm(hunt, _units_of(hunt, values, suspects), _other_units(hunt, report), ops=_ops(suspects))
    finally:  # what to do depends on what the search found, however it ended
        hunt.advice[place:place] = [_tf32_advice(hunt)] if hunt.only_tf32 else _engine_advice(hunt, suspects)
        if races and hunt.plan is not None:
            hunt.notes.append(
                "the plan passed every run; kernels that do not wait may pass by chance, so keep CUDA_LAUNCH_BLOCKING=1"
            )


def _say_engine(hunt: Hunt, values: Sequence[str], *, races: bool) -> None:
    backend = hunt.target.backend
    where = _where(hunt, values) or "a place that could not be narrowed down"
    if hunt.only_tf32:
        hunt.finding = f"engine: {backend} computes FP32 in TF32, its error is of that size, and it shows in {where}"
        return
    how = ", because its kernels do not wait for each other" if races else ""
    hunt.finding = f"engine: PyTorch in {hunt.format()} is right and {backend} is not{how}; it goes wrong in {where}"


def _tf32_advice(hunt: Hunt) -> str:
    backend = hunt.target.backend
    send = "; the reproducer shows it to the engine's maker" if hunt.reproducer else ""
    return (
        f"the error is of the size of TF32's | {backend} rounds the factors of FP32 products to 11 bits here; the "
        f"model is not at fault | ask for what you get, -p tf32, or use another backend where FP32 matters{send}"
    )


def _engine_advice(hunt: Hunt, suspects: Sequence[ValueFinding]) -> list[str]:
    """Return what to do about a wrong kernel; nothing that was seen to fail, nor more than a plan that passes."""
    backend = hunt.target.backend
    actions = ["use the plan"] if hunt.plan is not None else []
    if hunt.reproducer:
        actions.append("send the reproducer to the engine's maker")
    advice = [
        f"PyTorch {hunt.format()} is right, the engine is not | a kernel of {backend} is at fault, not the model "
        f"and not the format | {', and '.join(actions) or f'use another version of {backend}'}"
    ]
    for op, count in Counter(value.op for value in suspects if value.local).most_common(3):
        worst = max((value for value in suspects if value.op == op), key=local_ratio)
        action = _keep_action(hunt, f"op:{op}", f"op:{op}" if count > 1 else f"value:{worst.name}")
        advice.append(
            f"{count} value{'s' * (count > 1)} of {op} made wrong, {worst.name} by {worst.local:.3g} where PyTorch "
            f"loses {worst.local_floor or 0:.3g} | the kernels of {backend} for it are less exact than "
            f"{hunt.format()} | {action}"
        )
    return advice


def _keep_action(hunt: Hunt, op: str, smallest: str) -> str:
    """Return what a plan can do about values made wrong, by the pattern of their operator and the smallest one."""
    plan = hunt.base_plan()
    if is_fp32(plan):
        return "no plan can help: it is in FP32 already"
    if plan.tf32:
        return "ask for -p fp32"
    if hunt.plan is not None:
        return f'keep "{op}" in FP32' if op in hunt.plan else "nothing beyond the plan, which passes"
    failed = {pattern for trial in hunt.trials if trial.passed is False for pattern in trial.keep_fp32}
    if tried := failed & {op, smallest}:
        return f'keeping "{min(tried)}" in FP32 was tried and is not enough'
    return f'keep "{smallest}" in FP32'


def _look(hunt: Hunt) -> LayerReport | None:
    """Look into the engine; None where that is impossible."""
    try:
        with hunt.session.target(hunt.target) as opened:
            report = layers.look(opened, hunt.case)
    except NotJudged as error:
        hunt.notes.append(f"the engine could not be looked into: {error}")
        return None
    hunt.notes += report.notes
    return report


def _may_build(hunt: Hunt) -> bool:
    hunt.complete &= hunt.left > 0
    return hunt.left > 0


def _region_of_suspects(
    hunt: Hunt, regions: Regions, report: LayerReport | None, suspects: Sequence[ValueFinding]
) -> Region | None:
    """Return the smallest part around one of the worst suspects that fails alone, or None."""
    seen = {value.name for value in report.values if value.status == "compared"} if report else set()
    for name in [value.name for value in suspects if value.name in regions.order][:3]:
        if (found := regions.around(regions.upstream(name, seen - {name}))) is not None:
            return found
    return None


def _region_by_parts(hunt: Hunt, regions: Regions) -> Region | None:
    """Return the smallest part that fails alone, found by halving the graph."""
    hunt.say("looking for the smallest part of the graph that fails on its own")
    budget = max(1, hunt.left // 2 if regions.nonfinite_only else hunt.left)
    found = smallest_interval(len(regions.order), regions.fails_between, max_calls=budget)
    if found.interrupted:
        raise KeyboardInterrupt
    part = tuple(regions.order[found.start : found.stop])
    return regions.failing.get(part) or min(regions.failing.values(), key=lambda r: len(r.names), default=None)


def _units_of(hunt: Hunt, values: Sequence[str], suspects: Sequence[ValueFinding]) -> list[str]:
    """Return the modules that the fault shows in, the worst first."""
    table = hunt.session.prepared.program.values
    named = [value.name for value in suspects] + list(values)
    units = [plain(table[name].module) or f"value:{table[name].origin}" for name in named if name in table]
    return list(dict.fromkeys(units))


def _other_units(hunt: Hunt, report: LayerReport | None) -> list[str]:
    """Return the leaf modules by how wrong they are made, or in dataflow order."""
    if report is not None:
        compared = worst_first([value for value in report.values if value.status == "compared"])
        names = [plain(value.module) or f"value:{value.name}" for value in compared]
    else:
        values = Units.of(hunt.session.prepared.program.values).values.values()
        names = [plain(value.module) or f"value:{value.origin}" for value in values]
    return list(dict.fromkeys(names))


def _write_reproducer(hunt: Hunt, region: Region) -> None:
    """Write the region as a folder of its own; one that does not show the fault is not delivered."""
    folder = hunt.reproducer_folder or Path("reports") / f"{hunt.subject.name}-{hunt.target}-reproducer"
    target = Target(hunt.target.backend, region.precision)
    with Run(region.subject, hunt.settings).target(target) as opened, tempfile.TemporaryDirectory() as scratch:
        prepared, plan = opened.run.prepared, opened.plan
        graph = Path(scratch) / "graph.onnx"
        write_graph(prepared, plan, graph)
        spec = Spec(
            title=f"{hunt.target.backend} {region.precision_name}: wrong result in {len(region.names)} operations",
            backend=hunt.target.backend,
            tf32=plan.tf32,
            precision=region.precision_name,
            graph=graph,
            inputs=prepared.inputs[CASE],
            expected=prepared.references.reference(CASE, "fp32"),
            limits={output.name: _allowed(output) for output in region.result.outputs},
            finding=hunt.finding,
            notes=(*(f"the whole model: {g.question} {g.answer}: {g.detail}" for g in hunt.gates), *hunt.notes),
            environment=environment(hunt.settings),
            weights=hunt.subject.weights,
            inputs_kind=hunt.subject.inputs,
            full_model=f"{hunt.subject.as_typed}, {len(order(hunt.session.prepared.program.model))} values",
        )
        try:
            hunt.reproducer = str(write(folder, spec, progress=hunt.settings.progress).folder)
        except ParityError as error:
            hunt.notes.append(f"no reproducer: {error}")


def _export_fault(hunt: Hunt) -> ExportFault | None:
    hunt.say("holding the ONNX graph against PyTorch, operation by operation")
    try:
        return export_fault(hunt.session.prepared, hunt.case, limit=questions.SAME)
    except NotJudged as error:
        hunt.notes.append(f"the export could not be checked: {error}")
        return None


def _report_export(hunt: Hunt, fault: ExportFault) -> None:
    value = hunt.session.prepared.program.values[fault.name]
    hunt.kind, hunt.region = "export", (fault.name,)
    hunt.finding = (
        f"export: the ONNX graph already differs from PyTorch in {fault.name} ({value.op}"
        f"{', ' + value.module if value.module else ''}{', ' + value.source if value.source else ''}), by "
        f"{fault.error:.3g} on the same inputs in FP32"
    )
    hunt.advice.append(
        f"ONNX Runtime in FP32 differs from PyTorch in {fault.name} | {value.op} was translated to something else "
        "| rewrite that operation in the model, or use another version of PyTorch's exporter"
    )


def _where(hunt: Hunt, values: Sequence[str]) -> str:
    table = hunt.session.prepared.program.values
    rows = [table[name] for name in values if name in table]
    modules = list(dict.fromkeys(plain(row.module) for row in rows if row.module))
    return f"{few(values)} ({few(modules)})" if modules else few(values)


def _commands(hunt: Hunt) -> list[str]:
    commands = [f"{hunt.command('verify', hunt.target.precision)} --layers"]
    if hunt.only_tf32:
        commands.append(hunt.command("verify", "tf32"))
    if hunt.plan is not None and hunt.plan_file is not None:
        commands.append(hunt.command("verify", str(hunt.plan_file)))
    if hunt.reproducer:
        commands.append(shlex.join(["python", f"{hunt.reproducer}/reproduce.py"]))
    return commands


def _suspects(report: LayerReport) -> list[ValueFinding]:
    """Return the values where the error is made: non-finite ones first, in dataflow order, the others by ratio."""
    compared = [value for value in report.values if value.status == "compared"]
    first = [value for value in compared if value.mark == "nonfinite"]
    others = [value for value in compared if value.mark in ("suspect", "flip")]
    return [*first, *sorted(others, key=lambda value: -local_ratio(value))]


def _ops(suspects: Sequence[ValueFinding]) -> list[str]:
    """Return operators that several suspects share, most of them first: one pattern for a fault in many places."""
    counts = Counter(value.op for value in suspects if value.op.startswith("aten."))
    return [op for op, count in counts.most_common() if count > 1]


def _allowed(output: OutputResult) -> float:
    """Return the relative L2 error an output may have; where the verdict needed no limit, that of its floor."""
    if "relative_l2" in output.allowed:
        return output.allowed["relative_l2"]
    return FACTOR * output.floor.relative_l2 if output.floor is not None else math.nan
