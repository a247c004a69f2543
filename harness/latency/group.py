"""The steps of a measurement: contestants of one device on one workload are timed in turns, compared and recorded."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from harness import limits
from harness.backends import BACKENDS
from harness.errors import ParityError
from harness.history import History
from harness.latency.baseline import accepted_sessions, compare_with_baseline, without_baseline
from harness.latency.comparable import FEWEST_PROCESSES
from harness.latency.contestants import Contestant, Workload, baselines
from harness.latency.controls import Candidate, accepted_beside, candidates
from harness.latency.kernels import time_kernels
from harness.latency.options import MOST_PROCESSES, PROCESSES, Options
from harness.latency.second_look import Control, has_control_moved, is_suspicious, judged_again
from harness.latency.turns import replays_graph, take_turns
from harness.latency.verdict import compare_in_turns, is_accepted_engine, speed_up
from harness.machine import machine
from harness.records import Attempt, Comparison, Measured, NotMeasured, ProcessRun, Session
from harness.sentences import Sentence, joined


@dataclass(frozen=True, kw_only=True)
class Group:
    """Contestants of one device on one workload, and the results of the steps so far."""

    workload: Workload
    contestants: tuple[Contestant, ...]
    options: Options
    history: History | None
    runs: Mapping[Contestant, tuple[ProcessRun, ...]] = field(default_factory=dict)
    """The measurements of each, one per process."""
    problems: Mapping[Contestant, NotMeasured] = field(default_factory=dict)
    """The contestants without figures, and why."""
    failed: Mapping[Contestant, tuple[Attempt, ...]] = field(default_factory=dict)
    """The attempts at each that failed before the last one."""
    interrupted: bool = False
    """Whether Ctrl-C ended a step: the sessions so far are then compared and not recorded."""
    measured: Mapping[Contestant, Measured] = field(default_factory=dict)
    """The session and verdict of each that has figures."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """``Session.group`` of its sessions."""


def add_baselines(group: Group) -> Group:
    """Add the PyTorch baselines."""
    added = baselines(group.workload.subject, group.contestants, group.options)
    return replace(group, contestants=(*group.contestants, *added))


def time_in_turns(group: Group) -> Group:
    """Time every contestant in ``options.processes`` fresh processes, and again what may be tried again."""
    group, settings = _timed(group, group.contestants, group.options.processes), group.workload.run.settings
    for _ in range(settings.retries):
        again = [c for c, problem in group.problems.items() if problem.failure in settings.retry_on and c.opened]
        if not again or group.interrupted:
            break
        failed = {c: (*group.failed.get(c, ()), _attempt(group.problems[c])) for c in again}
        kept = {c: problem for c, problem in group.problems.items() if c not in again}
        runs = {c: runs for c, runs in group.runs.items() if c not in again}
        group = replace(group, problems=kept, runs=runs, failed={**group.failed, **failed})
        group = _timed(group, again, group.options.processes)
    return group


def compare(group: Group) -> Group:
    """Make a session of every contestant that has figures, and compare it with its accepted baseline."""
    measured = {}
    for contestant, runs in group.runs.items():
        if contestant in group.problems or len(runs) < FEWEST_PROCESSES:
            continue
        session = _session(group, contestant)
        compared = (
            without_baseline(Sentence("only_compared_with")) if contestant.is_baseline
            else compare_with_baseline(session, group.history)
        )  # fmt: skip
        judged = not contestant.is_baseline and compared.verdict == "no_baseline"
        accept = f"parity accept {group.workload.subject.as_typed} --why ..." if judged else ""
        measured[contestant] = Measured(
            session=session, comparison=compared, baseline=contestant.is_baseline, next_step=accept,
            failed_attempts=(*contestant.failed, *group.failed.get(contestant, ())),
        )  # fmt: skip
    return replace(group, measured=measured)


def time_inconclusive_again(group: Group) -> Group:
    """Time inconclusive contestants that have no control in further processes, up to MOST_PROCESSES each."""
    while not group.interrupted and (short := {c: left for c in group.measured if (left := _left(group, c)) > 0}):
        group = compare(_timed(group, short, min(PROCESSES, *short.values())))
    return group


def look_again(group: Group) -> Group:
    """Measure every suspicious engine again, in turns with a control: what that finds is the verdict."""
    for contestant in list(group.measured):
        for candidate in _controls(group, contestant):
            if not group.interrupted and group.measured[contestant].comparison.second_look is None:
                group = _looked_again(group, contestant, candidate)
    return group


def add_speed_ups(group: Group) -> Group:
    """Add to every session its speed-up over each PyTorch session of the group."""
    others = {contestant.name: one.session for contestant, one in group.measured.items()}
    return replace(group, measured={c: _with_speed_ups(one, others) for c, one in group.measured.items()})


def record(group: Group) -> Group:
    """Add the sessions to the history, unless ``record`` is off or the measurement was interrupted."""
    if group.history is not None and group.options.record and not group.interrupted:
        for one in group.measured.values():
            group.history.add(one.session)
    return group


def add_kernels(group: Group) -> Group:
    """Add the time of every kernel, if ``options.kernels`` is set."""
    if not group.options.kernels or group.interrupted:
        return group
    measured = dict(group.measured)
    try:
        for contestant, one in group.measured.items():
            measured[contestant] = replace(one, kernels=time_kernels(contestant, group.workload))
    except KeyboardInterrupt:
        return replace(group, measured=measured, interrupted=True)
    return replace(group, measured=measured)


STEPS: tuple[Callable[[Group], Group], ...] = (
    add_baselines,
    time_in_turns,
    compare,
    time_inconclusive_again,
    look_again,
    add_speed_ups,
    record,
    add_kernels,
)
"""Each step gets the group that the one before returned."""


def measure(group: Group) -> Iterator[Measured | NotMeasured]:
    """Yield every contestant, timed and compared; after Ctrl-C, or when its time is up, raise that at the end."""
    with limits.search(group.workload.subject.name, "timing it"):
        for step in STEPS:
            try:
                group = step(group)
            except limits.TimeIsUp:
                group = replace(group, interrupted=True)
    yield from group.problems.values()
    yield from group.measured.values()
    if group.interrupted:
        raise limits.time_was_up() or KeyboardInterrupt


def _attempt(problem: NotMeasured) -> Attempt:
    return Attempt(verdict="fail" if problem.failed else "not_judged", failure=problem.failure, reason=problem.reason)


def _timed(group: Group, contestants: Iterable[Contestant], rounds: int) -> Group:
    """Return the group with ``rounds`` further processes of each of these contestants."""
    workload = group.workload
    runs, problems, interrupted = dict(group.runs), dict(group.problems), False
    try:
        turns = take_turns(workload, list(contestants), group.options, rounds=rounds, timed_before=group.runs)
        with contextlib.closing(turns):
            for contestant, found in turns:
                if isinstance(found, ParityError):
                    problems[contestant] = workload.not_measured(
                        found, backend=contestant.backend, precision=contestant.precision, runner=contestant.runner,
                        baseline=contestant.is_baseline,
                        failed_attempts=(*contestant.failed, *group.failed.get(contestant, ())),
                    )  # fmt: skip
                    continue
                runs[contestant] = (*runs.get(contestant, ()), found)
                summary = found.gpu_ms or found.end_to_end_ms
                workload.say(f"{contestant.name}: process {len(runs[contestant])}, {summary.median:.4g} ms")
    except KeyboardInterrupt:
        interrupted = True
    return replace(group, runs=runs, problems=problems, interrupted=interrupted)


def _controls(group: Group, contestant: Contestant) -> list[Candidate]:
    """Return the controls of a contestant that needs a second look, the best first."""
    one, history = group.measured[contestant], group.history
    if contestant.is_baseline or history is None or one.comparison.verdict == "no_baseline" or one.session.invalid:
        return []
    baseline = accepted_sessions(one.session, history)
    if is_accepted_engine(one.session, baseline):
        return []
    beside = accepted_beside(one.session, baseline, history)
    others = [other.session for other in group.measured.values() if other.session.runner != "engine"]
    moved = any(
        has_control_moved(now, [old for _, old in beside.get((now.runner, now.precision), ())])
        for now in others
        if not now.invalid
    )
    if not moved and not is_suspicious(one.comparison):
        return []
    return list(candidates(contestant, baseline, beside, group.workload, group.options))


def _looked_again(group: Group, contestant: Contestant, candidate: Candidate) -> Group:
    """Return the group with the verdict of a second look at a contestant, or a note why there is none."""
    one, control = group.measured[contestant], candidate.contestant
    group.workload.say(f"{contestant.name} looks {one.comparison.verdict}: again, in turns with the {candidate.name}")
    options = replace(group.options, throughput=False)
    look = Group(workload=group.workload, contestants=(control, contestant), options=options, history=None)
    found: Comparison | None = None
    for rounds in candidate.rounds:
        look = _timed(look, look.contestants, rounds - len(look.runs.get(contestant, ())))
        if look.interrupted or look.problems:
            break
        side = Control(name=candidate.name, now=_session(look, control), then=candidate.then)
        last = rounds == candidate.rounds[-1]
        found = judged_again(one.comparison, _session(look, contestant), side, last=last)
        if found is not None:
            break
    if found is None:
        why = joined(problem.reason for problem in look.problems.values()) or Sentence("interrupted")
        note = Sentence("no_second_look", name=candidate.name, why=why)
        found = replace(one.comparison, notes=(*one.comparison.notes, note))
    problems = {**group.problems, **{c: problem for c, problem in look.problems.items() if c is contestant}}
    measured = {**group.measured, contestant: replace(one, comparison=found)}
    return replace(group, measured=measured, problems=problems, interrupted=look.interrupted)


def _left(group: Group, contestant: Contestant) -> int:
    """Return how many more processes an inconclusive contestant may have."""
    compared = group.measured[contestant].comparison
    if compared.verdict != "inconclusive" or compared.ratio is None:  # more processes do not give a ratio
        return 0
    if _controls(group, contestant):  # a second look tells more
        return 0
    return MOST_PROCESSES - len(group.runs[contestant])


def _session(group: Group, contestant: Contestant) -> Session:
    """Return the measurements of one contestant as a record."""
    workload, options, runs, engine = group.workload, group.options, group.runs[contestant], contestant.engine
    subject = workload.subject
    time_is_up = limits.time_was_up()
    ended = f"{time_is_up}," if time_is_up else "interrupted"
    short = Sentence("ended_after", ended=ended, count=len(runs), processes=options.processes)
    # The locked clock is part of the machine's key, so it counts only if every process held it.
    locked = runs[0].locked_mhz if len({run.locked_mhz for run in runs}) == 1 else None
    return Session(
        id=uuid.uuid4().hex,
        recorded_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        subject=subject.name,
        case=workload.case,
        backend=contestant.backend,
        precision=contestant.precision,
        source=subject.source,
        plan_source=contestant.plan_source,
        runner=contestant.runner,
        sizes=dict(workload.sizes),
        graph=replays_graph(contestant, options),
        l2=options.l2,
        runs=runs,
        machine=machine(contestant.backend, contestant.version, contestant.device == "cuda", locked_mhz=locked),
        engine_sha256=engine.sha256 if engine else "",
        engine_bytes=engine.bytes if engine else None,
        kernels_sha256=contestant.kernels_sha256,
        weights=subject.weights,
        inputs=subject.inputs,
        device=contestant.device_name,
        commit=workload.run.commit,
        versions={"torch": BACKENDS["torch"].version(), contestant.backend: contestant.version},
        notes=(short,) if len(runs) < options.processes else (),
        group=group.id,
    )


def _with_speed_ups(measured: Measured, sessions: Mapping[str, Session]) -> Measured:
    session = measured.session
    speed_ups: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, other in sessions.items():
        if other.runner == "engine" or other.id == session.id or other.invalid or session.invalid:
            continue
        other = replace(other, machine=session.machine)  # the backend, part of the key, may differ here
        found = speed_up(compare_in_turns(session, other))
        if found is not None:
            speed_ups[name], intervals[name] = found[0], (found[1], found[2])
    return replace(measured, speed_up=speed_ups, speed_up_intervals=intervals)
