"""Sessions of one benchmark as a measurement would record them, without measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import latencies
from latencies import summary

from harness.history.history import History
from harness.machine.identity import Machine
from harness.records.latency import ProcessRun, Session

KEY = "machine-a"


def run(median: float, *, invalid: Sequence[str] = (), p99: float | None = None) -> ProcessRun:
    """Return a process on a GPU without launch times."""
    times = {"gpu_ms": summary(median, p99=p99), "end_to_end_ms": summary(median * 1.2, p99=p99), "enqueue_ms": None}
    return latencies.process(median, gpu=True, **times, invalid=tuple(invalid))


def session(
    number: int, *, median: float = 2.0, key: str = KEY, processes: int = 3, invalid: Sequence[str] = (), **fields: Any
) -> Session:
    """Return session ``s<number>``, recorded on that minute of one day."""
    known: dict[str, Any] = {
        "id": f"s{number}", "recorded_at": f"2026-01-01T{number // 60:02}:{number % 60:02}:00+00:00", "case": "one",
        "runs": tuple(run(median + 0.01 * n, invalid=invalid) for n in range(processes)), "commit": "0123abcd",
        "machine": Machine(key=key, class_key="class", facts={"gpu": "NVIDIA H200", "driver": "580.1"}),
    }  # fmt: skip
    return latencies.session(gpu=True, **{**known, **fields})


BENCHMARK = session(0).benchmark


def ids(history: History) -> list[str]:
    """Return the ids of the sessions of the one benchmark, oldest first."""
    return [one.id for one in history.sessions(BENCHMARK, KEY)]
