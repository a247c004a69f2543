"""Results kept and shown. Nothing here runs anything; docs/json.md documents the JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.results import SCHEMA


def document(
    results: Iterable[Mapping[str, Any]],
    *,
    environment: Mapping[str, Any],
    command: str,
    complete: bool = True,
    error: str = "",
) -> dict[str, Any]:
    """Return the top level of the JSON; ``complete`` is False while a run goes on and after one that was cut short."""
    return {
        "schema": SCHEMA,
        "command": command,
        "complete": complete,
        "error": error,
        "environment": dict(environment),
        "results": list(results),
    }


def save_json(data: Any, path: Path) -> None:
    """Write JSON in one step: a reader sees the old file or the whole new one.

    Raises UsageError when the file cannot be written.
    """
    text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)  # mkstemp makes files that only their owner can read
        Path(temporary).replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise UsageError when ``path`` cannot become a file, before the long work whose results it should hold."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {path}: {error.strerror or error}; give another path or make room")
