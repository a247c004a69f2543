"""Search the smallest plan that passes on the engine: candidates come ranked, every verdict is an engine's own."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Sequence
from functools import partial

from harness.bisect.screening import Units
from harness.bisect.search import smallest_set
from harness.bisect.state import Hunt
from harness.errors import ParityError
from harness.graph import write_plan
from harness.latency import median_ms
from harness.records import Price, Result, Trial
from harness.subject import Target

FEW = 8
"""Candidates that are tried all together, and then without each one of them; more are searched along the ranking."""


def confirm(hunt: Hunt, first: Sequence[str], rest: Sequence[str], *, ops: Sequence[str] = ()) -> None:
    """Search the smallest plan on the engine: the candidates first, more of the ranking if they are not enough.

    ``ops`` are operators that are wrong in several places: one pattern for all of them, or for all of all of them.
    """
    patterns = [f"op:{op}" for op in ops]
    for several in dict.fromkeys([frozenset(patterns[:1]), frozenset(patterns)]):
        if several and _try(hunt, several):
            return
    whole = frozenset(first)
    known: dict[frozenset[str], bool | None] = {frozenset(): False}
    if whole and len(whole) <= FEW:
        known[whole] = _try(hunt, whole)
        if known[whole]:
            _prune(hunt, list(first))
            return
    found = smallest_set(
        list(dict.fromkeys([*first, *rest])),
        partial(_try_all, hunt),
        max_calls=10 * hunt.max_builds,
        width=hunt.width,
        known=known,
    )
    hunt.complete &= found.complete
    if found.interrupted:
        hunt.interrupted = True
        hunt.notes.append("interrupted: a smaller plan may exist")
    if hunt.plan is None and hunt.complete:
        hunt.advice.append(
            "no plan passed | keeping values in FP32 does not go round the fault | use FP32, or another version of "
            f"{hunt.target.backend}"
        )


def _prune(hunt: Hunt, patterns: list[str]) -> None:
    """Leave out, one by one, what the engine does not need though PyTorch does."""
    units = Units.of(hunt.session.prepared.program.values)
    # A module goes before what is inside it, so that the finer of the two is left.
    for pattern in sorted(patterns, key=lambda pattern: -len(units.members(pattern))):
        fewer = frozenset(hunt.plan or ()) - {pattern}
        if fewer:
            _try(hunt, fewer)


def _try_all(hunt: Hunt, batch: Sequence[frozenset[str]]) -> list[bool | None]:
    if hunt.executor is not None and len(batch) > 1:
        list(hunt.executor.map(partial(_build, hunt), batch[: hunt.left]))
    return [_try(hunt, patterns) for patterns in batch]


def _build(hunt: Hunt, patterns: frozenset[str]) -> None:
    """Build a candidate's engine ahead of its verdict; what goes wrong comes out there."""
    with contextlib.suppress(ParityError), hunt.session.target(_plan_target(hunt, patterns)) as opened:
        opened.build()


def _try(hunt: Hunt, patterns: frozenset[str]) -> bool | None:
    """Return whether the engine passes with these patterns in FP32; None when that is not known."""
    target = _plan_target(hunt, patterns)
    with hunt.session.target(target) as opened:
        if not hunt.left and not opened.is_built():
            hunt.complete = False
            return None
    result = hunt.judge_target(target)
    passed = None if result.verdict == "not_judged" else result.verdict == "pass"
    hunt.trials.append(
        Trial(
            keep_fp32=tuple(sorted(patterns)), where="engine", passed=passed, error=_largest_error(result),
            reason=result.reason,
        )
    )  # fmt: skip
    if passed:
        _keep(hunt, patterns)
    best = f"; the best plan so far keeps {len(hunt.plan)}" if hunt.plan else ""
    hunt.say(f"{hunt.max_builds - hunt.left} of {hunt.max_builds} engines built{best}")
    return passed


def _keep(hunt: Hunt, patterns: frozenset[str]) -> None:
    """Keep a plan that passed, if it is the smallest so far."""
    if hunt.plan is None or len(patterns) < len(hunt.plan):
        hunt.plan = tuple(sorted(patterns))
        if hunt.plan_file is not None:
            write_plan(hunt.plan_file, hunt.base_plan().dtype, _all_kept(hunt, patterns), comment=_comment(hunt))


def _all_kept(hunt: Hunt, patterns: Sequence[str] | frozenset[str]) -> list[str]:
    return list(dict.fromkeys([*hunt.base_plan().keep_fp32, *sorted(patterns)]))


def _comment(hunt: Hunt) -> list[str]:
    return [f"Found by: {hunt.command('bisect', hunt.target.precision)}", "Verified on the engine."]


def _plan_target(hunt: Hunt, patterns: frozenset[str]) -> Target:
    number = hashlib.sha256("\n".join(sorted(patterns)).encode()).hexdigest()[:8]
    path = hunt.folder / f"{hunt.target.precision_name}-mixed-{number}.toml"
    write_plan(path, hunt.base_plan().dtype, _all_kept(hunt, patterns), comment=())
    return Target(hunt.target.backend, str(path))


def price(hunt: Hunt) -> Price | None:
    """Return the time of the plan's engine beside full low precision and full FP32; None where they do not run."""
    assert hunt.plan is not None
    targets = (_plan_target(hunt, frozenset(hunt.plan)), hunt.target, Target(hunt.target.backend, "fp32"))
    hunt.say("timing the plan against full low precision and full FP32")
    try:
        times = [_median_ms(hunt, target) for target in targets]
        with hunt.session.target(hunt.target) as opened:
            device = opened.device_name
    except ParityError as error:
        hunt.notes.append(f"no price: {error}")
        return None
    return Price(device=device, plan_ms=times[0], low_ms=times[1], fp32_ms=times[2])


def _median_ms(hunt: Hunt, target: Target) -> float:
    with hunt.session.target(target) as opened:
        return median_ms(opened.load(), hunt.session.prepared.inputs[hunt.case])


def _largest_error(result: Result) -> float | None:
    errors = [o.stats.relative_l2 if not o.stats.mismatched_nonfinite else math.inf for o in result.outputs if o.stats]
    return max(errors, default=None)
