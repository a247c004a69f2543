"""Text files written in one step: the only place where reports, records and plans become files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from harness.errors import UsageError, is_disk_full


class CannotWrite(UsageError):
    """A file cannot be written."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"cannot write {path}: {error.strerror or error}; give another path or make room")
        self.disk_full = is_disk_full(error)
        """Whether there is no room for it."""


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 in one step: a reader sees the old file or the whole new one, whatever happens.

    A file that exists keeps its permissions. Raises CannotWrite, a UsageError.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes files that only their owner can read
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        raise CannotWrite(path, error) from error
    finally:
        if temporary is not None:
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
        raise CannotWrite(path, error) from error
