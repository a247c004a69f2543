"""Which operators of a quantised model to leave in floats, so that its cost meets a limit: the fewest.

Sets are ranked and searched in fake-quantisation by the exact evaluator, where a run takes milliseconds and nothing is
built. What passes there is built, run and held to the same limit; what fails there grows.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from harness import limits
from harness.errors import EngineFailed, NotJudged, ParityError, UsageError
from harness.files import write_text
from harness.graph import Plan, QuantisedUnit, quantised_units
from harness.quantised import ARITHMETIC, DIVIDES, PartlyQuantised
from harness.records import CostResult, QuantSearch, QuantTrial, UnitCost, Verdict, overall, plan_lines
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import FILE, Subject, Target, Tolerance
from harness.temporary import temporary_folder
from harness.tensors import Tensors
from harness.timing import median_ms
from harness.verify import OpenTarget, Run, engine_cost, judge_cost, quantised_case, unquantised

FAKE, ENGINE = "fake-quantisation", "engine"
KEPT_BYTES = 2**30
"""Values of all cases that are kept for runs of other sets hold at most this much."""
SAY_EVERY_S = 5.0
"""How often a long ranking says how far it is."""


@dataclass(kw_only=True)
class _Search:
    """The runs of one search: sets of units in floats, by what computes them."""

    run: Run
    target: Target
    plan: Plan
    expected: Mapping[str, Tensors]
    """The unquantised outputs by case."""
    partly: Mapping[str, PartlyQuantised]
    """The quantised graph on each case."""
    known: dict[frozenset[str], CostResult] = field(default_factory=dict)
    tried: set[frozenset[str]] = field(default_factory=set)
    trials: list[QuantTrial] = field(default_factory=list)

    @property
    def cases(self) -> list[str]:
        """The names of the cases."""
        return list(self.expected)

    def fake(self, left: Collection[str], *, keep: bool = False) -> CostResult:
        """Return the cost of a set in fake-quantisation, the worst of the cases; ``keep`` its values for others."""
        if (key := frozenset(left)) not in self.known:
            costs = []
            for case, expected in self.expected.items():
                counted = partial(self.run.prepared.valid.counted, case)
                found = self.exact(case, left, keep=keep)
                costs.append(judge_cost(self.run.subject, found, expected, counted=counted))
            self.known[key] = _worst(costs)
        return self.known[key]

    def exact(self, case: str, left: Collection[str], *, keep: bool = False) -> Tensors:
        """Return the outputs of a set in fake-quantisation, floats in FP32."""
        found = self.partly[case].outputs(left, keep=keep)
        return {name: tensor.float() if tensor.dtype == torch.float64 else tensor for name, tensor in found.items()}

    def passes(self, left: Collection[str]) -> bool:
        """Return whether a set meets the limit in fake-quantisation, and keep the trial."""
        cost = self.fake(left)
        if (key := frozenset(left)) not in self.tried:
            self.tried.add(key)
            error = _finite(error_of(cost))
            self.trials.append(QuantTrial(units=len(left), error=error, verdict=cost.verdict, on=FAKE))
        return cost.verdict == "pass"

    @contextlib.contextmanager
    def opened(self, left: Sequence[str], folder: Path) -> Iterator[OpenTarget]:
        """Open the engine of a set."""
        plan = folder / f"left-{len(left)}.toml"
        _write_plan(plan, self.plan, left)
        with self.run.target(Target(self.target.backend, str(plan))) as opened:
            yield opened

    def engine(self, left: Sequence[str], folder: Path) -> tuple[Verdict, str]:
        """Return the verdict on the engine's cost and what it ran on, and keep the trial.

        Raises NotJudged where there is no engine here.
        """
        with self.opened(left, folder) as opened:
            try:
                cost = _worst([
                    engine_cost(opened, case, exact=self.exact(case, left), expected=expected)
                    for case, expected in self.expected.items()
                ])  # fmt: skip
                error, verdict = _finite(error_of(cost)), cost.verdict
            except EngineFailed:
                error, verdict = None, "fail"
            self.trials.append(QuantTrial(units=len(left), error=error, verdict=verdict, on=ENGINE))
            return verdict, opened.device_name

    def time(self, sets: Sequence[Sequence[str]], folder: Path) -> list[float]:
        """Return the time of the engines of these sets in turns: of each the smaller of two medians."""
        times = [math.inf] * len(sets)
        for i in [*range(len(sets)), *reversed(range(len(sets)))]:
            with self.opened(sets[i], folder) as opened:
                times[i] = min(times[i], median_ms(opened.load(), opened.inputs(self.cases[0])))
        by_units = {len(left): ms for left, ms in zip(sets, times, strict=True)}
        self.trials = [
            replace(trial, ms=by_units.get(trial.units)) if trial.on == ENGINE else trial for trial in self.trials
        ]
        return times


def search_quantised(
    subject: Subject, target: Target, cases: Sequence[str], settings: Settings, *, plan_file: Path, max_builds: int
) -> QuantSearch:
    """Return the fewest operators to leave in floats that meet the limits of the subject's cost; write the plan.

    Raises UsageError where there is no quantised ONNX file, nothing that it is held against, or no limit.
    """
    if subject.onnx is None:
        raise UsageError(f"bisect --quant is for an ONNX file with Q/DQ, and {subject.name} is a module")
    if subject.against is None or not (subject.cost or subject.cost_metrics):
        raise UsageError("bisect --quant needs --against, and a limit: --cost-limit, or cost= or cost_metrics=")
    run = Run(subject, settings)
    units = quantised_units(run.prepared.program.model)
    if not units:
        raise UsageError(f"{subject.name} has no operator that reads quantised inputs; give a file with Q/DQ")
    with limits.work(subject.name, "computing the unquantised model"):
        expected = {case: unquantised(run, case) for case in cases}
    with run.target(target) as opened:
        search = _Search(
            run=run, target=target, plan=opened.plan, expected=expected, partly=_partly(run, opened, list(cases), units)
        )
    found = QuantSearch(
        subject=subject.name, case=", ".join(cases), backend=target.backend, precision=target.precision_name,
        source=subject.source, verdict="not_judged", finding="", against=subject.against.name,
        limit=_limit_words(subject), allowed=_allowed(subject), error=_finite(error_of(search.fake([], keep=True))),
    )  # fmt: skip
    ranked = sorted(_ranked(search, list(units), settings, subject.name), key=lambda one: -one.alone)
    ranked = [replace(one, op=units[one.name].op) for one in ranked]
    found = _answered(search, found, ranked, plan_file, max_builds, settings)
    left = set(found.exclude)
    return replace(
        found, units=tuple(replace(one, left=one.name in left) for one in ranked), trials=tuple(search.trials),
        evaluations=len(search.known),
    )  # fmt: skip


def _partly(
    run: Run, opened: OpenTarget, cases: Sequence[str], units: Mapping[str, QuantisedUnit]
) -> dict[str, PartlyQuantised]:
    """Return the quantised graph on each case, as the target's backend scales."""
    arithmetic = ARITHMETIC.get(opened.backend.name, DIVIDES)
    graph, inputs, against = run.prepared.graph, run.prepared.inputs, run.subject.against
    assert against is not None
    codes_only = against.onnx is not None and any(unit.codes_only for unit in units.values())
    weights = run.unquantised.graph.weights if codes_only else {}
    room = KEPT_BYTES // (2 * len(cases))
    return {
        case: PartlyQuantised(quantised_case(graph, inputs[case], opened.plan, arithmetic), units, weights, room=room)
        for case in cases
    }


def _ranked(search: _Search, names: Sequence[str], settings: Settings, subject: str) -> list[UnitCost]:
    """Return what each unit costs alone, and what all cost without it."""
    total = 2 * len(names)
    settings.progress(f"{subject}: {total} runs in {FAKE}: each unit alone, and all without it")
    search.fake(names, keep=True)
    began = said = time.monotonic()
    ranked = []
    for done, name in enumerate(names):
        if (now := time.monotonic()) - said >= SAY_EVERY_S:
            left = (now - began) / done * (len(names) - done)
            settings.progress(f"{subject}: {2 * done} of {total} runs, about {left:.0f} s to go")
            said = now
        alone = error_of(search.fake([other for other in names if other != name]))
        ranked.append(UnitCost(name=name, op="", alone=alone, without=error_of(search.fake([name]))))
    return ranked


def _answered(
    search: _Search,
    found: QuantSearch,
    ranked: Sequence[UnitCost],
    plan_file: Path,
    max_builds: int,
    settings: Settings,
) -> QuantSearch:
    names = [one.name for one in ranked]
    if not search.passes(names):
        words = Sentence("cost_all_floats", count=len(names), figure=_figure(search.fake(names)), limit=found.limit)
        return replace(found, verdict="fail", finding=f"{words}: quantisation is not what costs it")
    count = _fewest(search, names)
    left = _pruned(search, names[:count])
    with temporary_folder() as folder:
        for built in range(max_builds):
            settings.progress(f"{found.subject} [{search.target}]: the engine with {len(left)} units in floats")
            try:
                verdict, device = search.engine(left, folder)
            except NotJudged as error:
                _write_plan(plan_file, search.plan, left)
                words = Sentence(
                    "units_no_engine", count=len(left), count_2=len(names), limit=found.limit, fake=FAKE, error=error
                )
                return replace(found, finding=words, exclude=tuple(left), plan_file=str(plan_file))
            if verdict == "pass":
                break
            rest = [name for name in names if name not in left]
            if not rest or built == max_builds - 1:
                words = Sentence("no_engine_meets", built=built + 1, limit=found.limit, fake=FAKE)
                return replace(found, verdict="fail", finding=words, device=device)
            left = [*left, *rest[: max(1, len(left))]]
        _write_plan(plan_file, search.plan, left)
        words = Sentence("units_meet", count=len(left), count_2=len(names), limit=found.limit)
        words += _price_words(search, names, left, folder)
    return replace(
        found, verdict="pass", finding=words, exclude=tuple(left), plan_file=str(plan_file), device=device
    )  # fmt: skip


def _fewest(search: _Search, names: Sequence[str]) -> int:
    """Return the shortest prefix of the ranking that meets the limit: doubled until one does, then halved."""
    if search.passes([]):
        return 0
    low, high = 0, 1
    while high < len(names) and not search.passes(names[:high]):
        low, high = high, high * 2
    high = min(high, len(names))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if search.passes(names[:middle]) else (middle, high)
    return high


def _pruned(search: _Search, left: Sequence[str]) -> list[str]:
    """Return a set without the units that it does not need, the least costly tried first."""
    kept = list(left)
    for name in reversed(left):
        fewer = [other for other in kept if other != name]
        if len(kept) > 1 and search.passes(fewer):
            kept = fewer
    return kept


def _price_words(search: _Search, names: Sequence[str], left: Sequence[str], folder: Path) -> str:
    """Return what the answer takes beside the engine with every unit quantised and with none; they are trials too."""
    if search.target.backend == "torch":
        return ""
    try:
        for others in ([], names):
            if len(others) != len(left):
                search.engine(others, folder)
        ms, quantised, plain = search.time([left, [], names], folder)
    except ParityError as error:
        return Sentence("no_price", error=error)
    return Sentence("price_a_run", ms=ms, quantised=quantised, plain=plain)


def _write_plan(path: Path, plan: Plan, left: Sequence[str]) -> None:
    """Write a plan with units in floats beside what it keeps. Raises UsageError."""
    lines = plan_lines(FILE if plan.as_file else plan.computes_in, left, key="quant_exclude")
    lines += plan_lines("", plan.keep_fp32) if plan.keep_fp32 else []
    write_text("\n".join([*lines, ""]), path)


def error_of(cost: CostResult) -> float:
    """Return the largest relative error of a cost's outputs; infinite where one is not finite or of another shape."""
    errors = [
        math.inf if one.stats is None or one.stats.mismatched_nonfinite else one.stats.relative_l2
        for one in cost.outputs
        if one.decisions is None
    ]
    return max(errors, default=0.0)


def _worst(costs: Sequence[CostResult]) -> CostResult:
    verdict = overall(one.verdict for one in costs)
    return max((one for one in costs if one.verdict == verdict), key=error_of)


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None


def _figure(cost: CostResult) -> str:
    return f"{error_of(cost):.3g}"


def _allowed(subject: Subject) -> float | None:
    return subject.cost.relative_l2 if isinstance(subject.cost, Tolerance) else None


def _limit_words(subject: Subject) -> str:
    named = [Sentence("limit_of_metric", name=metric.name) for metric in subject.cost_metrics]
    if subject.cost is None:
        return " and ".join(named)
    single = _allowed(subject)
    return " and ".join(
        [*named, Sentence("limits_of_outputs") if single is None else Sentence("cost_limit", single=single)]
    )
