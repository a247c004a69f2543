"""Sessions as a measurement would record them, without measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.history.history import History
from harness.machine.identity import Machine
from harness.records.latency import Conditions, ProcessRun, Session, Summary

KEY = "machine-a"


def summary(median: float, *, p99: float | None = None) -> Summary:
    return Summary(
        n=1000,
        median=median,
        low=median * 0.99,
        high=median * 1.01,
        mean=median,
        minimum=median * 0.9,
        cv=0.01,
        p99=p99,
    )


def run(median: float, *, invalid: Sequence[str] = (), p99: float | None = None) -> ProcessRun:
    return ProcessRun(
        started_at="2026-01-01T00:00:00+00:00",
        gpu_ms=summary(median, p99=p99),
        end_to_end_ms=summary(median * 1.2, p99=p99),
        enqueue_ms=None,
        conditions=Conditions(sm_mhz=1980.0),
        invalid=tuple(invalid),
    )


def session(
    number: int, *, median: float = 2.0, key: str = KEY, processes: int = 3, invalid: Sequence[str] = (), **fields: Any
) -> Session:
    """Return session ``s<number>``, recorded on that minute of one day."""
    known: dict[str, Any] = {
        "id": f"s{number}",
        "recorded_at": f"2026-01-01T{number // 60:02}:{number % 60:02}:00+00:00",
        "subject": "clip",
        "case": "one",
        "backend": "rtx",
        "precision": "fp16",
        "runs": tuple(run(median + 0.01 * n, invalid=invalid) for n in range(processes)),
        "machine": Machine(key=key, class_key="class", facts={"gpu": "NVIDIA H200", "driver": "580.1"}),
        "device": "NVIDIA H200",
        "commit": "0123abcd",
    }
    return Session(**{**known, **fields})


BENCHMARK = session(0).benchmark


def ids(history: History) -> list[str]:
    """Return the ids of the sessions of the one benchmark, oldest first."""
    return [one.id for one in history.sessions(BENCHMARK, KEY)]
