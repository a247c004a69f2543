"""Sessions as they may come out of a machine, with and without chance, for tests of what is concluded from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.latency_verdict import session, verdict_of_one
from harness.records.latency import Session

TRIALS = 400


def quiet(level: float = 1.0, identity: str = "new", *, k: int = 5, clock: float | None = None, **fields) -> Session:
    """Return a session whose processes scatter by about 0.2 % about a level, without chance."""
    medians = level * (1 + 0.003 * np.linspace(-1, 1, k))
    return session(medians, identity, clocks_mhz=None if clock is None else np.full(k, clock), **fields)


def base(n: int = 5, *, level: float = 1.0, clock: float | None = None, **fields) -> list[Session]:
    """Return baseline sessions that scatter by about 0.2 % about a level."""
    return [quiet(level * (1 + 0.002 * (-1) ** i), f"b{i}", clock=clock, **fields) for i in range(n)]


def with_runs(one: Session, number: int, **fields) -> Session:
    """Return the session with other fields in one of its processes."""
    runs = list(one.runs)
    runs[number] = replace(runs[number], **fields)
    return replace(one, runs=tuple(runs))


def rate(verdict: str, *, trials: int = TRIALS, **options) -> float:
    """Return the share of seeded trials that end in this verdict."""
    rng = np.random.default_rng(11)
    return sum(verdict_of_one(rng, **options).verdict == verdict for _ in range(trials)) / trials
