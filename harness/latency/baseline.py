"""One session compared with what was accepted of its series on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.history import History
from harness.latency.comparable import graph_modes
from harness.latency.verdict import compare_sessions
from harness.records import Comparison, Session, utc


def compare_with_baseline(session: Session, history: History | None) -> Comparison:
    """Return whether a session got slower than its accepted baseline; ``no_baseline`` without a history."""
    if history is None:
        return compare_sessions(session, ())
    key = session.machine.key
    baseline = history.baseline(session.benchmark, key)
    if not baseline and not history.readable and not session.invalid:
        return _no_baseline("the history cannot be read now, so that what was accepted is not known")
    if not baseline:  # what another machine accepted decides nothing, and the verdict says so
        others = [one.machine_key for one in history.benchmarks() if one.benchmark == session.benchmark]
        baseline = [old for other in others for old in history.baseline(session.benchmark, other)]
    previous, note = _before(session, history.sessions(session.benchmark, key))
    found = compare_sessions(session, baseline, previous=previous)
    return replace(found, notes=(*found.notes, note)) if note else found


def without_baseline() -> Comparison:
    """Return the comparison of PyTorch that is only compared with: it is compared with nothing itself."""
    return _no_baseline("measured to compare engines with; -b torch would judge it")


def _before(session: Session, recorded: Sequence[Session]) -> tuple[Session | None, str]:
    """Return the last session before this one that was measured in the same way, and a note on later ones.

    A session that a clock which ran ahead has dated later than this one is never the one before: it would stay the last
    one, and no regression or every one would be repeated.
    """
    mode = _mode(session)
    others = [old for old in recorded if old.id != session.id and not old.invalid and _mode(old) == mode]
    earlier = [old for old in others if utc(old.recorded_at) <= utc(session.recorded_at)]
    ahead = len(others) - len(earlier)
    note = f"sessions dated after this one: {ahead}; a clock jumped, and none of them counts as the one before"
    return (earlier[-1] if earlier else None), note if ahead else ""


def _mode(session: Session) -> tuple[str, set[bool]]:
    """Return what is timed, and whether CUDA graphs were really replayed: ``Session.graph`` is what was asked for."""
    return session.metric, graph_modes(session)


def _no_baseline(rule: str) -> Comparison:
    return Comparison(verdict="no_baseline", ratio=None, low=None, high=None, rule=rule)
