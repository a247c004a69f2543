"""What tells that a file is the one that was read, without reading it again: as git's index does.

A change of a file that keeps its size and its time of modification still changes its time of change, which no program
sets. Two changes within the resolution of that clock look alike, so a file that was changed a moment ago has no stamp.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[int, ...]
SETTLED_S = 2.0
"""A file changed less than so long ago may change again unseen: file systems count in steps of up to 2 s."""


def stamp_of(path: Path) -> Stamp | None:
    """Return the device, inode, size and times of a file; None for one that is not there or was changed just now."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # a name with NUL is that of no file
        return None
    if time.time() - max(status.st_mtime, status.st_ctime) < SETTLED_S:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def stamps_of(paths: Iterable[Path]) -> dict[Path, Stamp] | None:
    """Return the stamps of several files; None where one has none."""
    found = {path: stamp_of(path) for path in paths}
    stamps = {path: stamp for path, stamp in found.items() if stamp is not None}
    return stamps if len(stamps) == len(found) else None
