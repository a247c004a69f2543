"""Locks between processes, in files that say who holds them: which process, on which machine, since when.

The system lets go of a lock when its process ends, however that ends. Its file is deleted with it, so none is left; who
has waited for a file that is gone takes a new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from harness.errors import NotJudged

POLL_S = 0.05
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks says; two processes then may do the same work."""
_patience: list[float] = []
"""How long to wait for any lock, the innermost last; none for as long as it takes."""


class Held(NotJudged):
    """A lock is another's, and stayed that for as long as was waited."""

    failure = "timeout"


@contextlib.contextmanager
def patience(seconds: float | None) -> Iterator[None]:
    """Wait for every lock in here for so many seconds at most (``--lock-timeout``); None changes nothing."""
    given = [] if seconds is None else [seconds]
    _patience.extend(given)
    try:
        yield
    finally:
        del _patience[len(_patience) - len(given) :]


@contextlib.contextmanager
def locked(
    path: Path, what: str, *, most_s: float | None = None, waiting: Callable[[str], None] = lambda words: None
) -> Iterator[None]:
    """Hold the lock of a file while the block runs; ``what`` names what it guards in a sentence.

    ``waiting`` is told once who holds it. Raises Held after ``most_s`` seconds or those of :func:`patience`, at once
    where that is 0, and OSError where the file cannot be made.
    """
    most_s = _patience[-1] if _patience and most_s != 0 else most_s
    started, told = time.monotonic(), False
    while (descriptor := _take(path)) is None:
        holder = _holder(path)
        if most_s is not None and time.monotonic() - started >= most_s:
            raise Held(
                f"{what} is held by {holder}; waited {most_s:g} s (--lock-timeout); end that process, or wait longer"
            )
        if not told:
            waiting(f"waiting for {what}, held by {holder}")
            told = True
        time.sleep(POLL_S)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _take(path: Path) -> int | None:
    """Return the descriptor of a lock that is now ours; None where another has it. Raises OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                _sign(descriptor)
                return descriptor
        os.close(descriptor)  # its holder has deleted it: the lock is that of the next file


def _sign(descriptor: int) -> None:
    """Write who holds a lock into its file; on a full disk nobody can read it."""
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().astimezone().isoformat()}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _holder(path: Path) -> str:
    """Return who holds a lock: ``process 4711 on gpu-1 since 12:03:05 (for 40 s)``."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads(path.read_text(encoding="utf-8"))
        since = datetime.fromisoformat(owner["since"])
        held_s = (datetime.now().astimezone() - since).total_seconds()
        return f"process {int(owner['pid'])} on {owner['host']} since {since:%H:%M:%S} (for {held_s:.0f} s)"
    return "another process"
