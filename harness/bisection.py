"""From "the output is wrong" to whose fault it is, what to keep in FP32, and a plan that passes.

The order of the questions is the method: what is cheap to know and would make all else moot comes first. Plans are
searched in PyTorch and confirmed on the engine; a fault of the engine's own is found by looking into it or, where
looking changes it, by building parts of the graph alone. Nothing is inferred: a plan that is reported was seen to pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

from harness import compare, environment, layers, subgraph
from harness.backends.run_alone import run_serialised
from harness.errors import NotJudged, ParityError, UsageError
from harness.export import Tensors
from harness.findings import Bisection, Gate, Kind, LayerReport, Price, Trial, ValueFinding
from harness.latency import median_ms
from harness.observation import local_ratio, worst_first
from harness.precision import Plan, is_fp32, load_plan
from harness.reference import sha256_of
from harness.regions import CASE, ExportFault, Region, Regions, export_fault, write_plan
from harness.reproducer import Spec, write
from harness.results import OutputResult, Result
from harness.screening import Screen, Units, plain, require_float, total_error
from harness.search import smallest_interval, smallest_set
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.tolerance import FACTOR, Tolerance, judge
from harness.verify import Run, write_graph

MAX_BUILDS = 30
FEW = 8
"""Candidates that are tried all together, and then without each one of them; more are searched along the ranking."""
SHOWN = 4
"""Names that a sentence holds; the lists are elsewhere in the result."""
# An FP32 graph in ONNX Runtime against PyTorch: other kernels, the same mathematics.
SAME = 2.0**-14
_LIMIT_WHY = "the limit this search was asked for"


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
        search = _Search(subject, target, case, settings, Path(folder), max_builds, executor, width)
        search.limit, search.plan_file, search.reproducer_folder = limit, plan_file, reproducer
        return search.run()


class _Stop(Exception):
    """The search has come to its finding."""


class _Search:
    """One search, and what it knows so far."""

    def __init__(
        self,
        subject: Subject,
        target: Target,
        case: str,
        settings: Settings,
        folder: Path,
        max_builds: int,
        executor: Executor | None,
        width: int,
    ) -> None:
        self.subject, self.target, self.case, self.settings, self.folder = subject, target, case, settings, folder
        self.max_builds, self.executor, self.width = max_builds, executor, width
        self.limit: float | None = None
        self.plan_file: Path | None = None
        self.reproducer_folder: Path | None = None
        self.session_run = Run(subject, settings)
        self.gates: list[Gate] = []
        self.trials: list[Trial] = []
        self.notes: list[str] = []
        self.kind: Kind = "not_judged"
        self.finding = ""
        self.advice: list[str] = []
        self.region: tuple[str, ...] = ()
        self.plan: tuple[str, ...] | None = None
        self.price: Price | None = None
        self.reproducer = ""
        self.complete, self.interrupted = True, False
        self.regions: Regions | None = None
        self.gate_builds = 0
        """Engines that were built before the search began; they are no part of its budget."""

    @property
    def builds(self) -> int:
        """Engines built so far; those from the cache do not count."""
        return self.session_run.built + (self.regions.built if self.regions is not None else 0)

    @property
    def left(self) -> int:
        """Engines that may still be built."""
        return max(0, self.max_builds - (self.builds - self.gate_builds))

    def run(self) -> Bisection:
        """Ask the questions in their order."""
        try:
            self._run()
        except _Stop:
            pass
        except KeyboardInterrupt:
            self.complete, self.interrupted = False, True
            self.notes.append("interrupted: this is what was found so far")
            self.finding = self.finding or "interrupted before there was a finding"
        except UsageError:
            raise
        except ParityError as error:
            self.finding = self.finding or str(error)
            self.notes.append(str(error))
        return Bisection(
            subject=self.subject.name, case=self.case, backend=self.target.backend,
            precision=self.target.precision_name, kind=self.kind, finding=self.finding,
            advice=(*self.advice, *self._commands()), gates=tuple(self.gates), region=self.region, plan=self.plan,
            plan_file=str(self.plan_file) if self.plan is not None and self.plan_file else "",
            reproducer=self.reproducer, price=self.price, trials=tuple(self.trials), builds=self.builds,
            gate_builds=min(self.gate_builds or self.builds, self.builds), max_builds=self.max_builds,
            complete=self.complete, interrupted=self.interrupted,
            notes=tuple(dict.fromkeys(self.notes)),
        )  # fmt: skip

    def _run(self) -> None:
        self._prepare()
        low = self._judge_target(self.target)
        self._gate_repeatable(low)
        fp32 = self._gate_fp32(low)
        self._gate_low(low, fp32)
        self.gate_builds = self.builds
        if self._floor_is_wrong():
            self._find_precision()
        else:
            self._find_engine(low)
        self._finish()

    # The gates.

    def _prepare(self) -> None:
        prepared = self._prepared_or_stop()
        if self.limit is not None:
            names = prepared.output_dtypes(self.case)
            tolerance = Tolerance(why=_LIMIT_WHY, relative_l2=self.limit)
            self.session_run.subject = dataclasses.replace(self.subject, tolerances=dict.fromkeys(names, tolerance))
            loses = total_error(prepared.reference(self.case, "fp32"), prepared.reference(self.case, "fp64"))
            if loses > self.limit:
                raise UsageError(f"--limit {self.limit:.3g} is below what FP32 itself loses ({loses:.3g}); give more")
        self.inputs_sha256 = sha256_of(prepared.inputs(self.case))

    def _prepared_or_stop(self) -> Any:
        try:
            prepared = self.session_run.prepared
            prepared.reference(self.case, "fp32")
        except NotJudged as error:
            question = "is the reference repeatable?" if "not repeatable" in str(error) else "is there a reference?"
            self._gate(question, "no", str(error))
            self._stop("not_judged", str(error))
        return prepared

    def _gate_repeatable(self, low: Result) -> None:
        """Record what the first run shows; the questions that make all others moot come first."""
        same = sha256_of(self.session_run.prepared.inputs(self.case)) == self.inputs_sha256
        words = f"the same tensors, sha256 {self.inputs_sha256[:12]}" if same else "the engine changed its inputs"
        self._gate("are the inputs equal?", "yes" if same else "no", words)
        if not same:
            self._stop("engine", f"{self.target.backend} writes into its inputs, so nothing after that is comparable")
        self._gate("is the reference repeatable?", "yes", "two runs of PyTorch agree")
        if low.verdict == "not_judged" and not low.outputs:
            self._gate("does the engine run?", "no", low.reason)
            self._stop("not_judged", low.reason)
        repeatable = low.repeatable is not False
        words = "two runs give the same bits" if repeatable else "two runs differ; the worse one is judged"
        self._gate("is the engine repeatable?", "yes" if repeatable else "no", words)
        bad = [output for output in low.outputs if output.stats and output.stats.nonfinite_actual]
        words = "; ".join(f"{o.name}: {o.stats.nonfinite_actual} of {o.stats.elements} not" for o in bad if o.stats)
        self._gate("is everything finite?", "no" if bad else "yes", words or "every output is")
        if low.verdict == "pass":
            loses = "" if self.limit is not None else "; to make it better than that, give --limit"
            self._gate("is the engine wrong?", "no", low.reason)
            self._stop("none", f"nothing to repair: {low.reason}{loses}")

    def _gate_fp32(self, low: Result) -> Result:
        """Judge the FP32 engine: what is wrong already there is no question of precision."""
        target = Target(self.target.backend, "fp32")
        result = low if is_fp32(self._plan()) else self._judge_target(target)
        tf32 = self._is_tf32(result)
        if result.verdict == "pass" or tf32:
            words = f"{result.reason}; it computes FP32 in TF32" if tf32 else result.reason
            self._gate("is the FP32 engine right?", "yes", words)
            return result
        if result.verdict == "not_judged":
            self._gate("is the FP32 engine right?", "not asked", result.reason)
            self.notes.append(f"the FP32 engine could not be judged: {result.reason}")
            return result
        self._gate("is the FP32 engine right?", "no", result.reason)
        fault = self._export_fault()
        if fault is not None:
            self._report_export(fault)
        if not is_fp32(self._plan()):
            self.notes.append("the FP32 engine is wrong too, so what follows is about FP32")
            self.target = target
        self._find_engine(result)
        self._finish()
        raise _Stop

    def _is_tf32(self, result: Result) -> bool:
        """Return whether a failed FP32 engine is wrong only by computing in TF32."""
        failed = [output for output in result.outputs if output.verdict == "fail"]
        return bool(failed) and all("computes in TF32" in output.reason or _tf32_sized(output) for output in failed)

    def _gate_low(self, low: Result, fp32: Result) -> None:
        if low is fp32:
            return
        self._gate("is the engine wrong?", "yes", low.reason)
        worse = not self._floor_is_wrong()
        floors = ", ".join(f"{o.name} {o.floor.relative_l2:.3g}" for o in low.outputs if o.floor)
        said = f"PyTorch {self._format()} loses {floors}" if floors else "PyTorch gives nothing finite either"
        self._gate("is it worse than PyTorch in the same precision?", "yes" if worse else "no", said)

    def _floor_is_wrong(self) -> bool:
        """Return whether PyTorch in the same precision is as wrong as would fail an engine."""
        return not self._right(self.session_run.floor(self.case, self._plan()).outputs)

    def _right(self, outputs: Tensors) -> bool:
        """Return whether outputs of PyTorch would pass: within an explicit limit, else finite and not meaningless."""
        expected = self.session_run.prepared.reference(self.case, "fp32")
        tolerances = self.session_run.subject.tolerances
        for name, tensor in expected.items():
            stats = compare.compare(outputs[name], tensor, name=name)
            tolerance = (
                tolerances.get(name) or tolerances.get(self.target.precision_name) or tolerances.get(self._format())
            )
            options: dict[str, Any] = {
                "precision": self._format(),
                "tolerance": tolerance,
                "is_floor": tolerance is None,
            }
            if judge(name, stats, floor=stats, **options).verdict != "pass":
                return False
        return True

    # Precision: PyTorch loses as much.

    def _find_precision(self) -> None:
        screen = Screen(self.session_run.prepared, self.case, self._plan(), self._right)
        require_float(screen.units)
        found = screen.search(self._say)
        self.trials += screen.trials[-3:]
        self.kind = "precision"
        if found is None:
            self.finding = f"PyTorch {self._format()} is as wrong, and no set of values kept in FP32 makes it right"
            self.advice.append(
                "PyTorch is wrong with everything in FP32 | the limit is tighter than FP32 itself | give a larger "
                "--limit"
            )
            return
        self.region = found
        self.finding = f"precision: PyTorch {self._format()} loses as much; {_few(found)} in FP32 makes it right"
        self.advice.append(
            f"PyTorch {self._format()} fails as the engine does | the format, not the engine, cannot hold these values "
            f"| keep {_few(found)} in FP32"
        )
        self._confirm(list(found), [unit for unit in screen.rank(screen.units.coarse()) if unit not in found])

    # Engine: PyTorch is right and the engine is not.

    def _find_engine(self, low: Result) -> None:
        self.kind = "engine"
        races = self._gate_order()
        plan = self._plan()
        self.regions = regions = Regions(self.session_run, self.case, self.target, plan, self.folder / "regions")
        report = self._look()
        self.gate_builds = self.builds  # looking is a question too
        regions.may_build = self._may_build
        suspects = _suspects(report) if report is not None else []
        regions.nonfinite_only = bool(report and not report.trusted and _is_nonfinite(low))
        region = None if regions.nonfinite_only else self._region_of_suspects(regions, report, suspects)
        if region is None:
            region = self._region_by_parts(regions)
        if region is None and regions.nonfinite_only:
            regions.nonfinite_only = False
            region = self._region_of_suspects(regions, report, suspects)
        values = list(region.names) if region else [value.name for value in suspects[:1]]
        self.region = tuple(values)
        self._say_engine(values, suspects, races=races)
        if region is not None:
            self._write_reproducer(region)
        if not (is_fp32(plan) or plan.tf32):
            self._confirm(self._units_of(values, suspects), self._other_units(report), ops=_ops(suspects))

    def _say_engine(self, values: Sequence[str], suspects: Sequence[ValueFinding], *, races: bool) -> None:
        backend = self.target.backend
        where = self._where(values) or "a place that could not be narrowed down"
        how = ", because its kernels do not wait for each other" if races else ""
        self.finding = (
            f"engine: PyTorch in {self._format()} is right and {backend} is not{how}; it goes wrong in {where}"
        )
        self.advice.append(
            f"PyTorch {self._format()} is right, the engine is not | a kernel of {backend} is at fault, not the model "
            "and not the format | use the plan, and send the reproducer to the engine's maker"
        )
        for op, count in Counter(value.op for value in suspects if value.local).most_common(3):
            worst = max((value for value in suspects if value.op == op), key=local_ratio)
            self.advice.append(
                f"{count} value{'s' * (count > 1)} of {op} made wrong, {worst.name} by {worst.local:.3g} where PyTorch "
                f"loses {worst.local_floor or 0:.3g} | the kernels of {backend} for it are less exact than "
                f'{self._format()} | keep "op:{op}" in FP32'
            )

    def _gate_order(self) -> bool:
        """Ask whether the outputs depend on the order in which kernels happen to run; return whether they do."""
        with self.session_run.target(self.target) as opened:
            outputs = opened.outputs(self.case)
            if outputs is None or opened.engine is None or not next(iter(outputs[0].values())).is_cuda:
                return False
            self._say("running the engine once more, one kernel at a time")
            try:
                alone = run_serialised(
                    self.target.backend, opened.engine.path, self.session_run.prepared.inputs(self.case)
                )
            except ParityError as problem:
                self._gate("is it the same with one kernel at a time?", "not asked", str(problem))
                return False
        actual, expected = outputs
        same = all(compare.bitwise_equal(alone[name], tensor.cpu()) for name, tensor in actual.items())
        if same:
            self._gate("is it the same with one kernel at a time?", "yes", "bit for bit")
            return False
        error = total_error(alone, {name: tensor.cpu() for name, tensor in expected.items()})
        words = f"then the outputs are {error:.3g} from the reference (CUDA_LAUNCH_BLOCKING=1)"
        self._gate("is it the same with one kernel at a time?", "no", words)
        self.advice.append(
            "the outputs change when kernels run one at a time | kernels of the engine overlap that must not: one "
            "reads what another has not written yet | until that is repaired, run with CUDA_LAUNCH_BLOCKING=1 or use "
            "the plan"
        )
        return True

    def _look(self) -> LayerReport | None:
        """Look into the engine; None where that is impossible."""
        try:
            with self.session_run.target(self.target) as opened:
                report = layers.look(opened, self.case)
        except NotJudged as error:
            self.notes.append(f"the engine could not be looked into: {error}")
            return None
        self.notes += report.notes
        return report

    def _may_build(self) -> bool:
        self.complete &= self.left > 0
        return self.left > 0

    def _region_of_suspects(
        self, regions: Regions, report: LayerReport | None, suspects: Sequence[ValueFinding]
    ) -> Region | None:
        """Return the smallest part around one of the worst suspects that fails alone, or None."""
        seen = {value.name for value in report.values if value.status == "compared"} if report else set()
        for name in [value.name for value in suspects if value.name in regions.order][:3]:
            if (found := regions.around(regions.upstream(name, seen - {name}))) is not None:
                return found
        return None

    def _region_by_parts(self, regions: Regions) -> Region | None:
        """Return the smallest part that fails alone, found by halving the graph."""
        self._say("looking for the smallest part of the graph that fails on its own")
        budget = max(1, self.left // 2 if regions.nonfinite_only else self.left)
        found = smallest_interval(len(regions.order), regions.fails_between, max_calls=budget)
        if found.interrupted:
            raise KeyboardInterrupt
        part = tuple(regions.order[found.start : found.stop])
        return regions.failing.get(part) or min(regions.failing.values(), key=lambda r: len(r.names), default=None)

    def _units_of(self, values: Sequence[str], suspects: Sequence[ValueFinding]) -> list[str]:
        """Return the modules that the fault shows in, the worst first."""
        table = self.session_run.prepared.program.values
        named = [value.name for value in suspects] + list(values)
        units = [plain(table[name].module) or f"value:{table[name].origin}" for name in named if name in table]
        return list(dict.fromkeys(units))

    def _other_units(self, report: LayerReport | None) -> list[str]:
        """Return the leaf modules by how wrong they are made, or in dataflow order."""
        if report is not None:
            compared = worst_first([value for value in report.values if value.status == "compared"])
            names = [plain(value.module) or f"value:{value.name}" for value in compared]
        else:
            values = Units.of(self.session_run.prepared.program.values).values.values()
            names = [plain(value.module) or f"value:{value.origin}" for value in values]
        return list(dict.fromkeys(names))

    # On the engine.

    def _confirm(self, first: Sequence[str], rest: Sequence[str], *, ops: Sequence[str] = ()) -> None:
        """Search the smallest plan on the engine: the candidates first, more of the ranking if they are not enough.

        ``ops`` are operators that are wrong in several places: one pattern for all of them, or for all of all of them.
        """
        patterns = [f"op:{op}" for op in ops]
        for several in dict.fromkeys([frozenset(patterns[:1]), frozenset(patterns)]):
            if several and self._try(several):
                return
        whole = frozenset(first)
        known: dict[frozenset[str], bool | None] = {frozenset(): False}
        if whole and len(whole) <= FEW:
            known[whole] = self._try(whole)
            if known[whole]:
                self._prune(list(first))
                return
        found = smallest_set(
            list(dict.fromkeys([*first, *rest])),
            self._try_all,
            max_calls=10 * self.max_builds,
            width=self.width,
            known=known,
        )
        self.complete &= found.complete
        if found.interrupted:
            self.interrupted = True
            self.notes.append("interrupted: a smaller plan may exist")
        if self.plan is None and self.complete:
            self.advice.append(
                "no plan passed | keeping values in FP32 does not go round the fault | use FP32, or another version of "
                f"{self.target.backend}"
            )

    def _prune(self, patterns: list[str]) -> None:
        """Leave out, one by one, what the engine does not need though PyTorch does."""
        units = Units.of(self.session_run.prepared.program.values)
        # A module goes before what is inside it, so that the finer of the two is left.
        for pattern in sorted(patterns, key=lambda pattern: -len(units.members(pattern))):
            fewer = frozenset(self.plan or ()) - {pattern}
            if fewer:
                self._try(fewer)

    def _try_all(self, batch: Sequence[frozenset[str]]) -> list[bool | None]:
        if self.executor is not None and len(batch) > 1:
            list(self.executor.map(self._build, batch[: self.left]))
        return [self._try(patterns) for patterns in batch]

    def _build(self, patterns: frozenset[str]) -> None:
        """Build a candidate's engine ahead of its verdict; what goes wrong comes out there."""
        with contextlib.suppress(ParityError), self.session_run.target(self._plan_target(patterns)) as opened:
            opened.build()

    def _try(self, patterns: frozenset[str]) -> bool | None:
        """Return whether the engine passes with these patterns in FP32; None when that is not known."""
        target = self._plan_target(patterns)
        with self.session_run.target(target) as opened:
            if not self.left and not opened.is_built():
                self.complete = False
                return None
        result = self._judge_target(target)
        passed = None if result.verdict == "not_judged" else result.verdict == "pass"
        self.trials.append(
            Trial(
                keep_fp32=tuple(sorted(patterns)), where="engine", passed=passed, error=_largest_error(result),
                reason=result.reason,
            )
        )  # fmt: skip
        if passed:
            self._keep(patterns)
        best = f"; the best plan so far keeps {len(self.plan)}" if self.plan else ""
        self._say(f"{self.max_builds - self.left} of {self.max_builds} engines built{best}")
        return passed

    def _keep(self, patterns: frozenset[str]) -> None:
        """Keep a plan that passed, if it is the smallest so far."""
        if self.plan is None or len(patterns) < len(self.plan):
            self.plan = tuple(sorted(patterns))
            if self.plan_file is not None:
                write_plan(self.plan_file, self._plan().dtype, self._all_kept(patterns), comment=self._comment())

    def _all_kept(self, patterns: Sequence[str] | frozenset[str]) -> list[str]:
        return list(dict.fromkeys([*self._plan().keep_fp32, *sorted(patterns)]))

    def _comment(self) -> list[str]:
        command = f"parity bisect {self._name()} -b {self.target.backend} -p {self.target.precision}"
        return [f"Found by: {command} --case {self.case}", "Verified on the engine."]

    def _plan_target(self, patterns: frozenset[str]) -> Target:
        number = hashlib.sha256("\n".join(sorted(patterns)).encode()).hexdigest()[:8]
        path = self.folder / f"{self.target.precision_name}-mixed-{number}.toml"
        write_plan(path, self._plan().dtype, self._all_kept(patterns), comment=())
        return Target(self.target.backend, str(path))

    def _judge_target(self, target: Target) -> Result:
        with self.session_run.target(target) as opened:
            result = opened.judge(self.case)
        return result

    # The end.

    def _finish(self) -> None:
        if self.plan is not None and not self.interrupted:
            self.price = self._price()

    def _price(self) -> Price | None:
        assert self.plan is not None
        targets = (self._plan_target(frozenset(self.plan)), self.target, Target(self.target.backend, "fp32"))
        self._say("timing the plan against full low precision and full FP32")
        try:
            times = [self._median_ms(target) for target in targets]
            with self.session_run.target(self.target) as opened:
                device = opened.device_name()
        except ParityError as error:
            self.notes.append(f"no price: {error}")
            return None
        return Price(device=device, plan_ms=times[0], low_ms=times[1], fp32_ms=times[2])

    def _median_ms(self, target: Target) -> float:
        with self.session_run.target(target) as opened:
            return median_ms(opened.loaded(), self.session_run.prepared.inputs(self.case))

    def _write_reproducer(self, region: Region) -> None:
        """Write the region as a folder of its own; one that does not show the fault is not delivered."""
        folder = self.reproducer_folder or Path("reports") / f"{self.subject.name}-{self.target}-reproducer"
        target = Target(self.target.backend, region.precision)
        with Run(region.subject, self.settings).target(target) as opened, tempfile.TemporaryDirectory() as scratch:
            prepared, plan = opened.run.prepared, opened.plan
            graph = Path(scratch) / "graph.onnx"
            write_graph(prepared, plan, graph)
            spec = Spec(
                title=f"{self.target.backend} {region.precision_name}: wrong result in {len(region.names)} operations",
                backend=self.target.backend,
                tf32=plan.tf32,
                precision=region.precision_name,
                graph=graph,
                inputs=prepared.inputs(CASE),
                expected=prepared.reference(CASE, "fp32"),
                limits={output.name: _allowed(output) for output in region.result.outputs},
                finding=self.finding,
                notes=tuple(self.notes),
                environment=environment.gather(self.settings),
                weights=self.subject.weights,
                inputs_kind=self.subject.inputs,
                full_model=f"{self._name()}, {len(subgraph.order(self.session_run.prepared.program.model))} values",
            )
            try:
                self.reproducer = str(write(folder, spec, progress=self.settings.progress).folder)
            except ParityError as error:
                self.notes.append(f"no reproducer: {error}")

    def _export_fault(self) -> ExportFault | None:
        self._say("holding the ONNX graph against PyTorch, operation by operation")
        try:
            return export_fault(self.session_run.prepared, self.case, limit=SAME)
        except NotJudged as error:
            self.notes.append(f"the export could not be checked: {error}")
            return None

    def _report_export(self, fault: ExportFault) -> None:
        value = self.session_run.prepared.program.values[fault.name]
        self.kind, self.region = "export", (fault.name,)
        self.finding = (
            f"export: the ONNX graph already differs from PyTorch in {fault.name} ({value.op}"
            f"{', ' + value.module if value.module else ''}{', ' + value.source if value.source else ''}), by "
            f"{fault.error:.3g} on the same inputs in FP32"
        )
        self.advice.append(
            f"ONNX Runtime in FP32 differs from PyTorch in {fault.name} | {value.op} was translated to something else "
            "| rewrite that operation in the model, or use another version of PyTorch's exporter"
        )
        raise _Stop

    def _where(self, values: Sequence[str]) -> str:
        table = self.session_run.prepared.program.values
        rows = [table[name] for name in values if name in table]
        modules = list(dict.fromkeys(plain(row.module) for row in rows if row.module))
        return f"{_few(values)} ({_few(modules)})" if modules else _few(values)

    def _commands(self) -> list[str]:
        subject, backend, case = self._name(), self.target.backend, f" --case {self.case}"
        commands = [f"parity verify {subject} -b {backend} -p {self.target.precision}{case} --layers"]
        if self.plan is not None and self.plan_file is not None:
            commands.append(f"parity verify {subject} -b {backend} -p {self.plan_file}{case}")
        if self.reproducer:
            commands.append(f"python {self.reproducer}/reproduce.py")
        return commands

    def _name(self) -> str:
        return str(self.subject.onnx or self.subject.locator or self.subject.name)

    def _plan(self) -> Plan:
        return load_plan(self.target.precision)

    def _format(self) -> str:
        plan = self._plan()
        return "tf32" if plan.tf32 else plan.dtype

    def _say(self, words: str) -> None:
        self.settings.progress(f"{self.subject.name}/{self.case} [{self.target}]: {words}")

    def _gate(self, question: str, answer: Literal["yes", "no", "not asked"], detail: str) -> None:
        self.gates.append(Gate(question=question, answer=answer, detail=detail))

    def _stop(self, kind: Kind, finding: str) -> None:
        self.kind, self.finding = kind, finding
        raise _Stop


def _suspects(report: LayerReport) -> list[ValueFinding]:
    """Return the values where the error is made: non-finite ones first, in dataflow order, the others by ratio."""
    compared = [value for value in report.values if value.status == "compared"]
    first = [value for value in compared if value.mark == "nonfinite"]
    others = [value for value in compared if value.mark in ("suspect", "flip")]
    return [*first, *sorted(others, key=lambda value: -local_ratio(value))]


def _few(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _ops(suspects: Sequence[ValueFinding]) -> list[str]:
    """Return operators that several suspects share, most of them first: one pattern for a fault in many places."""
    counts = Counter(value.op for value in suspects if value.op.startswith("aten."))
    return [op for op, count in counts.most_common() if count > 1]


def _is_nonfinite(result: Result) -> bool:
    return any(output.stats is not None and output.stats.mismatched_nonfinite for output in result.outputs)


def _tf32_sized(output: OutputResult) -> bool:
    stats = output.stats
    return stats is not None and not stats.nonfinite_actual and SAME <= stats.relative_l2 <= FACTOR * 2.0**-11


def _allowed(output: OutputResult) -> float:
    """Return the relative L2 error an output may have; where the verdict needed no limit, that of its floor."""
    if "relative_l2" in output.allowed:
        return output.allowed["relative_l2"]
    return FACTOR * output.floor.relative_l2 if output.floor is not None else math.nan


def _largest_error(result: Result) -> float | None:
    errors = [o.stats.relative_l2 if not o.stats.mismatched_nonfinite else math.inf for o in result.outputs if o.stats]
    return max(errors, default=None)
