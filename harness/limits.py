"""How long a step may take that runs somebody's graph or module in this process: ``--timeout``.

A timer raises in the main thread when a step's time is over; that ends Python and whatever lets signals in. What does
not, code in C, is ended with the process by :mod:`harness.last_resort`, a process beside this one.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import memory
from harness.errors import TookTooLong, visible

IN_CI_S = 1800.0
"""The limit in CI where none is given."""
AGAIN_S = 0.5
"""Code that catches everything swallows the first exception: it comes again."""
GRACE_S = 1.5
"""After a step's time, before the process is ended from outside."""


class _OutOfTime(BaseException):
    """Ends a step; no Exception, so that what catches those does not end it."""


@dataclass(kw_only=True)
class _Step:
    """What a thread is doing, and until when."""

    what: str
    seconds: float
    ends: float
    """By the monotonic clock."""
    over: bool = False
    """Whether its time has ended it."""

    def error(self) -> TookTooLong:
        return TookTooLong(f"{self.what} took longer than {self.seconds:g} s (--timeout); give more, or 0 for no limit")


class _Thread(threading.local):
    step: _Step | None = None
    subject: str = ""


_seconds: float | None = None
_main: _Step | None = None
"""The step of the main thread, where the timer raises."""
_found: tuple[Any, float | None, Callable[[Any], Any]] | None = None
"""The handler of the timer's signal, when it would have rung, and what is told of exceptions that nobody can catch, as
they were before a step of the main thread."""
_thread = _Thread()
_watcher: subprocess.Popen[bytes] | None = None
_stderr: int | None = None
_record: tuple[str, Mapping[str, Any]] | None = None


def default_timeout() -> float | None:
    """Return the limit where none is given: none, but in CI (``CI=true``) half an hour."""
    return IN_CI_S if in_ci() else None


def in_ci() -> bool:
    """Return whether this runs in CI, as CI systems say it."""
    return os.environ.get("CI", "").lower() in ("1", "true")


def timeout(text: str) -> float:
    """Return the seconds that an option gives; 0 for no limit. Raises ValueError."""
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds")
    return seconds


@contextlib.contextmanager
def allowed(seconds: float | None) -> Iterator[None]:
    """Let every step in here take this many seconds at most; None or 0 for no limit."""
    global _seconds
    before, _seconds = _seconds, seconds or None
    try:
        yield
    finally:
        _seconds = before


def allowed_s() -> float | None:
    """Return how long a step may take; None for no limit."""
    return _seconds


def remaining_s() -> float | None:
    """Return how long this thread's step may still take; None for no limit."""
    step = _thread.step
    return None if step is None else max(0.0, step.ends - time.monotonic())


def out_of_time() -> TookTooLong:
    """Return the error of this thread's step, where something that was waited for did not end within it."""
    step = _thread.step
    assert step is not None
    return step.error()


def about(subject: str) -> None:
    """Let the sentence of this thread's next steps name this subject."""
    _thread.subject = subject


@contextlib.contextmanager
def step(what: str, *, subject: str = "") -> Iterator[None]:
    """Raise TookTooLong when what happens in here takes longer than is allowed, NotJudged when memory runs out.

    ``what`` begins a sentence: ``tracing the module``. A step within a step has all the time for itself, and the outer
    one begins anew after it. The sentence names the ``subject``, or the last one that was named.
    """
    if subject:
        about(subject)
    name = f"{_thread.subject}: {what}" if _thread.subject else what
    with memory.guarded(name), _timed(name):
        yield


@contextlib.contextmanager
def _timed(name: str) -> Iterator[None]:
    if _seconds is None:
        yield
        return
    mine, outer = _Step(what=name, seconds=_seconds, ends=math.inf), _thread.step
    try:
        _begin(mine)
        try:
            yield
        finally:
            _begin(outer)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code that was ended may raise anything instead
        _begin(outer)
        if mine.over:
            raise mine.error() from error
        raise
    if mine.over:
        raise mine.error()


def keep_record(path: Path, document: Mapping[str, Any]) -> None:
    """Let this document be what is left at ``path``, with the reason as its error, when the process has to be ended."""
    global _record
    _record = (str(path.absolute()), document)
    _tell_watcher({"record": _record})


def speak_here() -> None:
    """Say on what standard error is now, should the process have to be ended: pytest takes it away later."""
    global _stderr
    if _stderr is None:
        _stderr = os.dup(2)


def _begin(step: _Step | None) -> None:
    """Make this the thread's step; its time begins now."""
    _thread.step = step
    if step is not None:
        step.ends = time.monotonic() + step.seconds
    if threading.current_thread() is threading.main_thread():
        _set_timer(step)
    _watch(step)


def _set_timer(step: _Step | None) -> None:
    """Let the timer ring at a step's end; without one it is as it was found: pytest-timeout has the same."""
    global _main, _found
    entered, _main = _main is None and step is not None, step
    if step is not None:
        handler = signal.signal(signal.SIGALRM, _alarm)
        left, _ = signal.setitimer(signal.ITIMER_REAL, step.seconds, AGAIN_S)
        if entered:
            _found = handler, time.monotonic() + left if left else None, sys.unraisablehook
            sys.unraisablehook = _unraisable
    elif _found is not None:
        (handler, rings, sys.unraisablehook), _found = _found, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0 if rings is None else max(0.01, rings - time.monotonic()))


def _alarm(*_: Any) -> None:
    if _main is not None and time.monotonic() >= _main.ends - 0.01:
        _main.over = True
        raise _OutOfTime


def _unraisable(given: Any) -> None:
    """Say nothing where the timer has rung in a destructor, which Python lets go on: it rings again."""
    if _found is not None and given.exc_type is not _OutOfTime:
        _found[2](given)


def _watch(step: _Step | None) -> None:
    thread = threading.get_ident()
    if step is None:
        _tell_watcher({"thread": thread})
        return
    if _watcher is None or _watcher.poll() is not None:
        _start_watcher()
    line = visible(f"parity: not judged: {step.error()}; it was in code that nothing interrupts, so the run ended")
    _tell_watcher({"thread": thread, "ends": step.ends + GRACE_S, "say": line})


def _start_watcher() -> None:
    """Start the process that ends this one; from then on SIGQUIT, whose number is 3, ends it with status 3.

    That handler is C's own, for a thread that never lets Python run again.
    """
    global _watcher
    _watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("last_resort.py"))],
        stdin=subprocess.PIPE, stderr=_stderr,
    )  # fmt: skip
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    library.signal(int(signal.SIGQUIT), ctypes.cast(library._exit, ctypes.c_void_p))
    if _record is not None:
        _tell_watcher({"record": _record})


def _tell_watcher(message: Any) -> None:
    if _watcher is not None and _watcher.stdin is not None:
        with contextlib.suppress(OSError, ValueError):
            _watcher.stdin.write(json.dumps(message).encode() + b"\n")
            _watcher.stdin.flush()
