"""What ends a run: SIGINT, SIGTERM and SIGHUP raise an exception where it is, so that it keeps what it found.

A run that does not come back from a library within GRACE_S, and one that is told a second time, ends at once. A child
process ends with its parent, whatever ends that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, ClassVar

from harness.sentences import Sentence
from harness.temporary import delete_all

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 5.0
"""A library that computes for longer does not let Python see a signal."""
AGAIN_S = 1.0
"""Signals within this time are one: some tools send one to a process and then to its group."""
_PR_SET_PDEATHSIG = 1
_exit = os._exit  # a suite's code may find another one there


class Stopped(KeyboardInterrupt):
    """A signal ended the run; the text says which."""


class _Run:
    """What is known about the end of this process."""

    received = 0
    """The signal that ends it; 0 for none."""
    reacted = threading.Event()
    lost = False
    """Whether the exception was raised where Python drops exceptions."""
    again = 0
    """How often it is raised again for that."""
    process = 0
    """The process to which all this belongs."""
    children: ClassVar[dict[subprocess.Popen[bytes], bool]] = {}
    """Its children, and whether each leads a group."""
    last_words: ClassVar[list[Callable[[], None]]] = []


def words() -> str:
    """Return what ended the run: ``interrupted``, or ``stopped by SIGTERM``."""
    if _Run.received in (0, signal.SIGINT):
        return "interrupted"
    return Sentence("stopped_by", name=signal.Signals(_Run.received).name)


def received() -> bool:
    """Return whether a signal ended the run."""
    return _Run.received > 0


def exit_status() -> int:
    """Return the exit status of a run that was ended: 128 and the signal's number, as a shell has it."""
    return 128 + (_Run.received or signal.SIGINT)


@contextlib.contextmanager
def stoppable(*, for_good: bool = False) -> Iterator[None]:
    """Let the signals raise Stopped, a KeyboardInterrupt, in this block, once; one that is ignored stays ignored.

    After the block they do what they did before or, ``for_good``, end the process with their status: all is written
    then, and Python only tidies up.
    """
    if threading.current_thread() is not threading.main_thread() or _Run.process == os.getpid():
        yield
        return
    _Run.received, _Run.again, _Run.lost, _Run.process = 0, 0, False, os.getpid()
    _Run.reacted.clear()
    pipe = os.pipe()
    os.set_blocking(pipe[1], False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    woken, hook = signal.set_wakeup_fd(pipe[1], warn_on_full_buffer=False), sys.unraisablehook

    def dropped(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt) or not _Run.received:
            hook(unraisable)
            return
        _Run.lost, _Run.again = True, _Run.again + 1  # raised again where it is not inside this function
        threading.Timer(0.01, os.kill, (os.getpid(), _Run.received)).start()

    threading.Thread(target=_watch, args=(pipe[0],), daemon=True).start()
    try:
        sys.unraisablehook = dropped
        for number, handler in before.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, _stop)
        yield
    finally:
        for number, handler in before.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, _leave if for_good else handler)
        signal.set_wakeup_fd(woken)
        if sys.unraisablehook is dropped:
            sys.unraisablehook = hook
        os.close(pipe[1])
        _Run.process = 0


@contextlib.contextmanager
def last_words(say: Callable[[], None]) -> Iterator[None]:
    """Call ``say`` before the process ends inside this block without an exception; what it raises is dropped."""
    _Run.last_words.append(say)
    try:
        yield
    finally:
        _Run.last_words.remove(say)


@contextlib.contextmanager
def child(command: Sequence[str], *, group: bool = False, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, and kill it when the block or this process ends, however that ends; its pipes are closed.

    With ``group`` it leads a process group of its own, and all that it starts ends with it. ``options`` are those of
    ``subprocess.Popen``.
    """
    if _Run.received and _Run.process == os.getpid():  # another thread goes on
        raise Stopped(words())
    process = subprocess.Popen(_tied(command, group), start_new_session=group, **options)
    _Run.children[process] = group
    try:
        yield process
    finally:
        _kill(process, group)
        del _Run.children[process]
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def run_child(command: Sequence[str], *, env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a process as :func:`child` does, and return its status and output as ``subprocess.run`` does.

    Raises TimeoutExpired after ``timeout`` seconds.
    """
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child(command, env=env, **pipes) as process:
        output, errors = process.communicate(timeout=timeout)
    said = (text.decode(errors="replace") for text in (output, errors))
    return subprocess.CompletedProcess(command, process.returncode, *said)


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Let the system send this process a signal when its parent ends; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


_TIE = """
import ctypes, os, signal, sys
tie = lambda number: ctypes.CDLL(None).prctl(1, number)
parent, group, *command = sys.argv[1:]
if group == "group":
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
tie(signal.SIGTERM if group == "group" else signal.SIGKILL)
if os.getppid() != int(parent):
    os._exit(1)
if group != "group":
    os.execvp(command[0], command)
status = os.waitpid(os.spawnvp(os.P_NOWAIT, command[0], command), 0)[1]
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.WEXITSTATUS(status))
"""
"""Becomes a command that ends with its parent; of a group it stays the leader, and ends the group."""


def _tied(command: Sequence[str], group: bool) -> list[str]:
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), "group" if group else "one", *command]


def _stop(number: int, _: FrameType | None) -> None:
    """End the run: the handler of every signal."""
    if os.getpid() != _Run.process:  # a child that a library forked, to which this run means nothing
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _Run.received and not _Run.lost:
        return
    _Run.lost, _Run.received = False, _Run.received or number
    _Run.reacted.set()
    for process, group in list(_Run.children.items()):  # those that other threads wait for too
        _kill(process, group)
    raise KeyboardInterrupt if _Run.received == signal.SIGINT else Stopped(words())


def _leave(number: int, _: FrameType | None) -> None:
    _exit(128 + number)


def _watch(pipe: int) -> None:
    """End the process where the handler is not reached in time, and at a second signal."""
    first = 0.0
    while received := os.read(pipe, 1):
        if received[0] not in SIGNALS:
            continue
        if not first:
            first = time.monotonic()
            if not _Run.reacted.wait(GRACE_S):
                _Run.received = received[0]
                end(Sentence("stopped_in_library", words=words()))
        elif _Run.again:
            _Run.again -= 1
        elif time.monotonic() - first > AGAIN_S:
            end(Sentence("stopped_twice", words=words()))
    os.close(pipe)


def end(sentence: str) -> None:
    """End the process here and now, with all that it started and its temporary files; the status is the signal's."""
    for say in reversed(_Run.last_words):
        with contextlib.suppress(Exception):
            say()
    for process, group in list(_Run.children.items()):
        _kill(process, group)
    delete_all()
    with contextlib.suppress(OSError):
        os.write(2, f"parity: {sentence}\n".encode())
    _exit(exit_status())


def _kill(process: subprocess.Popen[bytes], group: bool) -> None:
    process.kill()
    if group:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _forget() -> None:
    """Take the signals of a forked child out of its parent's pipe."""
    if _Run.process:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget)
