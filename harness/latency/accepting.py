"""Accepting: recorded sessions of this machine become the baseline, after a look at what they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

from harness.backends import BACKENDS
from harness.errors import NotJudged, UsageError
from harness.history import History
from harness.latency.comparable import FEWEST_PROCESSES, log_figures, why_unusable
from harness.latency.estimate import FEWEST_SESSIONS, Limits, baseline_advice, qn, variance
from harness.latency.modes import two_modes
from harness.latency.sizes import Sizes
from harness.machine import commit, machine, user_name
from harness.records import Session, utc
from harness.sentences import Sentence
from harness.subject import Subject, Target

MOST_ACCEPTED = 8
"""Sessions that become a baseline by default."""
OUTLIER_LEAST, OUTLIER_SPREADS = 0.015, 4.0
"""An outlier is farther from the median than this (in logarithms), and than this many times the spread (Qn)."""


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
    left_out: tuple[Session, ...] = ()
    """Outliers, which did not become part of it."""
    remarks: tuple[str, ...] = ()
    """What a reader must know of it, a sentence each: outliers, modes, and what it cannot tell apart."""
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


def accept(
    history: History, selection: Selection, *, why: str, last: int | None = None, include: bool = False
) -> Iterator[Accepted]:
    """Make the latest sessions of every selected series of this machine its baseline, and yield what was accepted.

    ``last`` is how many; by default all since the last acceptance, at most ``MOST_ACCEPTED``. Outliers among them are
    left out unless ``include`` is set. Raises UsageError without a reason, and NotJudged where no session of this
    machine is recorded or the history cannot be read.
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
        found = reviewed(benchmark, wanted, include=include)
        ids = [session.id for session in found.sessions]
        history.accept(benchmark, key, ids, why, user_name(), commit(selection.root))
        yield found


def reviewed(benchmark: str, wanted: Sequence[Session], *, include: bool = False) -> Accepted:
    """Return what becomes of sessions that are to be accepted: outliers are left out, and what is weak is said."""
    metric = wanted[-1].metric
    usable = [session for session in wanted if not why_unusable(session, metric)]
    values = [median(log_figures(session, metric, "median")) for session in usable]
    odd = outliers(values)
    remarks = [_outlier_words(usable[i], values, i, include=include) for i in odd]
    left_out = () if include else tuple(usable[i] for i in odd)
    kept = tuple(session for session in wanted if session not in left_out)
    if halves := two_modes(values):
        ends = [math.exp(median(values[i] for i in half)) for half in halves]
        remarks.append(
            Sentence("two_modes_accepted", count=len(halves[0]), ends=ends[0], count_2=len(halves[1]), ends_2=ends[1])
        )
    return Accepted(benchmark=benchmark, sessions=kept, left_out=left_out, remarks=(*remarks, *_weakness(kept)))


def outliers(values: Sequence[float]) -> list[int]:
    """Return the positions of sessions far from the others, by log time: at most one in four, and not of two modes."""
    if len(values) < FEWEST_SESSIONS or two_modes(values):
        return []
    middle, far = median(values), max(OUTLIER_LEAST, OUTLIER_SPREADS * qn(values))
    odd = [i for i, value in enumerate(values) if abs(value - middle) > far]
    return odd if len(odd) <= len(values) // 4 else []


def _outlier_words(session: Session, values: Sequence[float], place: int, *, include: bool) -> str:
    away = math.expm1(values[place] - median(values))
    what = Sentence("included_all_the_same") if include else Sentence("left_out_include")
    return Sentence(
        "session_outlier",
        id=session.id[:8],
        recorded_at=session.recorded_at[:19],
        exp=math.exp(values[place]),
        away=away,
        what=what,
    )


def _weakness(sessions: Sequence[Session]) -> list[str]:
    """Return what a baseline cannot tell apart, and how many more sessions would."""
    if len(sessions) < FEWEST_SESSIONS:
        return [Sentence("few_sessions", least=FEWEST_SESSIONS, count=len(sessions))]
    logs = [values for session in sessions if (values := log_figures(session, session.metric, "median"))]
    if len(logs) < FEWEST_SESSIONS or min(map(len, logs)) < FEWEST_PROCESSES:
        return []
    within = median(math.sqrt(variance(values)) for values in logs)
    weak = baseline_advice(qn([median(values) for values in logs]), within, len(logs[-1]), len(logs), Limits())
    return [weak] if weak else []


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
        return Sentence("nothing_new")
    return Sentence("none_counts", count=len(sessions))


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
