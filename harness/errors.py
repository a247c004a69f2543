"""Every error a user can meet, in one tree.

    ParityError            the base: its text is one sentence that names what, where and what to do
     +- UsageError         the request itself is wrong (exit status 2)
     |   +- CannotWrite    a file cannot be written
     +- NotJudged          no verdict can be given, for a reason that is not the engine's accuracy
     |   +- NotRepeatable  two runs of the subject in PyTorch differ
     |   +- NoMemory       a step wanted more memory than there is
     |   +- TookTooLong    a step, a build, a subject or the run was not over within its time
     |   +- EngineRefused  a backend would not build or load this graph
     +- EngineFailed       an engine was built but misbehaves: it crashes, or its outputs are not the declared ones

Anything else that escapes is a bug in the harness. Each carries the class of its failure, as records have it.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from harness.sentences import Sentence

Failure = Literal["", "wrong_answer", "refused", "crash", "device", "memory", "timeout"]
"""The class of a failure: a wrong answer, a build or an input refused, a process that died or a kernel that faulted, a
GPU or a driver that failed, no memory, no time; empty for anything else, such as a machine without a GPU."""


class ParityError(Exception):
    """The base of every error that carries a sentence for the user."""

    failure: Failure = ""
    """What class of failure it is."""

    def __init__(self, sentence: str = "", *, failure: Failure | None = None) -> None:
        """``failure`` takes the place of the class that errors of this kind have."""
        super().__init__(sentence)
        if failure is not None:
            self.failure = failure


class UsageError(ParityError):
    """The request is wrong: an unknown name, a file that is not there, a plan that matches nothing."""


class CannotWrite(UsageError):
    """A file cannot be written: a full disk, no permission, a folder in its place."""

    def __init__(self, path: Path, error: OSError, *, needed: int = 0) -> None:
        """``needed`` are the bytes that were to be written, where they are known."""
        said = error.strerror or str(error)
        if is_disk_full(error):
            said = f"{said} in {path.absolute().parent} ({room(path.parent, needed)})"
        super().__init__(f"cannot write {path}: {said}; {_ADVICE.get(error.errno or 0, 'give another path')}")
        self.error = error
        """What the system said."""


class NotJudged(ParityError):
    """No verdict can be given: no GPU, no weights, inputs that hold NaN, a subject that is not repeatable."""


class NotRepeatable(NotJudged):
    """Two runs of the subject in PyTorch FP32 differ by more than the order of summation explains."""


class TookTooLong(NotJudged):
    """Something was not over within the time that it may take."""

    failure = "timeout"

    def __init__(self, sentence: str = "", *, option: str = "--timeout") -> None:
        """``option`` is the one that gives the time."""
        super().__init__(sentence)
        self.option = option


class NoMemory(NotJudged):
    """A step wanted more memory than there is, of the host or of a GPU."""

    failure = "memory"


class EngineRefused(NotJudged):
    """A backend would not build or load the graph; the text names the op and the node where it can."""

    failure = "refused"


class EngineFailed(ParityError):
    """An engine was built and does not do its job: it raised, or its outputs are not the declared ones."""

    failure = "wrong_answer"


@contextlib.contextmanager
def no_exit() -> Iterator[None]:
    """Let ``os._exit`` raise SystemExit while a suite's code runs: status 0 must not come without a verdict.

    A thread beside it may end the process as a failure, as pytest-timeout does. A child that the code forked and let
    return ends here: two processes would go on with one run.
    """
    end, process = os._exit, os.getpid()

    def refused(status: int) -> NoReturn:
        beside = status != 0 and threading.current_thread() is not threading.main_thread()
        if beside or os.getpid() != process:  # a child that the code forked
            end(status)
        raise SystemExit(status)

    os._exit = refused
    try:
        yield
    finally:
        os._exit = end
        if os.getpid() != process:
            end(0)


@contextlib.contextmanager
def streams_kept() -> Iterator[None]:
    """Let a suite's code close or exchange standard output and error; afterwards they are what they were.

    Else a verdict might be printed nowhere.
    """
    streams = {1: sys.stdout, 2: sys.stderr}
    copies = {}
    for number in streams:
        with contextlib.suppress(OSError):  # it was closed before
            copies[number] = os.dup(number)
    try:
        yield
    finally:
        for number, copy in copies.items():
            with contextlib.suppress(OSError):
                if os.path.sameopenfile(copy, number):
                    continue
            os.dup2(copy, number)
        for copy in copies.values():
            os.close(copy)
        for number, name in ((1, "stdout"), (2, "stderr")):
            stream = streams[number]
            if stream is not None and stream.closed:
                stream = os.fdopen(os.dup(number), "w")
            setattr(sys, name, stream)


def ends_test(error: BaseException) -> bool:
    """Return whether this is pytest's failure, which the time limit of a plugin raises wherever a test is just then."""
    outcomes = sys.modules.get("_pytest.outcomes")
    return outcomes is not None and isinstance(error, outcomes.Failed)


@contextlib.contextmanager
def suite_code(what: str, kind: type[ParityError] | None = None) -> Iterator[None]:
    """Turn whatever a suite's own code raises into NotJudged or another kind; an end of the process always into that.

    ``what`` says which code, with the subject: ``clip: build()``.
    """
    try:
        with no_exit(), streams_kept():
            yield
    except (ParityError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if ends_test(error):
            raise
        chosen = NotJudged if isinstance(error, SystemExit) or kind is None else kind
        raise chosen(f"{what} raised {type(error).__name__}: {first_line(error)}") from error


def same_name(name: str, *files: Path | str) -> UsageError:
    """Return the error for one name of two subjects: the result of one would take the place of the other's."""
    return UsageError(f"subject {name!r} is in {' and in '.join(map(str, files))}; give one of them another name")


def visible(text: str) -> str:
    """Return one line in which control, formatting and separator characters are ``\\uXXXX`` and line ends ``\\n``."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == "\n":
        return "\\n"
    if character == "\t":
        return " "
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return f"\\u{ord(character):04x}" if hidden else character


def without_passwords(text: str) -> str:
    """Return a command line or a message with the passwords of its URLs as ``***``.

    Of a database the user is shown; of any other place nothing of who logs in, which may be a token.
    """
    text = re.sub(r"(://[^\s:/@?]*:)[^\s@]*@", r"\1***@", text)
    text = re.sub(r"(?<!postgresql)(?<!psycopg)://[^\s/@?]*@", "://***@", text)
    return re.sub(rf"([?&][\w.-]*(?:{_SECRETS})[\w.-]*=)[^\s&']*", r"\1***", text, flags=re.IGNORECASE)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not known, with the nearest known names first."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return UsageError(f"unknown {kind} {name!r}; {hint}")


def install_hint(extra: str) -> str:
    """Return how to install one of the package's extras, to be typed as it is."""
    return f"in a checkout of trt-parity: pip install '.[{extra}]'"


_SECRETS = "password|secret|token|sig|key|credential"
"""What is in the names of secrets in a URL's query."""
LETTERS = 2000
"""What is shown of an error's text, which may hold a whole tensor."""
_ADVICE = {
    errno.ENOSPC: "make room, or give another path",
    errno.EDQUOT: "make room, or give another path",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f), or give another path",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs, or raise the system's limit on open files",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EIO: "check the disk, or give a path on another one",
}
"""What to do about the errors of a file system; about all others: give another path."""


def few(names: Sequence[str], most: int) -> str:
    """Return the first names, and how many there are beyond them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def room(folder: Path, needed: int = 0) -> str:
    """Return what is free where a folder is, and what was needed: ``3.1 MiB needed, 0.2 MiB free``."""
    words = [f"{_size(needed)} needed"] * bool(needed)
    with contextlib.suppress(OSError):
        words.append(f"{_size(shutil.disk_usage(folder).free)} free")
    return ", ".join(words) or "the space that is free is not known"


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def is_disk_full(error: BaseException) -> bool:
    """Return whether an OSError, or that of a CannotWrite, says that a disk or a quota is full, or a file too large."""
    cause = error.error if isinstance(error, CannotWrite) else error
    # ndarray.tofile raises an OSError without errno, which only its text tells from others (numpy 2).
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return full or (isinstance(cause, OSError) and "Not enough free space to write" in str(cause))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, at most LETTERS of it, or its type where it has none."""
    try:
        said = str(error)
        line = said if isinstance(said, Sentence) else next(iter(said.strip().splitlines()), "")
    except Exception:  # of a class whose own __str__ raises
        line = ""
    return f"{line[:LETTERS]} ..." if len(line) > LETTERS else line or type(error).__name__
