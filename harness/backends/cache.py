"""The engine cache: a folder of engine files under content hashes, each verified before it is used."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.backends.engine_file import Build, Engine, build_engine, build_in_place, find_engine, key_hash
from harness.backends.remote import Remote, open_remote
from harness.backends.runtime_file import NAME as RUNTIME
from harness.backends.runtime_file import runtime_file
from harness.errors import CannotWrite, NotJudged, UsageError, is_disk_full, room
from harness.files import file_name, make_folder, write_text
from harness.locks import Held, locked
from harness.sentences import Sentence
from harness.settings import Settings
from harness.temporary import remove_leftovers

GRACE_S = 60.0
SCANS = 64
"""A process looks the folder through again once it has built this part of the limit: not at every build."""
_ENGINE = re.compile(r".+-[0-9a-f]{16}\.engine")
READ_AGAIN = 20
"""The names in the folder are read again once so many times the time has passed that reading them took: filling a
folder costs no more per engine when there are many."""
README = """\
# engines

Engines built by the harness. Delete this folder whenever you like: what is needed is built again.

- `NAME-KEY.engine`: an engine; KEY is the start of the SHA-256 of everything it was built from.
- `NAME-KEY.json`: what it was built from, its SHA-256, and what the builder reported.
- `NAME-KEY.MACHINE.runtime`: the kernels that TensorRT for RTX compiled when it loaded the engine, for the next
  process; MACHINE is the start of the SHA-256 of the engine's checksum, the GPU, the driver and the version.
- `*.lock`, `.parity-*.tmp`: while an engine is built, so that two processes build it once; the rest of a build that was
  killed, which the next run removes.

An engine without a matching `.json` is built again. The least recently used engines are removed when the folder
grows over its limit. An engine file is code: use only engines from this machine or from a source you trust.
"""
_FOLDER_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOENT, errno.ENOTDIR)
_FILES = {
    "README.md": README,
    ".gitignore": "*\n!.gitignore\n!README.md\n",
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# Engines built by the harness; see README.md.\n",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One engine in the cache, not verified."""

    path: Path
    bytes: int
    """Of the engine and the runtime caches beside it."""
    used: float
    """Seconds since the epoch of the last use."""
    runtimes: tuple[Path, ...] = ()
    """The runtime caches beside it (:mod:`harness.backends.runtime_file`)."""


class EngineCache:
    """Owns one folder of engines, which several processes may use at once."""

    def __init__(self, folder: Path, *, limit_bytes: int, remote: Remote | None = None) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.remote = remote
        """The engine cache that this one shares with those of other runners."""
        self.built = 0
        """Engines built through this object; those that were there already, or came from ``remote``, do not count."""
        self.before_build: Callable[[], None] | None = None
        """Called before every build; what it raises refuses the build."""
        self._room = 0
        """Bytes that may be built before the folder is looked through again."""
        self._names: dict[str, Path] = {}
        """Every engine by its key's digest, whatever its name, when the names were last read."""
        self._names_until = 0.0

    def get(
        self,
        key: Mapping[str, Any],
        build: Build,
        *,
        use_cache: bool = True,
        progress: Callable[[str], None],
        name: str = "engine",
    ) -> Engine:
        """Return the engine of ``key``, built by ``build(path)`` unless it is there already, or in ``remote``.

        ``key`` is JSON data: all that the engine depends on. ``name`` only makes the file easy to recognise. With
        ``use_cache=False`` the engine is always built, and ``Engine.discard`` deletes it.
        Raises what ``build`` and ``before_build`` raise, NotJudged when the disk is full, UsageError when the folder
        cannot be written.
        """
        path = self._path(key, name)
        with _disk_errors(self.folder):
            self._prepare()
            if self.folder.stat().st_mode & stat.S_IWOTH:
                _say_once(self.folder, progress)
            if not use_cache:
                self._announce()
                scratch = build_engine(path, key, build, progress)
                self.built += 1
                return scratch
            with locked(path.with_suffix(".lock"), f"engine {path.stem}", waiting=progress):
                engine, fault = find_engine(path, key)
                if engine is None:
                    if fault:
                        progress(f"engine cache: {fault}; building it again")
                    engine = self._fetch_or_build(path, key, build, fault, progress)
                    self._room -= engine.bytes
                    if self._room <= 0:
                        self._clean(keep=path)
                elif self.remote is not None:
                    self.remote.offer(engine, progress)
                os.utime(path)
                return engine

    def _fetch_or_build(
        self, path: Path, key: Mapping[str, Any], build: Build, fault: str, progress: Callable[[str], None]
    ) -> Engine:
        """Return an engine that is not here: from the shared cache, or built and offered to it."""
        remote = self.remote
        if remote is None:
            return self._build(path, key, build, fault, progress)
        if (engine := remote.fetch(path, key, progress)) is not None:
            return engine
        with remote.building(key, progress) as waited:
            if waited and (engine := remote.fetch(path, key, progress)) is not None:
                return engine
            engine = self._build(path, key, build, fault, progress)
            remote.offer(engine, progress)
            return engine

    def _build(
        self, path: Path, key: Mapping[str, Any], build: Build, fault: str, progress: Callable[[str], None]
    ) -> Engine:
        self._announce()
        engine = build_in_place(path, key, build, fault, progress)
        self.built += 1
        return engine

    def fetch_runtime(self, engine: Path, environment: Mapping[str, str], progress: Callable[[str], None]) -> None:
        """Take an engine's runtime cache for this machine from the shared cache, where it is not here."""
        file = runtime_file(engine, environment) if self.remote is not None else None
        if self.remote is not None and file is not None and not file.path.exists():
            self.remote.fetch_runtime(file, progress)

    def offer_runtime(self, engine: Path, environment: Mapping[str, str], progress: Callable[[str], None]) -> None:
        """Give an engine's runtime cache to the shared cache, where it is larger than the one there."""
        file = runtime_file(engine, environment) if self.remote is not None else None
        if self.remote is not None and file is not None:
            self.remote.offer_runtime(file, progress)

    def _announce(self) -> None:
        if self.before_build is not None:
            self.before_build()

    def holds(self, key: Mapping[str, Any], *, name: str = "engine") -> bool:
        """Return whether the engine of ``key`` is there, as far as its file's name says."""
        return self._path(key, name).is_file()

    def with_sha256(self, sha256: str) -> Engine | None:
        """Return the verified engine whose file has this hash; None where none is here or it is damaged."""
        for path in self._engine_files():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, UsageError):
                data = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                if data["sha256"] == sha256 and (engine := find_engine(path, data["key"])[0]) is not None:
                    os.utime(path)  # it is in use: not the next one to be removed
                    return engine
        return None

    def _path(self, key: Mapping[str, Any], name: str) -> Path:
        """Return where the engine of ``key`` lies, under whatever name it was built, or will lie."""
        digest = key_hash(key)[:16]
        own = self.folder / f"{file_name(name)}-{digest}.engine"
        if own.exists():
            return own
        if (started := time.monotonic()) > self._names_until:
            self._names = {path.stem[-16:]: path for path in sorted(self._engine_files(), reverse=True)}
            self._names_until = time.monotonic() + READ_AGAIN * (time.monotonic() - started)
        known = self._names.get(digest, own)
        return known if known.exists() else own

    def entries(self) -> list[Entry]:
        """Return every engine in the folder, the least recently used first."""
        return self._scan()[0]

    def clear(self, *, unused_s: float = 0.0) -> int:
        """Delete every engine that no other process is building and none has used for so many seconds.

        Returns the number of bytes freed.
        """
        remove_leftovers(self.folder.absolute())
        entries, strays = self._scan()
        _unlink(strays)
        last = time.time() - unused_s
        return sum(entry.bytes for entry in entries if entry.used <= last and self._remove(entry))

    def _scan(self) -> tuple[list[Entry], list[Path]]:
        """Return every engine, the least recently used first, and the runtime caches whose engine is gone.

        They are known by the names that the cache gives; no other file is ever deleted.
        """
        engines: dict[str, os.stat_result] = {}
        runtimes: dict[str, list[tuple[Path, int]]] = {}
        for file in self._files():
            with contextlib.suppress(FileNotFoundError):  # another process may clean up at the same time
                if _ENGINE.fullmatch(file.name):
                    engines[file.name.removesuffix(".engine")] = file.stat()
                elif RUNTIME.fullmatch(file.name):
                    engine = file.name.rsplit(".", 2)[0]
                    runtimes.setdefault(engine, []).append((Path(file.path), file.stat().st_size))
        entries = []
        for stem, status in engines.items():
            beside = runtimes.pop(stem, [])
            entries.append(
                Entry(
                    path=self.folder / f"{stem}.engine",
                    bytes=status.st_size + sum(size for _, size in beside),
                    used=status.st_mtime,
                    runtimes=tuple(path for path, _ in beside),
                )
            )
        strays = [path for beside in runtimes.values() for path, _ in beside]
        return sorted(entries, key=lambda entry: entry.used), strays

    def _prepare(self) -> None:
        """Make the folder and the files that explain it, unless it already holds files that are not the cache's."""
        make_folder(self.folder)
        present = set()
        for file in self._files():
            if file.name not in _FILES:
                return
            present.add(file.name)
        for name in _FILES.keys() - present:
            write_text(_FILES[name], self.folder / name)

    def _files(self) -> Iterator[os.DirEntry[str]]:
        """Yield what is in the folder; nothing where there is no folder."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder) as files:
            yield from files

    def _engine_files(self) -> Iterator[Path]:
        """Yield the engines, known by the names that the cache gives them."""
        for file in self._files():
            if _ENGINE.fullmatch(file.name):
                yield Path(file.path)

    def _clean(self, keep: Path) -> None:
        """Delete the least recently used engines down to the limit."""
        entries, strays = self._scan()
        _unlink(strays)
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            # One used a moment ago may be about to be loaded by another process.
            if total > self.limit_bytes and entry.path != keep and time.time() - entry.used > GRACE_S:
                total -= entry.bytes if self._remove(entry) else 0
        self._room = min(self.limit_bytes - total, self.limit_bytes // SCANS)

    def _remove(self, entry: Entry) -> bool:
        """Delete an engine and what lies beside it; False when another process holds its lock.

        Where there is no lock file none is made, which would take more time than the deletion: a process that takes the
        lock just now finds the engine whole or not at all.
        """
        lock = entry.path.with_suffix(".lock")
        try:
            with locked(lock, f"engine {entry.path.stem}", most_s=0) if lock.exists() else contextlib.nullcontext():
                _unlink([entry.path.with_suffix(".json"), *entry.runtimes, entry.path])
        except Held:
            return False
        return True


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def engine_cache(settings: Settings) -> EngineCache:
    """Return the engine cache of a run. Raises UsageError where the shared one can never be opened."""
    remote = open_remote(settings.engines_remote, settings.engines_remote_mode)
    return EngineCache(settings.engines, limit_bytes=settings.engine_cache_bytes, remote=remote)


def check_remote(settings: Settings) -> None:
    """Raise UsageError where the shared engine cache can never be opened: a mode or a kind of URL that is none."""
    open_remote(settings.engines_remote, settings.engines_remote_mode)


_said: set[Path] = set()


def _say_once(folder: Path, progress: Callable[[str], None]) -> None:
    if folder not in _said:
        _said.add(folder)
        progress(f"everybody can write into the engine folder {folder}, and engines are code: chmod o-w {folder}")


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a sentence."""
    try:
        yield
    except (OSError, CannotWrite) as error:
        if is_disk_full(error):
            free = Sentence("no_engine_space", folder=folder, room=room(folder))
            raise NotJudged(Sentence("no_space_for_engines", free=free)) from error
        another = "set PARITY_ENGINES to another folder"
        if isinstance(error, CannotWrite) or (error.errno in _FOLDER_ERRORS and _is_below(error.filename, folder)):
            raise UsageError(f"the engine folder {folder} cannot be written; {another}") from error
        if _is_below(error.filename, folder):  # such as a folder in the place of a lock
            raise UsageError(f"{error.filename} cannot be used: {error.strerror}; remove it, or {another}") from error
        raise


def _is_below(file: object, folder: Path) -> bool:
    return Path(str(file)).is_relative_to(folder)
