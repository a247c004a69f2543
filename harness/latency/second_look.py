"""A suspicious engine, measured again in turns with a control: what the verdict becomes.

Stored times mix the engine with the day. In turns (A B B A, fresh processes) both sides have the same day, so the
accepted engine itself, where its file is still there, is the strongest control: both samples are compared by ranks,
which hold their error rate whatever the noise looks like. Without it PyTorch stands for the machine: the ratio of
engine to PyTorch is compared with the same ratio in the sessions of the baseline.

Error rates by design: a target whose engine is not slower is called so at most once in 2000 looks (``LEVELS`` add up to
0.05 %), a run of 20 targets in at most 1 %, even if every target is looked at twice.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from harness.history import has_moved
from harness.latency.comparable import log_figures, why_unusable
from harness.latency.estimate import CONFIDENCE, FEWEST_SESSIONS, Limits, qn, t_quantile, variance
from harness.latency.ranks import shift, slower_p
from harness.latency.verdict import MACHINE_CHANGED
from harness.records import VERDICT_WORDS, Comparison, LatencyVerdict, SecondLook, Session
from harness.sentences import Sentence, joined

ACCEPTED = Sentence("accepted_engine")
ROUNDS = (8, 16, 40)
"""Processes of each side after which a decision may fall."""
LEVELS = (0.0001, 0.0001, 0.0003)
"""Largest p value of a confirmed slow-down after each of them."""
PROMISING = 0.15
"""Largest p value after ``ROUNDS[1]`` with which the last, long round is run; equal engines hardly ever have it."""
PYTORCH_LEVEL = 0.002
"""The same against PyTorch, of two tests that both have to find it: by the accepted sessions, and by the processes of
this look. Only a target that is suspicious by its stored times comes here, so fewer alarms follow."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """What an engine was measured in turns with, now and when the baseline was accepted."""

    name: str
    """``ACCEPTED``, or PyTorch by the name of the contestant."""
    now: Session
    """In turns with the engine."""
    then: Sequence[tuple[Session, Session]] = ()
    """Accepted sessions with the control's session of the same run; of the accepted engine each with itself."""


def judged_again(
    first: Comparison, new: Session, control: Control, *, last: bool, limits: Limits | None = None
) -> Comparison | None:
    """Return the verdict after the second look; None where further processes may decide and ``last`` is not set.

    ``new`` holds the engine's processes of the second look alone: those that made it suspicious are no evidence.
    """
    limits = limits or Limits()
    metric = new.metric if new.metric == control.now.metric else "end_to_end_ms"
    for session in (new, control.now):
        if flaw := why_unusable(session, metric):
            verdict: LatencyVerdict = "invalid_environment" if session.invalid else "inconclusive"
            return _noted(first, verdict, Sentence("second_look_flaw", flaw=flaw), None, Sentence("measure_again"))
    mine, theirs = log_figures(new, metric, "median"), log_figures(control.now, metric, "median")
    then = [
        (median(log_figures(a, metric, "median")), median(log_figures(b, metric, "median")))
        for a, b in control.then
        if not why_unusable(a, metric) and not why_unusable(b, metric)
    ]
    if control.name != ACCEPTED and not enough_pairs(then):
        rule = Sentence("beside_control", count=len(then), name=control.name)
        return _noted(first, "inconclusive", rule, None, Sentence("accept_four"))
    moved = median(theirs) - median(b for _, b in then) if then else None
    if control.name == ACCEPTED:
        look = _by_ranks(mine, theirs, limits)
        level = LEVELS[min(bisect_left(ROUNDS, len(mine)), len(LEVELS) - 1)]
        last = last or (len(mine) > ROUNDS[0] and look.p_value > PROMISING)
    else:
        look, level, last = _by_prediction(mine, theirs, [a - b for a, b in then], limits), PYTORCH_LEVEL, True
    look = replace(
        look, control=control.name, control_sha256=control.now.engine_sha256, processes=len(mine),
        control_ratio=None if moved is None else math.exp(moved),
    )  # fmt: skip
    return _decided(first, look, level, limits, last=last)


def is_suspicious(first: Comparison) -> bool:
    """Return whether a second look is needed: only equal times on a series that has not moved need none."""
    if first.ratio is None and first.verdict != "machine_changed":  # nothing could be compared
        return False
    return (first.age is not None and has_moved(first.age)) or first.verdict != "equivalent"


def has_control_moved(now: Session, then: Sequence[Session], limits: Limits | None = None) -> bool:
    """Return whether a control's time is not what it was, beyond its spread: the machine may hide a slower engine."""
    values = [median(figures) for one in then if (figures := log_figures(one, now.metric, "median"))]
    mine = log_figures(now, now.metric, "median")
    if len(values) < FEWEST_SESSIONS or not mine:
        return False
    least = math.log1p((limits or Limits()).regress)
    return abs(median(mine) - median(values)) > max(least, 2 * qn(values))


def enough_pairs(then: Sequence[object]) -> bool:
    """Return whether so many accepted sessions were measured in turns with PyTorch that their spread is known."""
    return len(then) >= FEWEST_SESSIONS


def _by_ranks(mine: Sequence[float], theirs: Sequence[float], limits: Limits) -> SecondLook:
    margin = math.log1p(limits.regress)
    middle, low, high = (math.exp(end) for end in shift(mine, theirs, CONFIDENCE))
    p = slower_p(mine, theirs, margin)
    return SecondLook(control="", processes=len(mine), ratio=middle, low=low, high=high, p_value=p)


def _by_prediction(mine: Sequence[float], theirs: Sequence[float], then: Sequence[float], limits: Limits) -> SecondLook:
    """Return the look by Student's prediction interval for one more difference of log times.

    A few sessions that agree by chance leave the interval too narrow where processes have two modes: what the processes
    of this look do not show by their ranks is no slow-down either.
    """
    from scipy.special import stdtr

    usual, margin = fmean(then), math.log1p(limits.regress)
    delta = median(mine) - median(theirs) - usual
    error, freedom = math.sqrt(variance(then) * (1 + 1 / len(then))), len(then) - 1
    half = t_quantile(freedom, (1 + CONFIDENCE) / 2) * error
    p = float(stdtr(freedom, (margin - delta) / error)) if error else float(delta <= margin)
    p = max(p, slower_p(mine, theirs, usual + margin))
    middle, low, high = (math.exp(delta + sign * half) for sign in (0, -1, 1))
    return SecondLook(control="", processes=0, ratio=middle, low=low, high=high, p_value=p)


def _decided(first: Comparison, look: SecondLook, level: float, limits: Limits, *, last: bool) -> Comparison | None:
    margin, same = 1 + limits.regress, 1 + limits.equivalent
    # Where stored times alone called it slower or faster, less of a move of the control explains it.
    changed = first.verdict in ("regressed", "improved", "slower_clock", "machine_changed", "invalid_environment")
    bound = margin if changed else same
    moved = look.control_ratio is not None and not 1 / bound < look.control_ratio < bound
    figures = f"{look.ratio:.5g} [{look.low:.5g}, {look.high:.5g}]"
    than = (
        Sentence("the_accepted_engine")
        if look.control == ACCEPTED
        else Sentence("control_relative", control=look.control)
    )
    how = Sentence("in_turns", than=than, figures=figures, processes=look.processes)
    if look.p_value <= level:
        return _noted(first, "regressed", Sentence("turns_slower", how=how, margin=margin, p_value=look.p_value), look)
    if look.high < 1 / margin:
        return _noted(first, "improved", Sentence("turns_below", how=how, margin=1 / margin), look)
    if 1 / same < look.low and look.high < same:
        within = Sentence("turns_within", how=how, same=1 / same, same_2=same)
        if not moved and first.verdict != "machine_changed":
            return _noted(first, "equivalent", within, look)
        ratio = "" if look.control_ratio is None else Sentence("control_takes", control_ratio=look.control_ratio)
        return _noted(first, "machine_changed", joined((within, ratio), ""), look, MACHINE_CHANGED)
    if not last:
        return None
    rule = Sentence("turns_neither", how=how, margin=margin, p_value=look.p_value, same=1 / same, same_2=same)
    advice = Sentence("end_or_lock")
    return _noted(first, "inconclusive", rule, look, advice)


def _noted(
    first: Comparison, verdict: LatencyVerdict, rule: str, look: SecondLook | None, advice: str = ""
) -> Comparison:
    """Return the verdict of the second look; that of the first becomes a note."""
    note = Sentence("by_stored_times", verdict=VERDICT_WORDS[first.verdict], rule=first.rule)
    found = replace(
        first, verdict=verdict, rule=rule, second_look=look, repeated=verdict == "regressed", next_step=advice,
        notes=(*first.notes, note),
    )  # fmt: skip
    return found if look is None else replace(
        found, ratio=look.ratio, low=look.low, high=look.high, p_value=look.p_value
    )  # fmt: skip
