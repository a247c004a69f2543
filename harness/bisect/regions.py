"""The smallest part of a graph that shows an engine's fault: parts are built alone and run on the reference's values.

An error in such a part was made there. A part also shows a fault that disappears while values are observed, and a
reproducer is made from one. A part is fused differently than the whole, so some faults show only in a larger part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.bisect.context import Budget, Context
from harness.bisect.questions import computes_in_tf32, is_only_tf32
from harness.bisect.search import smallest_interval
from harness.bisect.units import suspects_in
from harness.errors import NotJudged, ParityError
from harness.graph import boundary, extract, is_fp32, load_plan, order, save_model, write_plan
from harness.records import LayerReport, Result, is_nonfinite
from harness.subject import Subject, Target
from harness.verify import Run, value_dtypes, verify_case

CASE = "region"
"""The one case of a region's subject."""
_MOST_SUSPECTS = 3
_FIRST_MARGIN = 4
"""Values added on either side of a suspect that does not fail alone; four times as many each time after that."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of a graph as a subject."""

    names: tuple[str, ...]
    """The values it computes, in dataflow order."""
    subject: Subject
    precision: str
    """A plain precision, or the plan file of this part."""
    result: Result


@dataclass(frozen=True, kw_only=True)
class RegionFound:
    """What a search among parts of a graph found."""

    region: Region | None = None
    """The smallest part that showed the fault."""
    complete: bool = True
    """False when a part was not built because the budget was spent."""
    interrupted: bool = False
    """Whether a KeyboardInterrupt ended the search."""


def search_region(context: Context, target: Target, result: Result, report: LayerReport | None) -> RegionFound:
    """Return the smallest part of the graph that shows the fault of a wrong engine.

    ``result`` is the verdict on the whole engine, ``report`` its values, where they could be observed. Parts around
    the suspects of the report are tried first, then halves of the graph. Where an engine gives NaN only while no value
    is observed, the report shows another fault: half of the budget then goes to parts that give NaN, before the
    suspects.
    """
    larger_than_tf32 = is_fp32(load_plan(target.precision)) and not is_only_tf32(target, result.outputs)

    def shows_fault(found: Result) -> bool:
        return found.verdict == "fail" and not (larger_than_tf32 and computes_in_tf32(target, found.outputs))

    def parts(shows: Callable[[Result], bool]) -> Regions:
        return Regions(
            context.run, context.case, target, folder=context.folder / "regions", shows=shows, budget=context.budget
        )

    def around_suspects() -> RegionFound:
        if report is None:
            return RegionFound()
        known = {value.name for value in report.values if value.status == "compared"}
        names = [value.name for value in suspects_in(report) if value.name in regions.order]
        return regions.around_suspects(names[:_MOST_SUSPECTS], known)

    def by_halving(among: Regions, share: int) -> RegionFound:
        context.say(target, "looking for the smallest part of the graph that fails on its own")
        return among.by_halving(max(1, context.budget.left // share))

    regions = parts(shows_fault)
    first: Callable[[], RegionFound]
    second: Callable[[], RegionFound]
    if report is not None and not report.trusted and is_nonfinite(result):
        first, second = partial(by_halving, parts(is_nonfinite), 2), around_suspects
    else:
        first, second = around_suspects, partial(by_halving, regions, 1)
    found = first()
    if found.region is not None or found.interrupted:
        return found
    again = second()
    return replace(again, complete=found.complete and again.complete)


class Regions:
    """Builds and judges parts of one subject's graph on one target; each part once.

    ``shows`` says whether a verdict, pass or fail, is the fault in question. ``folder`` takes the parts' files.
    """

    def __init__(
        self, run: Run, case: str, target: Target, *, folder: Path, shows: Callable[[Result], bool], budget: Budget
    ) -> None:
        self.run, self.case, self.target, self.folder = run, case, target, folder
        self.shows, self.budget = shows, budget
        self.plan = load_plan(target.precision)
        self.model = run.prepared.program.model
        self.order = order(self.model)
        self.failing: dict[tuple[str, ...], Region] = {}
        """Every part that showed the fault."""
        self._fails: dict[tuple[str, ...], bool | None] = {}
        self._refused = False
        """Whether a part was not built because the budget was spent."""

    def around_suspects(self, suspects: Sequence[str], known: Collection[str]) -> RegionFound:
        """Return the smallest part around one of the suspects that shows the fault.

        ``known`` are the values that were compared themselves; a part does not reach beyond them.
        """
        try:
            for name in suspects:
                if (region := self.around(self.upstream(name, set(known) - {name}))) is not None:
                    return self._found(region)
        except KeyboardInterrupt:
            return self._found(self._smallest_failing(), interrupted=True)
        return self._found(None)

    def by_halving(self, most: int) -> RegionFound:
        """Return the smallest part that shows the fault, found by halving the graph, trying at most ``most`` parts."""
        found = smallest_interval(
            len(self.order), lambda start, stop: self.fails(self.order[start:stop]), max_calls=most
        )
        region = self.failing.get(tuple(self.order[found.start : found.stop])) or self._smallest_failing()
        return self._found(region, interrupted=found.interrupted)

    def fails(self, names: Collection[str]) -> bool | None:
        """Return whether the part that computes these values shows the fault; None when that cannot be known."""
        wanted = set(names)
        part = tuple(name for name in self.order if name in wanted)
        if part in self._fails:
            return self._fails[part]
        if not self.budget.left:
            self._refused = True
            return None
        try:
            region = self.judge(part)
        except ParityError as error:
            self.run.settings.progress(f"a part of {len(part)} values cannot be judged: {error}")
            self._fails[part] = None
        else:
            judged = region.result.verdict != "not_judged"
            self._fails[part] = self.shows(region.result) if judged else None
            if self._fails[part]:
                self.failing[part] = region
        return self._fails[part]

    def judge(self, names: Sequence[str]) -> Region:
        """Build the part that computes these values, feed it with the reference's values and judge it.

        Raises NotJudged for a part that cannot be cut out.
        """
        subject = self._subject(names)
        self.run.settings.progress(f"building {len(names)} of {len(self.order)} values alone: {_span(names)}")
        precision = self._precision(names)
        run = Run(subject, self.run.settings)
        self.budget.count(run.engines)
        with run.target(Target(self.target.backend, precision)) as opened:
            result = verify_case(opened, CASE).result
        return Region(names=tuple(names), subject=subject, precision=precision, result=result)

    def upstream(self, name: str, known: Collection[str]) -> list[str]:
        """Return the values between ``name`` and the known ones before it, with ``name``: where its error was made."""
        producers = {str(value.name): node for node in self.model.graph for value in node.outputs}
        found, pending = set(), [name]
        while pending:
            value = pending.pop()
            node = producers.get(value)
            if node is None or value in found:
                continue
            found.add(value)
            reads = [str(read.name) for read in node.inputs if read is not None]
            pending += [read for read in reads if read in producers and read not in known]
        return [value for value in self.order if value in found]

    def around(self, names: Sequence[str]) -> Region | None:
        """Return the smallest part around these values that shows the fault, growing until one does."""
        part, margin = [name for name in self.order if name in set(names)], 0
        start, stop = self.order.index(part[0]), self.order.index(part[-1]) + 1
        while not self.fails(part):
            if margin and len(part) == len(self.order):
                return None
            margin = 4 * margin or _FIRST_MARGIN
            part = self.order[max(0, start - margin) : stop + margin]
        return self.failing[tuple(part)]

    def _found(self, region: Region | None, *, interrupted: bool = False) -> RegionFound:
        return RegionFound(region=region, complete=not self._refused, interrupted=interrupted)

    def _smallest_failing(self) -> Region | None:
        return min(self.failing.values(), key=lambda region: len(region.names), default=None)

    def _subject(self, names: Sequence[str]) -> Subject:
        entering, leaving = boundary(self.model, names)
        if not leaving:
            raise NotJudged(f"nothing leaves the part {_span(names)}")
        folder = self.folder / hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "region.onnx"
        save_model(extract(self.model, entering, leaving), path)
        values = {name: tensor.cpu() for name, tensor in self.run.prepared.values(self.case, entering).items()}
        full = self.run.subject
        return Subject(
            name=f"{full.name}-region", onnx=path, cases={CASE: lambda: dict(values)}, targets=(self.target,),
            weights=full.weights, weights_source=full.weights_source, inputs=full.inputs,
        )  # fmt: skip

    def _precision(self, names: Sequence[str]) -> str:
        """Return the precision, or a plan file where the plan keeps values of this part in FP32."""
        dtypes = value_dtypes(self.run.prepared.graph, self.plan)
        kept = [name for name in names if dtypes.get(name) == "float32"]
        if not self.plan.keep_fp32 or self.plan.dtype == "fp32":
            return self.plan.computes_in
        if not kept:
            return self.plan.dtype
        path = self.folder / f"{hashlib.sha256(repr(kept).encode()).hexdigest()[:16]}.toml"
        write_plan(path, self.plan.dtype, [f"value:{name}" for name in kept], comment=())
        return str(path)


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
