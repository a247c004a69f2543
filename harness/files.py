"""The one writer of files: a file is the old one or the whole new one, whatever happens while it is written."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.errors import CannotWrite, UsageError
from harness.temporary import Temporary

MOST_LETTERS = 120
"""Of a name in a file's name; a file system takes 255 bytes, and endings follow."""

_POINTER = b"version https://git-lfs.github.com/spec/"


@contextlib.contextmanager
def replacing(path: Path, *, needed: int = 0) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place when the block ends.

    The bytes are on the disk before the name is, and the name is before this returns. When the block raises, ``path``
    is as it was and nothing is left; what a killed process left in the folder is removed. A file that exists keeps its
    permissions, a link stays a link, and a pipe or device is written to directly. Folders above are made. Raises
    CannotWrite, a UsageError, for every OSError, those of the block included; it says how many bytes were ``needed``,
    or that it was more than those that fitted.
    """
    fitted = 0
    try:
        if _is_device(path):
            with _open_device(path) as device:
                yield device
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else None
        temporary = Temporary(target.parent)
        try:
            with open(temporary.descriptor, "wb", closefd=False) as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                try:
                    yield file
                    file.flush()
                finally:
                    fitted = os.fstat(file.fileno()).st_size
                os.fsync(file.fileno())
            temporary.path.replace(target)
            _sync_folder(target.parent)
        finally:
            temporary.close()
    except OSError as error:
        raise CannotWrite(path, error, needed=needed or fitted) from error


def _open_device(path: Path) -> BinaryIO:
    """Open what is no file; a pipe that nobody reads is an error, where a plain open would wait for ever."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb")


def _sync_folder(folder: Path) -> None:
    """Put the names of a folder on the disk, where its file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_name(*names: str) -> str:
    """Return a file's name made of the names of subjects, cases and the like, without a separator or a dot in front.

    Names of letters, digits and ``_ . = @ -`` stay as they are. Where that changes a name, makes two of them hard to
    tell apart, or is longer than MOST_LETTERS, a hash follows, so that two names never meet in one file.
    """
    joined = "-".join(names)
    safe = re.sub(r"[^A-Za-z0-9_.=@-]+", "-", joined).strip("-.")
    within = any(f"-{one}-" in f"-{other}-" for one, other in itertools.permutations(names, 2) if "-" in other)
    if safe == joined and 0 < len(safe) <= MOST_LETTERS and not within:
        return safe
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[:MOST_LETTERS]}-{digest}".lstrip("-.")


def write_bytes(data: bytes, path: Path) -> None:
    """Write a file as :func:`replacing` does. Raises CannotWrite, a UsageError."""
    with replacing(path, needed=len(data)) as file:
        file.write(data)


def write_text(text: str, path: Path) -> None:
    """Write a file in UTF-8 as :func:`replacing` does. Raises CannotWrite, a UsageError."""
    write_bytes(text.encode(), path)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are missing. Raises CannotWrite, a UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(folder, error) from error


def check_writable(path: Path) -> None:
    """Raise UsageError when ``path`` cannot become a file, before the long work whose results it should hold."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; give the name of a file")
    if _is_device(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Temporary(path.parent).close()
    except OSError as error:
        raise CannotWrite(path, error) from error


def check_is_content(path: Path) -> None:
    """Raise UsageError for what is no file to read: a pointer of Git LFS in its place, a pipe, a device.

    Does nothing for one that is not there, and for a folder.
    """
    if _is_device(path):
        raise UsageError(f"{path} is a pipe or a device, which may have no end; give a file")
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
        if head == _POINTER:
            raise UsageError(f"{path} is a Git LFS pointer, not the file itself; run git lfs pull")


def _is_device(path: Path) -> bool:
    """Return whether a path is there and neither a file nor a folder: ``/dev/stdout``, a pipe."""
    return path.exists() and not (path.is_file() or path.is_dir())
