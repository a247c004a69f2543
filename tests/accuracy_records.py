"""Records of accuracies of which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.history import History
from harness.records import AccuracyRun, OutputAccuracy

FLOOR = 1e-3
KEY = "gpu-a"


def accuracy(number: int, ratio: float | None = 1.1, *, verdict: Any = "pass", **changes: Any) -> AccuracyRun:
    """Return a run of one output on the day ``number`` of October 2026 (61 at most)."""
    month, day = divmod(number, 30)
    given: dict[str, Any] = {
        "id": f"a{number}", "recorded_at": f"2026-{10 + month:02}-{day + 1:02}T04:00:00.000000+00:00",
        "run": f"run-{number}", "subject": "clip", "case": "short", "backend": "rtx", "precision": "fp16",
        "source": "suites/test_clip.py", "machine_key": KEY, "device": "NVIDIA H200", "verdict": verdict,
        "model": "m0d31", "weights": "trained", "inputs": "real", "commit": f"{number:012x}", "host": "runner-1",
        "versions": {"TensorRT for RTX": "1.4", "driver": "580.1", "torch": "2.9.0"},
        "outputs": outputs(logits=ratio, verdict=verdict),
    }  # fmt: skip
    return AccuracyRun(**{**given, **changes})


def outputs(*, verdict: Any = "pass", **ratios: float | None) -> tuple[OutputAccuracy, ...]:
    """Return outputs by name with these ratios; None has no error."""
    return tuple(
        OutputAccuracy(
            name=name, verdict=verdict, error=None if ratio is None else ratio * FLOOR, floor=FLOOR, limit=3 * FLOOR
        )
        for name, ratio in ratios.items()
    )


def add_series(history: History, ratios: Sequence[float | None], **changes: Any) -> None:
    """Add one run for each ratio, a day apart."""
    prefix = changes.pop("prefix", "")
    records = (accuracy(number, ratio, **changes) for number, ratio in enumerate(ratios))
    history.add_all(one if not prefix else _renamed(one, prefix) for one in records)


def _renamed(record: AccuracyRun, prefix: str) -> AccuracyRun:
    from dataclasses import replace

    return replace(record, id=f"{prefix}{record.id}")
