"""Whether a session is slower than its baseline, and by how much.

The figure of a process is the logarithm of its median, that of a session the median over its processes. With four
sessions or more in the baseline, the new session is compared with the prediction interval for one more of them; with
fewer, Welch's interval over processes is used, and no regression counts. ``python benchmarks/latency_verdict.py``
prints how often each rule is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from harness.latency.comparable import (
    Figure,
    difference_notes,
    flag_notes,
    graph_modes,
    log_figures,
    power_capped,
    why_incomparable,
    why_unusable,
)
from harness.latency.estimate import (
    CONFIDENCE,
    FEWEST_SESSIONS,
    Estimate,
    Limits,
    decide,
    estimate_of,
    hodges_lehmann,
    margin_of,
    ratio_words,
    rule_words,
)
from harness.records import Comparison, LatencyVerdict, Metric, Session

P99_MARGIN, P99_EQUIVALENT = 0.05, 0.15
"""The tail is noisier than the median and has bounds of its own; it is reported and never decides."""


def compare_sessions(
    new: Session,
    baseline: Sequence[Session],
    *,
    previous: Session | None = None,
    regress_margin: float = 0.01,
    equivalent_within: float = 0.03,
) -> Comparison:
    """Return whether a session regressed against the sessions of its baseline, which must be of the same benchmark.

    ``previous`` is the session before this one: a regression is ``repeated`` when it had regressed too, by the same
    rule. Baseline sessions that cannot be compared (another machine, metric or graph mode, an invalid environment, this
    session itself) are left out with a note; when none is left, the verdict is ``no_baseline``. Raises ValueError for
    sessions of another benchmark and UsageError for margins outside 0 to 1.
    """
    limits = Limits(regress=regress_margin, equivalent=equivalent_within)
    for other in (*baseline, *([previous] if previous else ())):
        if other.benchmark != new.benchmark:
            raise ValueError(f"session {other.id} is of {other.benchmark}, not of {new.benchmark}")
    result = _compare_with(new, baseline, limits)
    if result.verdict != "regressed" or previous is None:
        return result
    if previous.id == new.id:
        raise ValueError(f"session {new.id} cannot be the one before itself")
    before = _compare_with(previous, baseline, limits)
    note = f"the session before ({previous.id}) was {before.verdict}"
    enough = min(len(result.baseline), len(before.baseline)) >= FEWEST_SESSIONS
    repeated = before.verdict == "regressed" and enough
    return replace(result, repeated=repeated, notes=(*result.notes, note))


def compare_in_turns(a: Session, b: Session, *, regress_margin: float = 0.01) -> Comparison:
    """Return how ``a`` compares with ``b``, measured in turns (A B B A) on one machine: Welch over log process medians.

    The ratio is time of ``a`` over time of ``b``; ``speed_up`` gives the inverse. It is of GPU time where both have it,
    otherwise end to end. Raises ValueError for sessions of two machines.
    """
    limits = Limits(regress=regress_margin)
    if a.machine.key != b.machine.key:
        raise ValueError(f"sessions {a.id} and {b.id} were not measured in turns: they are of two machines")
    chosen: Metric = a.metric if a.metric == b.metric else "end_to_end_ms"
    notes = [] if a.metric == b.metric else [f"GPU time is missing in {a.id} or {b.id}: compared end to end"]
    for session in (a, b):
        flaw = why_unusable(session, chosen)
        if flaw:
            verdict: LatencyVerdict = "invalid_environment" if session.invalid else "inconclusive"
            return _undecided(verdict, chosen, f"session {session.id}: {flaw}", notes)
    if graph_modes(a) != graph_modes(b):
        notes.append("a CUDA graph on one side only")
    return _compare(a, [b], limits, chosen, notes)


def speed_up(comparison: Comparison) -> tuple[float, float, float] | None:
    """Return old time over new time (above 1 is faster) with its 95 % interval; None without a ratio."""
    if comparison.ratio is None or comparison.low is None or comparison.high is None:
        return None
    return 1 / comparison.ratio, 1 / comparison.high, 1 / comparison.low


def holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return the comparisons of one run, in their order, with Holm's correction for their number.

    A ``regressed`` or ``improved`` whose corrected p value is above 2.5 % becomes ``inconclusive``; no other verdict
    changes. The family is every comparison that was tested (Holm, Scandinavian Journal of Statistics 1979).
    """
    tested = sorted((c.p_value, index) for index, c in enumerate(comparisons) if c.p_value is not None)
    adjusted = list(comparisons)
    level, p_adjusted = (1 - CONFIDENCE) / 2, 0.0
    for rank, (p_value, index) in enumerate(tested):
        p_adjusted = max(p_adjusted, min(p_value * (len(tested) - rank), 1.0))
        one = comparisons[index]
        if p_adjusted > level and one.verdict in ("regressed", "improved"):
            rule = (
                f"{one.rule}; alone it would be {one.verdict}, but among {len(tested)} benchmarks Holm's p is "
                f"{p_adjusted:.3g}, above {level:.3g}"
            )
            adjusted[index] = replace(one, verdict="inconclusive", repeated=False, rule=rule)
    return tuple(adjusted)


def _compare_with(new: Session, baseline: Sequence[Session], limits: Limits) -> Comparison:
    chosen = new.metric
    flaw = why_unusable(new, chosen)
    if flaw:
        return _undecided("invalid_environment" if new.invalid else "inconclusive", chosen, flaw, flag_notes([new]))
    usable: dict[str, Session] = {}
    notes = []
    for old in baseline:
        why_not = why_incomparable(new, old) or why_unusable(old, chosen)
        if why_not:
            notes.append(f"baseline session {old.id} left out: {why_not}")
        else:
            usable[old.id] = old
    sessions = list(usable.values())
    if not sessions:
        reason = "none of the baseline's sessions can be compared" if baseline else "no session was accepted yet"
        return _undecided("no_baseline", chosen, reason, [*notes, *_advice(new, baseline, chosen), *flag_notes([new])])
    if len(sessions) < FEWEST_SESSIONS:
        notes.append(f"the baseline has {len(sessions)} of {FEWEST_SESSIONS} sessions: no regression counts yet")
    return _compare(
        new, sessions, limits, chosen, [*notes, *difference_notes(new, sessions), *flag_notes([new], sessions)]
    )


def _compare(new: Session, old: list[Session], limits: Limits, metric: Metric, notes: list[str]) -> Comparison:
    """Return the verdict on a session against sessions that can all be compared with it."""
    times = log_figures(new, metric, "median"), [log_figures(session, metric, "median") for session in old]
    estimate = estimate_of(*times)
    verdict = decide(estimate, limits)
    rule = rule_words(estimate, limits, verdict)
    cycles = _estimate_of_figure(new, old, metric, "cycles")
    if cycles:
        verdict, rule, notes = _check_in_cycles(
            verdict, rule, cycles, limits, notes, power_capped(new) != power_capped(*old)
        )
    robust = hodges_lehmann(times[0], [value for values in times[1] for value in values])
    if abs(robust - estimate.delta) > math.log(margin_of(estimate, limits)) / 2:
        notes = [*notes, f"the Hodges-Lehmann ratio, which outliers do not move, disagrees: {math.exp(robust):.5g}"]
    tail = _estimate_of_figure(new, old, metric, "p99")
    if tail:
        p99 = decide(tail, Limits(regress=P99_MARGIN, equivalent=P99_EQUIVALENT))
        notes = [*notes, f"p99 {p99} {ratio_words(tail)}"] if p99 in ("regressed", "improved") else notes
    ratio, low, high = estimate.interval()
    return Comparison(
        verdict=verdict,
        ratio=ratio,
        low=low,
        high=high,
        metric=metric,
        rule=rule,
        baseline=tuple(session.id for session in old),
        notes=tuple(notes),
        p_value=estimate.p_value(margin_of(estimate, limits)),
    )


def _check_in_cycles(
    verdict: LatencyVerdict, rule: str, cycles: Estimate, limits: Limits, notes: list[str], capped: bool
) -> tuple[LatencyVerdict, str, list[str]]:
    """Return verdict, rule and notes, checked against clock cycles (time x SM clock) under the same rule."""
    in_cycles = decide(cycles, limits)
    numbers = f"in clock cycles {ratio_words(cycles)}"
    if verdict == "regressed" and in_cycles == "equivalent":
        return "slower_clock", f"slower in time, {rule}; but equivalent {numbers}", notes
    if capped:
        notes = [*notes, "the power limit was reached on one side only"]
        if verdict in ("regressed", "improved") and in_cycles != verdict:
            rule = f"{rule}; {verdict} in time, but under another power limit it must hold {numbers}, which it does not"
            return "inconclusive", rule, notes
    if in_cycles not in (verdict, "inconclusive"):
        notes = [*notes, f"{in_cycles} {numbers}: the clocks differ"]
    return verdict, rule, notes


def _estimate_of_figure(new: Session, old: list[Session], metric: Metric, figure: Figure) -> Estimate | None:
    """Return the estimate for a figure; None where a process of one of the sessions lacks it."""
    mine, theirs = log_figures(new, metric, figure), [log_figures(session, metric, figure) for session in old]
    return estimate_of(mine, theirs) if mine and all(theirs) else None


def _advice(new: Session, baseline: Sequence[Session], metric: Metric) -> list[str]:
    """Return a note on sessions of the same class of machine, which never decide the verdict."""
    same = [
        old for old in baseline
        if old.machine.class_key == new.machine.class_key and old.machine.key != new.machine.key
        and graph_modes(old) == graph_modes(new) and not why_unusable(old, metric)
    ]  # fmt: skip
    if not same or not new.machine.class_key:
        return []
    estimate = estimate_of(log_figures(new, metric, "median"), [log_figures(old, metric, "median") for old in same])
    return [f"advice only, machine of the same class: {ratio_words(estimate)}"]


def _undecided(verdict: LatencyVerdict, metric: Metric, rule: str, notes: Sequence[str]) -> Comparison:
    return Comparison(verdict=verdict, ratio=None, low=None, high=None, metric=metric, rule=rule, notes=tuple(notes))
