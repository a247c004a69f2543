"""A session compared with the accepted ones of its series, and what became of the series since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from statistics import median

from harness.history import History, age_of, age_words, has_moved
from harness.latency.comparable import graph_modes
from harness.latency.verdict import compare_sessions
from harness.records import Age, Comparison, Session, utc
from harness.sentences import Sentence

OLD_DAYS = 30
"""A baseline of this age is noted."""


def compare_with_baseline(session: Session, history: History | None) -> Comparison:
    """Compare a session with its accepted baseline; the verdict is ``no_baseline`` without a history."""
    if history is None:
        return compare_sessions(session, ())
    baseline = accepted_sessions(session, history)
    if not baseline and not history.readable and not session.invalid:
        return without_baseline("the history cannot be read now, so the accepted sessions are not known")
    found = compare_sessions(session, baseline)
    used = [old for old in baseline if old.id in found.baseline]
    if not used:
        return found
    age, notes = _age(session, used, history.sessions(session.benchmark, session.machine.key))
    return replace(found, age=age, notes=(*found.notes, *notes))


def accepted_sessions(session: Session, history: History) -> list[Session]:
    """Return the baseline of a session's series; where this machine has none, those of other machines."""
    here = history.baseline(session.benchmark, session.machine.key)
    if here:
        return here
    others = [one.machine_key for one in history.benchmarks() if one.benchmark == session.benchmark]
    return [old for other in others for old in history.baseline(session.benchmark, other)]


def without_baseline(rule: str) -> Comparison:
    """Return the comparison of a session that is compared with nothing; ``rule`` says why."""
    return Comparison(verdict="no_baseline", ratio=None, low=None, high=None, rule=rule)


def _age(session: Session, baseline: Sequence[Session], recorded: Sequence[Session]) -> tuple[Age, list[str]]:
    """Return the age of a baseline and notes on it: what was recorded since, up to this session."""
    mode, newest, now = _mode(session), max(utc(old.recorded_at) for old in baseline), utc(session.recorded_at)
    ids = {session.id, *(old.id for old in baseline)}
    later = [
        old for old in recorded
        if old.id not in ids and not old.invalid and _mode(old) == mode and utc(old.recorded_at) >= newest
    ]  # fmt: skip
    since = [old for old in later if utc(old.recorded_at) <= now]
    days = (datetime.fromisoformat(now) - datetime.fromisoformat(newest)).total_seconds() / 86400
    times = [[median(old.medians()) for old in sessions] for sessions in (baseline, since)]
    age = age_of(*times, days=max(days, 0.0))
    notes: list[str] = (
        [Sentence("baseline_age", age_words=age_words(age))] if has_moved(age) or age.days >= OLD_DAYS else []
    )
    if len(later) > len(since):
        notes.append(Sentence("dated_after", count=len(later) - len(since)))
    return age, notes


def _mode(session: Session) -> tuple[str, set[bool]]:
    return session.metric, graph_modes(session)  # as measured; ``Session.graph`` is the request
