"""Time a subject's engines and PyTorch on it: fresh processes in turns, one session per contestant, case and size.

The process is the unit of statistics, so every contestant is measured in several of them, interleaved A B B A: what
drifts while they run drifts for all of them. docs/latency.md says what the figures mean.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from harness.errors import ParityError, UsageError
from harness.latency import verdict
from harness.latency.contestants import PROCESSES, Entry, Group, Options, baselines, not_measured, open_entry
from harness.latency.sessions import graph_modes
from harness.latency.sizes import Sizes, check_sizes
from harness.records import Comparison, Measured, NotMeasured, Session, utc
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.verify import OpenTarget, Run

NOT_A_CONTESTANT = "measured to compare engines with; -b torch would judge it"
"""The rule of a session that nobody asked a verdict of."""


class Named(Protocol):
    """A series: a benchmark on a machine."""

    @property
    def benchmark(self) -> str:
        """As ``Session.benchmark``."""

    @property
    def machine_key(self) -> str:
        """As ``Machine.key``."""


class Series(Protocol):
    """What is asked of a history."""

    @property
    def readable(self) -> bool:
        """Whether all its records can be read now: not those of a database that is down."""

    def add(self, record: Session, /) -> None:
        """Append a record."""

    def sessions(self, benchmark: str, machine_key: str, *, limit: int | None = None) -> list[Session]:
        """Return the sessions of one series, oldest first."""

    def baseline(self, benchmark: str, machine_key: str) -> list[Session]:
        """Return the accepted sessions of one series; none where nobody accepted any."""

    def benchmarks(self) -> Sequence[Named]:
        """Return every series that there is."""


def bench(
    subject: Subject,
    *,
    targets: Sequence[Target],
    cases: Sequence[str],
    settings: Settings,
    sizes: Sequence[Sizes] = ({},),
    options: Options | None = None,
    history: Series | None = None,
) -> Iterator[Measured | NotMeasured]:
    """Yield every engine and baseline, timed and judged, as soon as its case and size are through.

    ``sizes`` gives the dynamic dimensions by symbol; an empty one leaves a case as it is. An interruption yields what
    was measured and then raises KeyboardInterrupt. Raises UsageError for sizes that the subject does not hold, and for
    an L2 cache that is to be flushed where only CPUs compute.
    """
    options = options or Options()
    for size in sizes:
        check_sizes(subject, size)
    run = Run(subject, settings)
    with contextlib.ExitStack() as stack:
        entries = []
        for target in targets:
            entry = _entry(stack.enter_context(run.target(target)))
            if isinstance(entry, Entry):
                entries.append(entry)
                continue
            for case, size in itertools.product(cases, sizes):
                yield not_measured(subject, case, size, target.backend, target.precision_name, entry)
        if options.l2 == "flush" and entries and all(entry.device == "cpu" for entry in entries):
            raise UsageError("only a GPU's L2 cache can be flushed; leave out --l2 flush on the CPU")
        for case, size in itertools.product(cases, sizes):
            for device in dict.fromkeys(entry.device for entry in entries):
                here = [entry for entry in entries if entry.device == device]
                yield from measure(run, here, case, size, options, history)


def bench_opened(opened: OpenTarget, case: str, options: Options, history: Series | None) -> Measured | NotMeasured:
    """Return one target that is open already, timed and judged at one case as it is."""
    target, subject = opened.target, opened.run.subject
    entry = _entry(opened)
    if not isinstance(entry, Entry):
        return not_measured(subject, case, {}, target.backend, target.precision_name, entry)
    (found,) = measure(opened.run, [entry], case, {}, replace(options, baselines=()), history)
    return found


def _entry(opened: OpenTarget) -> Entry | ParityError:
    """Return the contestant, or why there is none. Raises UsageError, which is nothing about this target alone."""
    try:
        return open_entry(opened)
    except UsageError:
        raise
    except ParityError as error:
        return error


def measure(
    run: Run, entries: Sequence[Entry], case: str, sizes: Sizes, options: Options, history: Series | None
) -> Iterator[Measured | NotMeasured]:
    """Yield contestants of one device at one case and size, measured in turns with the PyTorch baselines."""
    group = Group(run, [*entries, *baselines(run.subject, entries, options)], case, sizes, options)
    interrupted = False
    try:
        group.take_turns(options.processes)
        while short := [entry for entry in group.extendable() if _is_open(group.session(entry), entry, history)]:
            group.take_turns(min(PROCESSES, *map(group.left, short)), only=short)
    except KeyboardInterrupt:
        interrupted = True
    yield from group.problems.values()
    sessions = {entry: group.session(entry) for entry in group.measured()}
    by_name = {entry.name: session for entry, session in sessions.items()}
    for entry, session in sessions.items():
        comparison = judge(session, entry, history)
        if history is not None and options.record and not interrupted:
            history.add(session)
        kernels = group.kernels(entry) if options.kernels and not interrupted else ()
        yield _with_speed_up(Measured(session=session, comparison=comparison, kernels=kernels), by_name)
    if interrupted:
        raise KeyboardInterrupt


def repeat(
    subject: Subject,
    target: Target,
    case: str,
    settings: Settings,
    *,
    sizes: Sizes,
    sessions: int,
    options: Options,
) -> Iterator[Measured | NotMeasured]:
    """Yield sessions of one engine, one after the other, none of them judged or recorded: the machine is measured."""
    check_sizes(subject, sizes)
    run = Run(subject, settings)
    with run.target(target) as opened:
        entry = _entry(opened)
        if not isinstance(entry, Entry):
            yield not_measured(subject, case, sizes, target.backend, target.precision_name, entry)
            return
        for _ in range(sessions):
            yield from measure(run, [entry], case, sizes, options, None)


def judge(session: Session, entry: Entry, history: Series | None) -> Comparison:
    """Hold a session against what was accepted; a baseline of PyTorch is there to compare with."""
    if entry.opened is None:
        return _no_baseline(NOT_A_CONTESTANT)
    if history is None:
        return verdict.compare_sessions(session, ())
    key = session.machine.key
    baseline = history.baseline(session.benchmark, key)
    if not baseline and not history.readable and not session.invalid:
        return _no_baseline("the history cannot be read now, so that what was accepted is not known")
    if not baseline:  # what another machine accepted decides nothing, and the verdict says so
        others = [one.machine_key for one in history.benchmarks() if one.benchmark == session.benchmark]
        baseline = [old for other in others for old in history.baseline(session.benchmark, other)]
    previous, note = _before(session, history.sessions(session.benchmark, key))
    found = verdict.compare_sessions(session, baseline, previous=previous)
    return replace(found, notes=(*found.notes, note)) if note else found


def _before(session: Session, recorded: Sequence[Session]) -> tuple[Session | None, str]:
    """Return the last session before this one that was measured in the same way, and what is odd about the others.

    One of a clock that ran ahead would be the last for ever, and no regression or every one would be repeated.
    """
    others = [old for old in recorded if old.id != session.id and not old.invalid and _how(old) == _how(session)]
    earlier = [old for old in others if utc(old.recorded_at) <= utc(session.recorded_at)]
    ahead = len(others) - len(earlier)
    note = f"sessions dated after this one: {ahead}; a clock jumped, and none of them counts as the one before"
    return (earlier[-1] if earlier else None), note if ahead else ""


def _how(session: Session) -> tuple[str, set[bool]]:
    """Return what is timed, and whether CUDA graphs were really replayed: ``Session.graph`` is what was asked for."""
    return session.metric, graph_modes(session)


def _no_baseline(rule: str) -> Comparison:
    return Comparison(verdict="no_baseline", ratio=None, low=None, high=None, rule=rule)


def _is_open(session: Session, entry: Entry, history: Series | None) -> bool:
    """Return whether more processes could tell: a session that can be compared with nothing has no ratio."""
    found = judge(session, entry, history)
    return found.verdict == "inconclusive" and found.ratio is not None


def _with_speed_up(measured: Measured, sessions: Mapping[str, Session]) -> Measured:
    """Add how many times faster it is than each PyTorch baseline that was measured in turns with it."""
    session = measured.session
    speed_up: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, other in sessions.items():
        if other.runner == "engine" or other.id == session.id or other.invalid or session.invalid:
            continue
        other = replace(other, machine=session.machine)  # whose key holds the backend too, and here that may differ
        found = verdict.speed_up(verdict.compare_in_turns(session, other))
        if found is not None:
            speed_up[name], intervals[name] = found[0], (found[1], found[2])
    return replace(measured, speed_up=speed_up, speed_up_intervals=intervals)


def adjusted(found: Sequence[Measured | NotMeasured]) -> list[Measured | NotMeasured]:
    """Return one run's verdicts corrected for their number (Holm): twenty benchmarks have twenty chances to alarm."""
    comparisons = iter(verdict.holm([item.comparison for item in found if isinstance(item, Measured)]))
    return [replace(item, comparison=next(comparisons)) if isinstance(item, Measured) else item for item in found]


def exit_status(found: Sequence[Measured | NotMeasured], require: Iterable[str] = ()) -> int:
    """Return 1 for a repeated regression or an engine that failed, 3 where figures are missing or worthless, else 0.

    Figures of PyTorch that nobody asked for are none: where its engines could not be timed, nothing was.
    """
    measured = [item for item in found if isinstance(item, Measured)]
    if any(m.comparison.verdict == "regressed" and m.comparison.repeated for m in measured):
        return 1
    if any(isinstance(item, NotMeasured) and item.failed for item in found):
        return 1
    contestants = [m for m in measured if m.comparison.rule != NOT_A_CONTESTANT]
    if any(m.session.invalid for m in measured) or lacking(found, require):
        return 3
    return 0 if contestants else 3


def lacking(found: Sequence[Measured | NotMeasured], require: Iterable[str]) -> list[str]:
    """Return the required backends that were not timed, or not everywhere."""
    sound = {item.session.backend for item in found if isinstance(item, Measured) and not item.session.invalid}
    missing = {item.backend for item in found if isinstance(item, NotMeasured) and not item.baseline}
    return [name for name in dict.fromkeys(require) if name not in sound or name in missing]
