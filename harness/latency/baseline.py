"""Baselines: recorded sessions accepted on this machine, and a session compared with those of its series."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from harness.backends import BACKENDS
from harness.errors import NotJudged, UsageError
from harness.history import History
from harness.latency.comparable import graph_modes
from harness.latency.sizes import Sizes
from harness.latency.verdict import compare_sessions
from harness.machine import commit, machine
from harness.records import Comparison, Session, utc
from harness.subject import Subject, Target

MOST_ACCEPTED = 8
"""Sessions that become a baseline by default."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selection of a subject's series."""

    subject: Subject
    cases: Sequence[str] = ()
    """Empty for all."""
    backends: Sequence[str] = ()
    """Empty for all engines; ``torch`` selects the series of PyTorch."""
    precisions: Sequence[str] = ()
    """Empty for all."""
    sizes: Sequence[Sizes] | None = None
    """None for all."""
    root: Path = Path()
    """The suite's repository."""

    def holds(self, session: Session) -> bool:
        """Return whether a session's series is selected."""
        named = [Target("", precision) for precision in self.precisions]
        return (
            session.subject == self.subject.name
            and session.source in ("", self.subject.source)
            and (not self.cases or session.case in self.cases)
            and (self.sizes is None or session.sizes in self.sizes)
            and (not named or any(self._is_in(session, target) for target in named))
            and (session.backend in self.backends if self.backends else session.runner == "engine")
        )

    def _is_in(self, session: Session, target: Target) -> bool:
        known = session.precision == target.precision_name
        return known and session.plan_source in ("", target.plan_source(self.root))


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The sessions of one series that were accepted."""

    benchmark: str
    sessions: tuple[Session, ...] = ()
    """The new baseline; empty where nothing was accepted."""
    problem: str = ""
    """Why nothing was accepted, as a sentence."""


def recorded_series(history: History, selection: Selection) -> list[list[Session]]:
    """Return the recorded series that are selected, each oldest first, none empty."""
    found = []
    for one in history.benchmarks():
        latest = history.sessions(one.benchmark, one.machine_key, limit=1)
        if latest and selection.holds(latest[-1]):
            found.append(history.sessions(one.benchmark, one.machine_key))
    return found


def accept(history: History, selection: Selection, *, why: str, last: int | None = None) -> Iterator[Accepted]:
    """Make the latest sessions of every selected series of this machine its baseline, and yield what was accepted.

    ``last`` is how many; by default all since the last acceptance, at most ``MOST_ACCEPTED``. Raises UsageError
    without a reason, and NotJudged where no session of this machine is recorded or the history cannot be read.
    """
    if not why.strip():
        raise UsageError("accepting needs a reason: --why 'TEXT'")
    history.check_readable("nothing was accepted")
    name, series = selection.subject.name, recorded_series(history, selection)
    here = [sessions for sessions in series if _is_here(sessions[-1])]
    if not here:
        where = " on this machine; a baseline is made of sessions of the same machine" if series else ""
        raise NotJudged(f"no such session of {name} is recorded{where}: run parity bench {selection.subject.as_typed}")
    for sessions in here:
        benchmark, key = sessions[-1].benchmark, sessions[-1].machine.key
        wanted = _to_accept(sessions, history.baseline(benchmark, key), last)
        if not wanted:
            yield Accepted(benchmark=benchmark, problem=_why_none(sessions))
            continue
        ids = [session.id for session in wanted]
        history.accept(benchmark, key, ids, why, _user(), commit(selection.root))
        yield Accepted(benchmark=benchmark, sessions=tuple(wanted))


def _to_accept(sessions: Sequence[Session], baseline: Sequence[Session], last: int | None) -> list[Session]:
    """Return the sessions that become the baseline: the last valid ones, or those since the last acceptance."""
    valid = _valid(sessions)
    if last is not None:
        return valid[-last:]
    known = {session.id for session in baseline}
    newest = max((i for i, session in enumerate(valid) if session.id in known), default=-1)
    return valid[newest + 1 :][-MOST_ACCEPTED:]


def _valid(sessions: Sequence[Session]) -> list[Session]:
    """Return the sessions that can be accepted; one dated in the future would stay the latest, and is left out."""
    now = utc(datetime.now(UTC).isoformat())
    return [one for one in sessions if not one.invalid and utc(one.recorded_at) <= now]


def _why_none(sessions: Sequence[Session]) -> str:
    if _valid(sessions):
        return "nothing new since the last acceptance; --last N accepts again"
    return (
        f"none of its {len(sessions)} sessions counts (measured in an invalid environment, or dated in the future); "
        "measure again"
    )


def _is_here(session: Session) -> bool:
    """Return whether a session was measured on this machine with its present driver and backend version."""
    on_gpu = session.device != "CPU"
    if on_gpu and not torch.cuda.is_available():
        return False
    backend = BACKENDS.get(session.backend)
    if backend is None or backend.unavailable() is not None:
        return False
    locked = session.machine.facts.get("locked_mhz")
    return machine(session.backend, backend.version(), on_gpu, locked_mhz=locked).key == session.machine.key


def compare_with_baseline(session: Session, history: History | None) -> Comparison:
    """Compare a session with its accepted baseline; the verdict is ``no_baseline`` without a history."""
    if history is None:
        return compare_sessions(session, ())
    key = session.machine.key
    baseline = history.baseline(session.benchmark, key)
    if not baseline and not history.readable and not session.invalid:
        return without_baseline("the history cannot be read now, so the accepted sessions are not known")
    if not baseline:  # sessions of another machine are left out with a note
        others = [one.machine_key for one in history.benchmarks() if one.benchmark == session.benchmark]
        baseline = [old for other in others for old in history.baseline(session.benchmark, other)]
    previous, note = _before(session, history.sessions(session.benchmark, key))
    found = compare_sessions(session, baseline, previous=previous)
    return replace(found, notes=(*found.notes, note)) if note else found


def without_baseline(rule: str) -> Comparison:
    """Return the comparison of a session that is compared with nothing; ``rule`` says why."""
    return Comparison(verdict="no_baseline", ratio=None, low=None, high=None, rule=rule)


def _before(session: Session, recorded: Sequence[Session]) -> tuple[Session | None, str]:
    """Return the last session before this one that was measured in the same way, and a note on those dated later.

    A session dated later by a wrong clock is not the one before: it would stay the last one, and decide for every later
    session whether a regression is repeated.
    """
    mode = _mode(session)
    others = [old for old in recorded if old.id != session.id and not old.invalid and _mode(old) == mode]
    earlier = [old for old in others if utc(old.recorded_at) <= utc(session.recorded_at)]
    ahead = len(others) - len(earlier)
    note = f"sessions dated after this one: {ahead}; a clock jumped, and none of them counts as the one before"
    return (earlier[-1] if earlier else None), note if ahead else ""


def _mode(session: Session) -> tuple[str, set[bool]]:
    return session.metric, graph_modes(session)  # as measured; ``Session.graph`` is the request


def _user() -> str:
    """Return the user's name; empty where the system does not know it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
