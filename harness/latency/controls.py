"""What a suspicious engine can be measured in turns with: the accepted engine itself, else PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.history import History
from harness.latency.contestants import Contestant, Workload
from harness.latency.contestants import baselines as pytorch_baselines
from harness.latency.options import Options
from harness.latency.second_look import ACCEPTED, ROUNDS, enough_pairs
from harness.records import Session

Pairs = tuple[tuple[Session, Session], ...]
Beside = Mapping[tuple[str, str], Sequence[tuple[Session, Session]]]
"""Accepted sessions, each with that of PyTorch of the same run, by PyTorch's runner and precision."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A control that could be measured."""

    name: str
    """As ``Control.name``."""
    contestant: Contestant
    then: Pairs
    """As ``Control.then``."""
    rounds: Sequence[int]
    """Processes of each side after which a decision may fall."""


def candidates(
    contestant: Contestant, baseline: Sequence[Session], beside: Beside, workload: Workload, options: Options
) -> Iterator[Candidate]:
    """Yield the controls of a contestant, the best first; ``baseline`` are the accepted sessions of its series."""
    accepted = _accepted_engine(contestant, baseline)
    if accepted is not None and accepted.engine is not None:
        same = tuple((old, old) for old in baseline if old.engine_sha256 == accepted.engine.sha256)
        yield Candidate(name=ACCEPTED, contestant=accepted, then=same, rounds=ROUNDS)
    for other in pytorch_baselines(workload.subject, (contestant,), replace(options, baselines=None)):
        then = tuple(beside.get((other.runner, other.precision), ()))
        if enough_pairs(then):
            yield Candidate(name=other.name, contestant=other, then=then, rounds=ROUNDS[:1])


def accepted_beside(session: Session, baseline: Sequence[Session], history: History) -> Beside:
    """Return the accepted sessions of this machine with those of PyTorch that took turns with them."""
    by_group = {old.group: old for old in baseline if old.group and old.machine.key == session.machine.key}
    found: dict[tuple[str, str], list[tuple[Session, Session]]] = {}
    for series in history.benchmarks() if by_group else ():
        newest = history.sessions(series.benchmark, series.machine_key, limit=1)[-1:]
        if any(one.runner != "engine" and _work(one) == _work(session) for one in newest):
            for one in history.sessions(series.benchmark, series.machine_key):
                if one.group in by_group and not one.invalid:
                    found.setdefault((one.runner, one.precision), []).append((by_group[one.group], one))
    return found


def _work(session: Session) -> tuple[object, ...]:
    return session.subject, session.source, session.case, session.sizes


def _accepted_engine(contestant: Contestant, baseline: Sequence[Session]) -> Contestant | None:
    """Return the newest accepted engine that the cache still holds; None for this one, bit for bit."""
    mine = contestant.engine
    if mine is None or contestant.opened is None or any(old.engine_sha256 == mine.sha256 for old in baseline):
        return None
    cache = contestant.opened.run.engines
    for sha256 in dict.fromkeys(old.engine_sha256 for old in reversed(baseline)):
        engine = cache.with_sha256(sha256) if sha256 else None
        if engine is not None:
            return replace(contestant, engine=engine, kernels_sha256="", is_control=True)
    return None
