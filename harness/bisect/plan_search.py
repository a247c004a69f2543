"""The plan of fewest FP32 values that passes on the engine, searched among candidates; every trial is an engine."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bisect.context import Context
from harness.bisect.goals import Aim
from harness.bisect.search import smallest_set
from harness.bisect.units import MOST_TOGETHER, Candidates, Units
from harness.errors import ParityError
from harness.graph import load_plan, write_plan
from harness.records import Price, Result, Trial
from harness.sentences import Sentence
from harness.subject import Target
from harness.timing import median_ms
from harness.verify import verify_case

Names = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class PlanFound:
    """What a search for a plan found."""

    plan: tuple[str, ...] | None = None
    """Patterns kept in FP32 by the plan of fewest values that passed, sorted; None when none did."""
    values: int | None = None
    """How many values that are."""
    trials: tuple[Trial, ...] = ()
    """Every plan that was tried on an engine."""
    complete: bool = True
    """False when the search ran out of builds or calls, or was interrupted."""
    interrupted: bool = False
    """Whether a KeyboardInterrupt ended the search."""

    def disagreement(self, in_pytorch: Sequence[Trial]) -> str:
        """Return what passed in PyTorch and failed on an engine, with both errors; empty where nothing did."""
        right = {trial.keep_fp32: trial.error for trial in in_pytorch if trial.passed}
        failed = [trial for trial in self.trials if trial.passed is False and trial.keep_fp32 in right]
        if not failed:
            return ""
        first = min(failed, key=lambda trial: trial.values or 0)
        errors = Sentence("errors_both", right=right[first.keep_fp32] or 0, figure=_figure(first.error))
        return Sentence("plan_not_enough", keep_fp32=list(first.keep_fp32), errors=errors, reason=first.reason)


def search_plan(context: Context, target: Target, candidates: Candidates, aim: Aim) -> PlanFound:
    """Search the plan of fewest values on the engine: the first candidates in turn, then more of the ranking.

    The plan's file is written whenever one of fewer values passes. Raises UsageError where that is impossible.
    """
    engines = _CandidateEngines(context, target, aim)
    complete = interrupted = False
    try:
        complete = _search(engines, context, candidates)
    except KeyboardInterrupt:
        interrupted = True
    best = engines.best
    return PlanFound(
        plan=None if best is None else engines.units.patterns(best),
        values=None if best is None else len(best),
        trials=tuple(engines.trials),
        complete=complete and not engines.refused,
        interrupted=interrupted,
    )


def _search(engines: _CandidateEngines, context: Context, candidates: Candidates) -> bool:
    """Search until a plan passes and none of fewer values does; return whether that was reached.

    Raises KeyboardInterrupt.
    """
    known: dict[frozenset[str], bool | None] = {frozenset(): False}
    for patterns in candidates.first:
        names = engines.names(patterns)
        if names and names not in engines.tried:
            known[frozenset(patterns)] = engines.passes(names)
        if engines.best is not None:
            return _shrink(engines, context, patterns)
    last = candidates.first[-1] if candidates.first else ()
    units = list(dict.fromkeys([*last, *candidates.rest]))
    complete = _smallest(engines, context, units, known, failing=len(last))
    if engines.best is not None and len(engines.best) <= MOST_TOGETHER:
        return _shrink(engines, context, engines.units.patterns(engines.best)) and complete
    return complete


def _shrink(engines: _CandidateEngines, context: Context, patterns: Sequence[str]) -> bool:
    """Leave values out of a plan that passes: the engine may not need all that PyTorch or a look asked for."""
    names = list(dict.fromkeys(name for pattern in patterns for name in engines.ordered(pattern)))
    if len(names) > MOST_TOGETHER:
        units = [f"value:{name}" for name in names]
        return _smallest(engines, context, units, {frozenset(): False, frozenset(units): True})
    for name in reversed(names):
        if fewer := frozenset(engines.best or ()) - {name}:
            engines.passes(fewer)
    return True


def _smallest(
    engines: _CandidateEngines,
    context: Context,
    units: Sequence[str],
    known: dict[frozenset[str], bool | None],
    *,
    failing: int = 0,
) -> bool:
    """Search among these patterns, the likeliest first, and return whether the search came to its end."""
    found = smallest_set(
        units, engines.all_pass, max_calls=10 * context.max_builds, width=context.width, known=known,
        size=lambda kept: len(engines.names(kept)), failing=failing,
    )  # fmt: skip
    if found.interrupted:
        raise KeyboardInterrupt
    return found.complete


class _CandidateEngines:
    """Builds and judges engines of candidate plans, and keeps the verdicts."""

    def __init__(self, context: Context, target: Target, aim: Aim) -> None:
        self.context, self.target, self.aim = context, target, aim
        self.units = Units.of(context.prepared.program.values)
        self.best: Names | None = None
        """The plan of fewest values that passed, then of fewest patterns."""
        self.tried: dict[Names, bool | None] = {}
        self.trials: list[Trial] = []
        self.refused = False
        """Whether an engine was not built because the budget was spent."""

    def names(self, patterns: Iterable[str]) -> Names:
        """Return the values that patterns mean."""
        return frozenset(name for pattern in patterns for name in self.units.members(pattern))

    def ordered(self, pattern: str) -> list[str]:
        """Return the same in the order of the program."""
        members = self.units.members(pattern)
        return [name for name in self.units.values if name in members]

    def all_pass(self, batch: Sequence[frozenset[str]]) -> list[bool | None]:
        """Return :meth:`passes` for several sets of patterns, whose engines are built at the same time."""
        several = [self.names(patterns) for patterns in batch]
        if self.context.executor is not None and len(batch) > 1:
            list(self.context.executor.map(self._build, several[: self.context.budget.left]))
        return [self.passes(names) for names in several]

    def passes(self, names: Names) -> bool | None:
        """Return whether the engine reaches the goal with these values in FP32; None when that cannot be known."""
        if names not in self.tried:
            self.tried[names] = self._passes(names)
        return self.tried[names]

    def _passes(self, names: Names) -> bool | None:
        target, budget = plan_target(self.context, self.target, self.units.patterns(names)), self.context.budget
        with self.context.run.target(target) as opened:
            if not budget.left and not opened.is_built():
                self.refused = True
                return None
            result = verify_case(opened, self.context.case).result
            passed, reason = None if result.verdict == "not_judged" else result.verdict == "pass", result.reason
            if passed and (missed := self.aim.judge(opened, self.context.case)):
                passed, reason = False, missed
        patterns = self.units.patterns(names)
        self.trials.append(
            Trial(
                keep_fp32=patterns, where="engine", passed=passed, error=_largest_error(result), reason=reason,
                values=len(names),
            )
        )  # fmt: skip
        if passed and (self.best is None or self._size(names) < self._size(self.best)):
            self.best = names
            if self.context.plan_file is not None:
                found_by = f"Found by: {self.context.command('bisect', self.target.precision)}"
                _write(self.target, patterns, self.context.plan_file, comment=(found_by, "Verified on the engine."))
        best = Sentence("best_so_far", count=len(self.best)) if self.best else ""
        self.context.say(
            self.target, Sentence("builds_of_most", most=budget.most - budget.left, most_2=budget.most, best=best)
        )
        return passed

    def _size(self, names: Names) -> tuple[int, int]:
        return len(names), len(self.units.patterns(names))

    def _build(self, names: Names) -> None:
        """Build a candidate's engine ahead of its verdict; errors show there."""
        target = plan_target(self.context, self.target, self.units.patterns(names))
        with contextlib.suppress(ParityError), self.context.run.target(target) as opened:
            opened.build()


def plan_target(context: Context, target: Target, patterns: Sequence[str]) -> Target:
    """Return a target with these patterns in FP32 besides those it keeps already."""
    number = hashlib.sha256("\n".join(sorted(patterns)).encode()).hexdigest()[:8]
    path = context.folder / f"{target.precision_name}-mixed-{number}.toml"
    _write(target, patterns, path, comment=())
    return Target(target.backend, str(path))


def _write(target: Target, patterns: Sequence[str], path: Path, *, comment: Sequence[str]) -> None:
    plan = load_plan(target.precision)
    write_plan(path, plan.dtype, list(dict.fromkeys([*plan.keep_fp32, *sorted(patterns)])), comment=comment)


def price(context: Context, target: Target, plan: Sequence[str]) -> Price:
    """Return the time of the plan's engine beside full low precision and full FP32: of each the smaller of two medians.

    Raises ParityError where one of them does not run.
    """
    context.say(target, "timing the plan against full low precision and full FP32")
    inputs = context.prepared.inputs[context.case]
    targets = (plan_target(context, target, plan), target, Target(target.backend, "fp32"))
    times = dict.fromkeys(targets, math.inf)
    for timed in (*targets, *reversed(targets)):  # each twice, in turns: a host that is slow for a while slows one run
        with context.run.target(timed) as opened:
            times[timed] = min(times[timed], median_ms(opened.load(), inputs))
            device = opened.device_name
    plan_ms, low_ms, fp32_ms = (times[timed] for timed in targets)
    return Price(device=device, plan_ms=plan_ms, low_ms=low_ms, fp32_ms=fp32_ms)


def _figure(error: float | None) -> str:
    return Sentence("not_finite") if error is None or not math.isfinite(error) else f"{error:.3g}"


def _largest_error(result: Result) -> float | None:
    errors = [o.stats.relative_l2 if not o.stats.mismatched_nonfinite else math.inf for o in result.outputs if o.stats]
    return max(errors, default=None)
