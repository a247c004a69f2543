"""How much memory there is, and what happens to a step that wants more: a sentence, and never the system's own choice.

While nothing here uses a GPU, what a step takes is limited to most of what is free when it begins (RLIMIT_DATA): the
allocation that is too large then fails, where the kernel would end some process later.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from harness.errors import NoMemory
from harness.sentences import Sentence

VARIABLE = "PARITY_MEMORY"
"""The most that a step may take, in GiB; processes that are started have it too."""
SPARE = 0.9
"""The share of the free memory that one step may take."""
_SIGNS = re.compile(
    r"can't allocate memory|not enough memory|annot allocate memory|bad_alloc|bad allocation|Unable to allocate"
    r"|Failed to allocate memory|Memory allocation still failed"
)
"""How PyTorch, C++, the system, NumPy and ONNX Runtime say that there is no memory."""
_WANTED = re.compile(r"tried to allocate (\d+) bytes|requested buffer of size (\d+)")
_OUTERMOST = threading.Lock()
"""Held by the outermost step of all threads, which limits the process."""
_CHANGING = threading.Lock()
_limits: dict[object, int] = {}
_found: list[int] = []
"""The limits of the process before any of these."""


def available_bytes() -> int:
    """Return how much memory this process may still take: what the machine has free, or less where a limit is set.

    That is the control group's, or ``PARITY_MEMORY`` in GiB. Where nothing tells, it is 2**62.
    """
    free = [2**62]
    with contextlib.suppress(ValueError):
        free.append(int(float(os.environ.get(VARIABLE, "nan")) * 2**30))
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        most, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        free.append(most - used)
    return max(0, min(free))


@contextlib.contextmanager
def at_most(gib: float | None) -> Iterator[None]:
    """Let every step in here, and in processes started in here, take so many GiB at most; None changes nothing."""
    before = os.environ.get(VARIABLE)
    if gib is not None:
        os.environ[VARIABLE] = str(gib)
    try:
        yield
    finally:
        if before is not None:
            os.environ[VARIABLE] = before
        elif gib is not None:
            del os.environ[VARIABLE]


def size_words(count: int) -> str:
    """Return a number of bytes to be read: ``4,000,000,000,000 bytes``."""
    return f"{count:,} bytes"


def out_of_memory(who: str, text: str) -> NoMemory:
    """Return the error of somebody who ran out of memory, and what was wanted where an error's ``text`` says it."""
    found = _WANTED.search(text)
    wanted = Sentence("wanted_more", found=size_words(int(found[1] or found[2]))) if found else ""
    return NoMemory(
        Sentence("ran_out_of_memory", who=who, wanted=wanted, available_bytes=size_words(available_bytes()))
    )


def is_out_of_memory(text: str) -> bool:
    """Return whether the text of an error says that there was no memory."""
    return _SIGNS.search(text) is not None


@contextlib.contextmanager
def guarded(who: str) -> Iterator[None]:
    """Limit the memory of what happens in here to what is free, and raise NoMemory where it wants more.

    ``who`` begins the sentence. GPU memory is another matter: whoever uses it says so.
    """
    with in_words(who), _limited():
        yield


@contextlib.contextmanager
def in_words(who: str) -> Iterator[None]:
    """Raise NoMemory, a sentence that begins with ``who``, for whatever says that there was no memory."""
    try:
        yield
    except BaseException as error:
        if (text := _text(error)) is None:
            raise
        raise out_of_memory(who, text) from error


def _text(error: BaseException | None) -> str | None:
    """Return the text of a want of memory that an error is or comes from; None where it does not."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, NoMemory):
            return None  # that is said already
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return str(error)
        if isinstance(error, RuntimeError) and is_out_of_memory(str(error)):
            return str(error)
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    if not _on_cpu_alone() or not _OUTERMOST.acquire(blocking=False):
        yield
        return
    try:
        with limited_to(int(available_bytes() * SPARE)):
            yield
    finally:
        _OUTERMOST.release()


@contextlib.contextmanager
def limited_to(more: int) -> Iterator[None]:
    """Let the process take so many bytes more at most, where the system can see to that; threads have their own say."""
    me = object()
    with _CHANGING:
        if not _limits:
            _found[:] = resource.getrlimit(resource.RLIMIT_DATA)
        _limits[me] = taken_bytes() + more
        _set_least()
    try:
        yield
    finally:
        with _CHANGING:
            del _limits[me]
            _set_least()


def _set_least() -> None:
    soft, hard = _found
    known = [limit for limit in (soft, hard, *_limits.values()) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known, default=resource.RLIM_INFINITY), hard))


def _on_cpu_alone() -> bool:
    """Return whether this process cannot use a GPU: its driver takes address space that no limit should count."""
    return "torch" in sys.modules and _no_gpu()


@functools.cache
def _no_gpu() -> bool:
    return not sys.modules["torch"].cuda.is_available()


def taken_bytes() -> int:
    """Return how much memory of its own this process has taken, used or not; 2**61 where the system does not tell."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    return 2**61


def limit_process(process: int) -> None:
    """Let a process take most of what is free from now on, where the system can see to that: this one, or a new one."""
    with contextlib.suppress(OSError, AttributeError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = int(available_bytes() * SPARE) + (taken_bytes() if process == os.getpid() else 0)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.prlimit(process, resource.RLIMIT_DATA, (soft, hard))
