"""What tells :mod:`harness.last_resort`, the process beside a run, when to end the run, and what it then leaves."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import visible

_process: subprocess.Popen[bytes] | None = None
_stderr: int | None = None
_record: tuple[str, Mapping[str, Any]] | None = None


def keep_record(path: Path, document: Mapping[str, Any]) -> None:
    """Let this document be what is left at ``path``, with the reason as its error, when the process has to be ended."""
    global _record
    _record = (str(path.absolute()), document)
    _tell({"record": _record})


def speak_here() -> None:
    """Say on what standard error is now, should the process have to be ended: pytest takes it away later."""
    global _stderr
    if _stderr is None:
        _stderr = os.dup(2)


def watch(ends: float, why: str) -> None:
    """Let the process be ended at a time of the monotonic clock, unless this thread asks for something else before."""
    if _process is None or _process.poll() is not None:
        _start()
    _tell({"thread": threading.get_ident(), "ends": ends, "say": visible(f"parity: not judged: {why}")})


def forget() -> None:
    """Let this thread be without such a time."""
    _tell({"thread": threading.get_ident()})


def _start() -> None:
    """Start the process that ends this one; from then on SIGQUIT, whose number is 3, ends it with status 3.

    That handler is C's own, for a thread that never lets Python run again.
    """
    global _process
    _process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("last_resort.py"))],
        stdin=subprocess.PIPE, stderr=_stderr,
    )  # fmt: skip
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    library.signal(int(signal.SIGQUIT), ctypes.cast(library._exit, ctypes.c_void_p))
    if _record is not None:
        _tell({"record": _record})


def _tell(message: Any) -> None:
    if _process is not None and _process.stdin is not None:
        with contextlib.suppress(OSError, ValueError):
            _process.stdin.write(json.dumps(message).encode() + b"\n")
            _process.stdin.flush()
