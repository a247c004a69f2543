"""What a suspicious engine can be measured in turns with: the accepted engine itself, else PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.history import History
from harness.latency.contestants import Contestant
from harness.latency.second_look import ACCEPTED, ROUNDS, enough_pairs
from harness.records import Measured, Session

Pairs = tuple[tuple[Session, Session], ...]


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
    contestant: Contestant,
    baseline: Sequence[Session],
    measured: Mapping[Contestant, Measured],
    history: History,
) -> Iterator[Candidate]:
    """Yield the controls of a contestant, the best first.

    ``baseline`` are the accepted sessions of its series, ``measured`` the contestants that took turns with it.
    """
    accepted = _accepted_engine(contestant, baseline)
    if accepted is not None and accepted.engine is not None:
        same = tuple((old, old) for old in baseline if old.engine_sha256 == accepted.engine.sha256)
        yield Candidate(name=ACCEPTED, contestant=accepted, then=same, rounds=ROUNDS)
    key = measured[contestant].session.machine.key
    by_group = {old.group: old for old in baseline if old.group and old.machine.key == key}
    for other, one in measured.items():
        if other.runner == "engine" or other is contestant or one.session.invalid:
            continue
        recorded = history.sessions(one.session.benchmark, one.session.machine.key)
        then = tuple((by_group[old.group], old) for old in recorded if old.group in by_group)
        if enough_pairs(then):
            yield Candidate(name=other.name, contestant=other, then=then, rounds=ROUNDS[:1])


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
