"""Results kept and shown. Nothing here runs anything; docs/json.md documents the JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.files import write_text
from harness.records.data import SCHEMA
from harness.records.runs import NOT_ENDED, run_id
from harness.sentences import writable


def document(
    results: Iterable[Mapping[str, Any]],
    *,
    environment: Mapping[str, Any],
    command: str,
    complete: bool = True,
    error: str = "",
) -> dict[str, Any]:
    """Return the top level of the JSON; ``complete`` is False while a run goes on and after one that was cut short.

    Without an ``error`` such a run is said not to have ended: that is true for as long as nothing is written over it.
    """
    return {
        "schema": SCHEMA,
        "recorded_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "command": command,
        "complete": complete,
        "error": error if complete or error else NOT_ENDED,
        "run": run_id(),
        "environment": dict(environment),
        "results": list(results),
    }


def save_json(data: Any, path: Path) -> None:
    """Write JSON in one step: a reader sees the old file or the whole new one.

    Raises UsageError when the file cannot be written.
    """
    write_text(json.dumps(writable(data), indent=1, allow_nan=False) + "\n", path)
