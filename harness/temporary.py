"""Temporary files and folders that say whether their owner still runs: what a killed run left behind, the next removes.

Each is locked by its owner. The system lets go of the lock when a process ends, however it ends, so one that can be
locked belongs to nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

OTHER_S = 24 * 3600.0
"""One of another machine, or from before this one started, tells nothing by its lock: it is removed at this age."""
_NAME = re.compile(r"\.?parity-([0-9a-f]{8})-[0-9a-f]{8}\.tmp")
_open: dict[Path, int] = {}
"""What this process has, with the descriptor that holds the lock."""


class Temporary:
    """A file or a folder that belongs to this process until it is closed."""

    def __init__(self, folder: Path, *, is_folder: bool = False) -> None:
        """Make it in ``folder``, whose leftovers are removed first. Raises OSError."""
        folder = folder.absolute()
        remove_leftovers(folder)
        self.path, self.descriptor = _make(folder, is_folder)
        _open[self.path] = self.descriptor

    def close(self) -> None:
        """Let it go, and delete it unless it was moved away."""
        if _open.pop(self.path, None) is not None:
            _delete(self.path)
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder in ``parent``, by default the system's temporary folder, and delete it when the block ends."""
    folder = Temporary(Path(tempfile.gettempdir()) if parent is None else parent, is_folder=True)
    try:
        yield folder.path
    finally:
        folder.close()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let one process at a time be in this block, where the file system can; the lock leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def delete_all() -> None:
    """Delete all that this process has, which ends at once."""
    for path in list(_open):
        _delete(path)


@functools.cache
def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes of this user left in a folder, an absolute path; once per process."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if found := _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_unless_held(Path(entry.path), entry.stat(follow_symlinks=False), found[1] == _boot())


def _remove_unless_held(path: Path, stat: os.stat_result, is_local: bool) -> None:
    """Delete one that nobody holds. Raises OSError for one that somebody does."""
    if stat.st_uid != os.getuid() or not (is_local or time.time() - stat.st_mtime > OTHER_S):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _delete(path)
    finally:
        os.close(descriptor)


def _make(folder: Path, is_folder: bool) -> tuple[Path, int]:
    """Return a new and locked file or folder; one that another process took for a leftover is made again."""
    while True:
        path = folder / f"{'' if is_folder else '.'}parity-{_boot()}-{uuid.uuid4().hex[:8]}.tmp"
        if is_folder:
            path.mkdir(0o700)
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # made, and taken for a leftover by another process before it was locked
                continue
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        except OSError:  # a file system without locks: nobody can take it for a leftover either
            pass
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@functools.cache
def _boot() -> str:
    """Return what tells the run of this machine's system from any other: where a lock means something."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    return f"{uuid.getnode():012x}"[-8:]


os.register_at_fork(after_in_child=_open.clear)  # what a parent has is not its child's to delete
