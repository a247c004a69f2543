"""Whether a session is slower than its baseline, and by how much: the first look, against stored times.

The figure of a process is the logarithm of its median, that of a session the median over its processes. With four
sessions or more in the baseline, the new session is compared with the prediction interval for one more of them; with
fewer, Welch's interval over processes is used. Stored times cannot tell a slow engine from a slow day, so no engine
fails by them alone: :mod:`harness.latency.second_look` decides. ``python benchmarks/latency_verdict.py`` prints how
often each rule is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from harness.latency.comparable import (
    Figure,
    changed_facts,
    difference_notes,
    flag_notes,
    graph_modes,
    log_figures,
    power_capped,
    why_incomparable,
    why_unusable,
)
from harness.latency.estimate import (
    Estimate,
    Limits,
    advice_on,
    decide,
    estimate_of,
    hodges_lehmann,
    margin_of,
    ratio_words,
    rule_words,
)
from harness.latency.modes import two_modes, within_clock
from harness.records import VERDICT_WORDS, Comparison, LatencyVerdict, Metric, Session
from harness.sentences import Sentence

MACHINE_CHANGED = Sentence("find_what_changed")
UNCONFIRMED = {
    "regressed": Sentence("keep_accepted_engine"),
}
"""What to do about a verdict that no second look has confirmed."""
P99_MARGIN, P99_EQUIVALENT = 0.05, 0.15
"""The tail is noisier than the median and has bounds of its own; it is reported and never decides."""


def compare_sessions(
    new: Session,
    baseline: Sequence[Session],
    *,
    regress_margin: float = 0.01,
    equivalent_within: float = 0.03,
) -> Comparison:
    """Return whether a session is slower than the sessions of its baseline, which must be of the same benchmark.

    Baseline sessions that cannot be compared (another machine, metric or graph mode, an invalid environment, this
    session itself) are left out with a note; when none is left, the verdict is ``no_baseline``, or ``machine_changed``
    where it is this machine that differs. An engine whose file is that of the baseline cannot have become slower: where
    its time has changed, so has the machine. Raises ValueError for sessions of another benchmark and UsageError for
    margins outside 0 to 1.
    """
    limits = Limits(regress=regress_margin, equivalent=equivalent_within)
    for other in baseline:
        if other.benchmark != new.benchmark:
            raise ValueError(f"session {other.id} is of {other.benchmark}, not of {new.benchmark}")
    found = _compare_with(new, baseline, limits)
    if found.verdict in ("regressed", "improved") and is_accepted_engine(new, baseline):
        rule = Sentence("file_is_accepted", rule=found.rule)
        return replace(found, verdict="machine_changed", rule=rule, next_step=MACHINE_CHANGED)
    return found


def is_accepted_engine(new: Session, baseline: Sequence[Session]) -> bool:
    """Return whether the engine file is that of the baseline, bit for bit, with the same kernels and kind of inputs."""
    accepted = {(old.engine_sha256, old.kernels_sha256, old.inputs) for old in baseline}
    return bool(new.engine_sha256) and (new.engine_sha256, new.kernels_sha256, new.inputs) in accepted


def compare_in_turns(a: Session, b: Session, *, regress_margin: float = 0.01) -> Comparison:
    """Return how ``a`` compares with ``b``, measured in turns (A B B A) on one machine: Welch over log process medians.

    The ratio is time of ``a`` over time of ``b``; ``speed_up`` gives the inverse. It is of GPU time where both have it,
    otherwise end to end. Raises ValueError for sessions of two machines.
    """
    limits = Limits(regress=regress_margin)
    if a.machine.key != b.machine.key:
        raise ValueError(f"sessions {a.id} and {b.id} were not measured in turns: they are of two machines")
    chosen: Metric = a.metric if a.metric == b.metric else "end_to_end_ms"
    notes: list[str] = [] if a.metric == b.metric else [Sentence("gpu_time_missing", id=a.id, id_2=b.id)]
    for session in (a, b):
        flaw = why_unusable(session, chosen)
        if flaw:
            verdict: LatencyVerdict = "invalid_environment" if session.invalid else "inconclusive"
            return _undecided(verdict, chosen, Sentence("session_flaw", id=session.id, flaw=flaw), notes)
    if graph_modes(a) != graph_modes(b):
        notes.append(Sentence("graph_on_one_side"))
    return replace(_compare(a, [b], limits, chosen, notes), next_step="")


def speed_up(comparison: Comparison) -> tuple[float, float, float] | None:
    """Return old time over new time (above 1 is faster) with its 95 % interval; None without a ratio."""
    if comparison.ratio is None or comparison.low is None or comparison.high is None:
        return None
    return 1 / comparison.ratio, 1 / comparison.high, 1 / comparison.low


def _compare_with(new: Session, baseline: Sequence[Session], limits: Limits) -> Comparison:
    chosen = new.metric
    flaw = why_unusable(new, chosen)
    if flaw:
        return _undecided("invalid_environment" if new.invalid else "inconclusive", chosen, flaw, flag_notes([new]))
    usable: dict[str, Session] = {}
    notes: list[str] = []
    for old in baseline:
        why_not = why_incomparable(new, old) or why_unusable(old, chosen)
        if why_not:
            notes.append(Sentence("baseline_session_left_out", id=old.id, why_not=why_not))
        else:
            usable[old.id] = old
    sessions = list(usable.values())
    if not sessions:
        verdict, reason = _why_no_baseline(new, baseline)
        notes += [*_advice(new, baseline, chosen), *flag_notes([new])]
        found = _undecided(verdict, chosen, reason, notes)
        return replace(found, next_step=MACHINE_CHANGED) if verdict == "machine_changed" else found
    notes += [*difference_notes(new, sessions), *flag_notes([new], sessions)]
    mode = within_clock(new, sessions)
    if mode.problem:
        return _undecided("invalid_environment", chosen, mode.problem, notes)
    notes += [mode.note] if mode.note else []
    values = [median(log_figures(session, chosen, "median")) for session in mode.old]
    halves = two_modes(values)
    if halves is None:
        return _compare(mode.new, mode.old, limits, chosen, notes)
    fast, slow = ([mode.old[i] for i in half] for half in halves)
    ends = [math.exp(median([values[i] for i in half])) for half in halves]
    words = Sentence("baseline_two_modes", ends=ends[0], count=len(fast), ends_2=ends[1], count_2=len(slow))
    slower = median(log_figures(mode.new, chosen, "median")) > math.log(math.sqrt(ends[0] * ends[1]))
    found = _compare(mode.new, slow if slower else fast, limits, chosen, [*notes, words])
    if not slower or found.verdict == "regressed":
        return found
    rule = Sentence("mode_untold", words=words)
    advice = Sentence("hold_one_state")
    return replace(found, verdict="invalid_environment", rule=rule, next_step=advice)


def _why_no_baseline(new: Session, baseline: Sequence[Session]) -> tuple[LatencyVerdict, str]:
    """Return the verdict without a usable baseline, and why: this machine may have been another one when accepted."""
    if not baseline:
        return "no_baseline", Sentence("none_accepted")
    for old in reversed(baseline):
        changed = changed_facts(new, old)
        if changed:
            return "machine_changed", Sentence("machine_was_other", changed=changed)
    return "no_baseline", Sentence("none_comparable")


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
        notes = [*notes, Sentence("hodges_lehmann", exp=math.exp(robust))]
    tail = _estimate_of_figure(new, old, metric, "p99")
    if tail:
        p99 = decide(tail, Limits(regress=P99_MARGIN, equivalent=P99_EQUIVALENT))
        notes = (
            [*notes, Sentence("p99_ratio", p99=p99, ratio_words=ratio_words(tail))]
            if p99 in ("regressed", "improved")
            else notes
        )
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
        next_step=advice_on(*times, limits) if verdict == "inconclusive" else UNCONFIRMED.get(verdict, ""),
    )


def _check_in_cycles(
    verdict: LatencyVerdict, rule: str, cycles: Estimate, limits: Limits, notes: list[str], capped: bool
) -> tuple[LatencyVerdict, str, list[str]]:
    """Return verdict, rule and notes, checked against clock cycles (time x SM clock) under the same rule."""
    in_cycles = decide(cycles, limits)
    numbers = Sentence("in_cycles", ratio_words=ratio_words(cycles))
    if verdict == "regressed" and in_cycles == "equivalent":
        return "slower_clock", Sentence("slower_but_equivalent", rule=rule, numbers=numbers), notes
    if capped:
        notes = [*notes, Sentence("power_one_side")]
        if verdict in ("regressed", "improved") and in_cycles != verdict:
            rule = Sentence("other_power_limit", rule=rule, verdict=VERDICT_WORDS[verdict], numbers=numbers)
            return "inconclusive", rule, notes
    if in_cycles not in (verdict, "inconclusive"):
        notes = [*notes, Sentence("clocks_differ", in_cycles=VERDICT_WORDS[in_cycles], numbers=numbers)]
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
    return [Sentence("advice_only", ratio_words=ratio_words(estimate))]


def _undecided(verdict: LatencyVerdict, metric: Metric, rule: str, notes: Sequence[str]) -> Comparison:
    return Comparison(verdict=verdict, ratio=None, low=None, high=None, metric=metric, rule=rule, notes=tuple(notes))
