"""What a suite reads while it is imported and its module is built: files, folders, and what is not there.

Python tells of every file that it opens, every folder that it lists, every program that it starts and every connection
that it makes (``sys.addaudithook``). What only C++ or Rust reads is not seen: a suite declares it, ``weights_files=``.
"""

# ruff: noqa: PTH100
from __future__ import annotations

import contextlib
import os
import stat as stat_kinds
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

_INSTALLED = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
PREFIXES = tuple({f"{path}{os.sep}" for raw in _INSTALLED for path in (raw, os.path.realpath(raw))})
"""Folders of installed packages and of Python itself, whose modules have stamps and versions."""
_SYSTEM = ("/proc/", "/sys/", "/dev/")
_ENTROPY = ("/dev/random", "/dev/urandom", "/dev/hwrng")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork")
_IMPORTERS = ("<frozen importlib._bootstrap_external>", "<frozen importlib._bootstrap>", "<frozen zipimport>")
_HARNESS = f"{Path(__file__).parent}{os.sep}"


@dataclass(kw_only=True)
class Seen:
    """What was seen."""

    files: set[str] = field(default_factory=set)
    """Files that were read, or looked at."""
    folders: set[str] = field(default_factory=set)
    """Folders whose names were listed."""
    missing: set[str] = field(default_factory=set)
    """What was looked for in vain."""
    names: set[str] = field(default_factory=set)
    """Modules that were imported, or tried."""
    problems: set[str] = field(default_factory=set)
    """What no file tells: another program, a connection, the system's random numbers."""

    def add(self, other: Seen) -> None:
        """Add what another one saw."""
        for kind in ("files", "folders", "missing", "names", "problems"):
            getattr(self, kind).update(getattr(other, kind))


imports = Seen()
"""What was seen while suites were imported, in this process."""
suites: dict[Path, float] = {}
"""The suites that were imported so, with the time at which that began."""
STARTED = time.time()
"""When this process began to import the harness."""
_active: list[Seen] = []
_is_installed = threading.Event()


@contextlib.contextmanager
def importing(suite: Path) -> Iterator[None]:
    """Watch what the import of a suite reads."""
    began = time.time()
    with _watching(imports):
        yield
    suites.setdefault(suite.resolve(), began)


@contextlib.contextmanager
def building() -> Iterator[Seen]:
    """Watch what building a module reads, and what it asks for that is not there."""
    seen = Seen()
    stat = os.stat

    def looked_at(path: Any, *args: Any, **options: Any) -> os.stat_result:
        try:
            found = stat(path, *args, **options)
        except (FileNotFoundError, NotADirectoryError):
            _note_path(seen.missing, path)
            raise
        if stat_kinds.S_ISREG(found.st_mode):
            _note_path(seen.files, path)
        return found

    with _watching(seen):
        os.stat = looked_at  # no event tells of it
        try:
            yield seen
        finally:
            os.stat = stat


@contextlib.contextmanager
def _watching(seen: Seen) -> Iterator[None]:
    if not _is_installed.is_set():
        _is_installed.set()
        sys.addaudithook(_hear)
    _active.append(seen)
    try:
        yield
    finally:
        _active.remove(seen)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Note an event of the interpreter; it is called for every one of them, and for as long as the process lives."""
    if not _active:
        return
    seen = _active[-1]
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if str(path) in _ENTROPY:
            seen.problems.add("drew random numbers of the system")
        elif not writes and not _by_us():
            _note_path(seen.files, path)
    elif event in ("os.listdir", "os.scandir") and not _by_us():
        _note_path(seen.folders, "." if arguments[0] is None else arguments[0])
    elif event == "import":
        seen.names.add(str(arguments[0]))
    elif event in _PROGRAMS and not _by_a_package():
        seen.problems.add(f"started another program ({str(arguments[0] if arguments else '')[:60]})")
    elif event in ("socket.connect", "socket.getaddrinfo") and not _by_us():
        seen.problems.add("connected to the network")


def _note_path(paths: set[str], path: Any) -> None:
    if isinstance(path, int):
        return
    with contextlib.suppress(TypeError, ValueError):
        name = os.path.abspath(os.fsdecode(os.fspath(path)))
        if not f"{name}{os.sep}".startswith((*PREFIXES, *_SYSTEM, _HARNESS)) and not name.endswith(".pyc"):
            paths.add(name)


def _by_us() -> bool:
    """Return whether the import system, or this harness, asks."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file in _IMPORTERS or file.startswith(_METADATA):  # what is installed is part of every key
            return True
        if not _is_python(file):
            return file.startswith(_HARNESS)
        frame = frame.f_back
    return False


def _by_a_package() -> bool:
    """Return whether an installed package asks, and not the suite by Python's own modules."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not _is_python(file):
            return file.startswith((*PREFIXES, _HARNESS))
        frame = frame.f_back
    return False


_PYTHON = f"{Path(os.__file__).parent}{os.sep}"
_METADATA = f"{_PYTHON}importlib{os.sep}metadata{os.sep}"
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def _is_python(file: str) -> bool:
    """Return whether code is of Python's own modules: ``open`` is called there for whoever asked for it."""
    return file.startswith("<frozen ") or (file.startswith(_PYTHON) and not any(site in file for site in _SITE))
