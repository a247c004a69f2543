"""The smallest plan that passes on the engine, searched along ranked candidates; every trial is an engine."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bisect.context import Context
from harness.bisect.search import smallest_set
from harness.bisect.units import Candidates, Units
from harness.errors import ParityError
from harness.graph import load_plan, write_plan
from harness.records import Price, Result, Trial
from harness.subject import Target
from harness.timing import median_ms

MOST_TOGETHER = 8
"""Candidates that are tried all together, and then without each one of them; more are searched along the ranking."""


@dataclass(frozen=True, kw_only=True)
class PlanFound:
    """What a search for a plan found."""

    plan: tuple[str, ...] | None = None
    """Patterns kept in FP32 by the smallest plan that passed, sorted; None when none did."""
    trials: tuple[Trial, ...] = ()
    """Every plan that was tried on an engine."""
    complete: bool = True
    """False when the search ran out of builds or calls, or was interrupted."""
    interrupted: bool = False
    """Whether a KeyboardInterrupt ended the search."""


def search_plan(context: Context, target: Target, candidates: Candidates) -> PlanFound:
    """Search the smallest plan on the engine: the operators, the first candidates, then more of the ranking.

    The plan's file is written whenever a smaller plan passes. Raises UsageError where that is impossible.
    """
    engines = _CandidateEngines(context, target)
    complete = interrupted = False
    try:
        complete = _search(engines, context, candidates)
    except KeyboardInterrupt:
        interrupted = True
    return PlanFound(
        plan=None if engines.best is None else tuple(sorted(engines.best)),
        trials=tuple(engines.trials),
        complete=complete and not engines.refused,
        interrupted=interrupted,
    )


def _search(engines: _CandidateEngines, context: Context, candidates: Candidates) -> bool:
    """Search until a plan passes and no smaller one does; return whether that was reached. Raises KeyboardInterrupt."""
    for patterns in dict.fromkeys([frozenset(candidates.operators[:1]), frozenset(candidates.operators)]):
        if patterns and engines.passes(patterns):
            return True
    whole = frozenset(candidates.first)
    known: dict[frozenset[str], bool | None] = {frozenset(): False}
    if whole and len(whole) <= MOST_TOGETHER:
        known[whole] = engines.passes(whole)
        if known[whole]:
            _leave_out(engines, Units.of(context.prepared.program.values), candidates.first)
            return True
    ranked = list(dict.fromkeys([*candidates.first, *candidates.rest]))
    found = smallest_set(
        ranked, engines.all_passes, max_calls=10 * context.max_builds, width=context.width, known=known
    )
    if found.interrupted:
        raise KeyboardInterrupt
    return found.complete


def _leave_out(engines: _CandidateEngines, units: Units, patterns: Sequence[str]) -> None:
    """Leave the patterns out one by one: PyTorch needs each of them in FP32, the engine may not."""
    # A module goes before its parts, so that the finer of the two is left.
    for pattern in sorted(patterns, key=lambda pattern: -len(units.members(pattern))):
        if fewer := frozenset(engines.best or ()) - {pattern}:
            engines.passes(fewer)


class _CandidateEngines:
    """Builds and judges engines of candidate plans, and keeps the verdicts."""

    def __init__(self, context: Context, target: Target) -> None:
        self.context, self.target = context, target
        self.best: frozenset[str] | None = None
        """The smallest plan that passed."""
        self.trials: list[Trial] = []
        self.refused = False
        """Whether an engine was not built because the budget was spent."""

    def all_passes(self, batch: Sequence[frozenset[str]]) -> list[bool | None]:
        """Return :meth:`passes` for several plans, whose engines are built at the same time."""
        if self.context.executor is not None and len(batch) > 1:
            list(self.context.executor.map(self._build, batch[: self.context.budget.left]))
        return [self.passes(patterns) for patterns in batch]

    def passes(self, patterns: frozenset[str]) -> bool | None:
        """Return whether the engine passes with these patterns in FP32; None when that cannot be known."""
        target, budget = plan_target(self.context, self.target, patterns), self.context.budget
        with self.context.run.target(target) as opened:
            if not budget.left and not opened.is_built():
                self.refused = True
                return None
        result = self.context.judge(target).result
        passed = None if result.verdict == "not_judged" else result.verdict == "pass"
        self.trials.append(
            Trial(
                keep_fp32=tuple(sorted(patterns)), where="engine", passed=passed, error=_largest_error(result),
                reason=result.reason,
            )
        )  # fmt: skip
        if passed and (self.best is None or len(patterns) < len(self.best)):
            self.best = patterns
            if self.context.plan_file is not None:
                found_by = f"Found by: {self.context.command('bisect', self.target.precision)}"
                _write(self.target, patterns, self.context.plan_file, comment=(found_by, "Verified on the engine."))
        best = f"; the best plan so far keeps {len(self.best)}" if self.best else ""
        self.context.say(self.target, f"{budget.most - budget.left} of {budget.most} engines built{best}")
        return passed

    def _build(self, patterns: frozenset[str]) -> None:
        """Build a candidate's engine ahead of its verdict; errors show there."""
        target = plan_target(self.context, self.target, patterns)
        with contextlib.suppress(ParityError), self.context.run.target(target) as opened:
            opened.build()


def plan_target(context: Context, target: Target, patterns: frozenset[str]) -> Target:
    """Return a target with these patterns in FP32 besides those it keeps already."""
    number = hashlib.sha256("\n".join(sorted(patterns)).encode()).hexdigest()[:8]
    path = context.folder / f"{target.precision_name}-mixed-{number}.toml"
    _write(target, patterns, path, comment=())
    return Target(target.backend, str(path))


def _write(target: Target, patterns: frozenset[str], path: Path, *, comment: Sequence[str]) -> None:
    plan = load_plan(target.precision)
    write_plan(path, plan.dtype, list(dict.fromkeys([*plan.keep_fp32, *sorted(patterns)])), comment=comment)


def price(context: Context, target: Target, plan: Sequence[str]) -> Price:
    """Return the time of the plan's engine beside full low precision and full FP32: of each the smaller of two medians.

    Raises ParityError where one of them does not run.
    """
    context.say(target, "timing the plan against full low precision and full FP32")
    inputs = context.prepared.inputs[context.case]
    targets = (plan_target(context, target, frozenset(plan)), target, Target(target.backend, "fp32"))
    times = dict.fromkeys(targets, math.inf)
    for timed in (*targets, *reversed(targets)):  # each twice, in turns: a host that is slow for a while slows one run
        with context.run.target(timed) as opened:
            times[timed] = min(times[timed], median_ms(opened.load(), inputs))
            device = opened.device_name
    plan_ms, low_ms, fp32_ms = (times[timed] for timed in targets)
    return Price(device=device, plan_ms=plan_ms, low_ms=low_ms, fp32_ms=fp32_ms)


def _largest_error(result: Result) -> float | None:
    errors = [o.stats.relative_l2 if not o.stats.mismatched_nonfinite else math.inf for o in result.outputs if o.stats]
    return max(errors, default=None)
