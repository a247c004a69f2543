"""The engine cache: a folder of engine files under content hashes, each verified before it is used.

An engine file is code that a GPU runs, so it is only as good as its origin. The checksum finds a file that was cut
short, corrupted or exchanged by accident; it is no defence against somebody who may write into the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from harness.backends.base import BuildReport
from harness.errors import CannotWrite, EngineRefused, NotJudged, UsageError, is_disk_full
from harness.files import make_folder, write_text
from harness.records import EngineInfo

SCHEMA = "parity-engine/1"
STALE_S = 24 * 3600.0
GRACE_S = 60.0
_ENGINE = re.compile(r".+-[0-9a-f]{16}\.engine")
_TEMPORARY = re.compile(r".+-[0-9a-f]{16}\.(build-|json\.)?[0-9a-f]{8}\.tmp")
README = """\
# engines

Engines built by the harness. Delete this folder whenever you like: what is needed is built again.

- `NAME-KEY.engine`: an engine; KEY is the start of the SHA-256 of everything it was built from.
- `NAME-KEY.json`: what it was built from, its SHA-256, and what the builder reported.
- `*.lock`, `*.tmp`: two processes that want the same engine build it once; the rest of a build that was killed.

An engine without a matching `.json` is built again. The least recently used engines are removed when the folder
grows over its limit. An engine file is code: use only engines from this machine, or from somebody you trust.
"""
_FOLDER_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOENT, errno.ENOTDIR)
_FILES = {
    "README.md": README,
    ".gitignore": "*\n!.gitignore\n!README.md\n",
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# Engines built by the harness; see README.md.\n",
}
Build = Callable[[Path], BuildReport]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine file, verified a moment ago. As a context manager it is discarded on leaving if it is not kept."""

    path: Path
    sha256: str
    bytes: int
    cached: bool
    """True when it was built by an earlier run."""
    build_s: float
    """Seconds the build took, whenever it was."""
    report: BuildReport
    key: Mapping[str, Any]
    """What it was built from."""
    kept: bool = True
    """False when the file is for this run only."""

    def info(self) -> EngineInfo:
        """Return what results say about it."""
        return EngineInfo(
            sha256=self.sha256,
            path=str(self.path),
            cached=self.cached,
            build_s=self.build_s,
            bytes=self.bytes,
            layers=self.report.layers,
            notes=self.report.notes,
        )

    def discard(self) -> None:
        """Delete the file if it is for this run only; a cached engine stays."""
        if not self.kept:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.discard()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One engine in the cache, not verified."""

    path: Path
    bytes: int
    used: float
    """Seconds since the epoch of the last use."""


class EngineCache:
    """Owns one folder of engines, which several processes may use at once."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.built = 0
        """Engines built through this object; those that were there already do not count."""

    def get(
        self,
        key: Mapping[str, Any],
        build: Build,
        *,
        use_cache: bool = True,
        progress: Callable[[str], None],
        name: str = "engine",
    ) -> Engine:
        """Return the engine of ``key``, built by ``build(path)`` unless it is there already.

        ``key`` is JSON data: all that the engine depends on. ``name`` only makes the file easy to recognise. With
        ``use_cache=False`` the engine is always built, and ``Engine.discard`` deletes it.
        Raises what ``build`` raises, NotJudged when the disk is full, UsageError when the folder cannot be written.
        """
        path = self._path(key, name)
        with _disk_errors(self.folder):
            self._prepare()
            if not use_cache:
                scratch = _build(path.with_suffix(f".{_unique()}.tmp"), key, build, progress)
                self.built += 1
                return scratch
            with _locked(path, progress):
                engine, fault = _load(path, key)
                if engine is None:
                    if fault:
                        progress(f"engine cache: {fault}; building it again")
                    engine = _build_in_place(path, key, build, fault, progress)
                    self.built += 1
                    self._clean(keep=path)
                os.utime(path)
                return engine

    def holds(self, key: Mapping[str, Any], *, name: str = "engine") -> bool:
        """Return whether the engine of ``key`` is there, as far as its file's name says."""
        return self._path(key, name).is_file()

    def _path(self, key: Mapping[str, Any], name: str) -> Path:
        return self.folder / f"{_file_name(name)}-{key_hash(key)[:16]}.engine"

    def entries(self) -> list[Entry]:
        """Return every engine in the folder, the least recently used first."""
        found = []
        for path in self._files(_ENGINE):
            with contextlib.suppress(FileNotFoundError):  # another process may clean up at the same time
                stat = path.stat()
                found.append(Entry(path=path, bytes=stat.st_size, used=stat.st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def clear(self) -> int:
        """Delete every engine that no other process is building; return the number of bytes freed."""
        self._remove_stale()
        return sum(entry.bytes for entry in self.entries() if self._remove(entry.path))

    def _prepare(self) -> None:
        """Make the folder and the files that explain it, unless it already holds something of someone else's."""
        make_folder(self.folder)
        present = {path.name for path in self.folder.iterdir()}
        for name in _FILES.keys() - present if present <= _FILES.keys() else ():
            write_text(_FILES[name], self.folder / name)

    def _files(self, pattern: re.Pattern[str]) -> list[Path]:
        """Return the files whose names are of the cache's making; nothing else is ever deleted."""
        return [path for path in self.folder.glob("*") if pattern.fullmatch(path.name)]

    def _clean(self, keep: Path) -> None:
        """Delete what killed builds left behind, then the least recently used engines down to the limit."""
        self._remove_stale()
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            # One used a moment ago may be about to be loaded by another process.
            if total > self.limit_bytes and entry.path != keep and time.time() - entry.used > GRACE_S:
                total -= entry.bytes if self._remove(entry.path) else 0

    def _remove(self, path: Path) -> bool:
        """Delete an engine and its sidecar; False when another process holds its lock."""
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        except Timeout:
            return False
        return True

    def _remove_stale(self) -> None:
        for path in self._files(_TEMPORARY):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()


def key_hash(key: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the key as canonical JSON. Raises TypeError when it is not JSON data."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _build_in_place(
    path: Path, key: Mapping[str, Any], build: Build, fault: str, progress: Callable[[str], None]
) -> Engine:
    """Build under a temporary name, then put engine and sidecar in place; the lock of ``path`` is held."""
    for rest in path.parent.glob(f"{path.stem}.build-*.tmp"):  # of a build that was killed: nobody else has the lock
        rest.unlink(missing_ok=True)
    engine = _build(path.with_suffix(f".build-{_unique()}.tmp"), key, build, progress)
    path.with_suffix(".json").unlink(missing_ok=True)
    engine.path.replace(path)
    write_text(json.dumps(_sidecar(engine), indent=1), path.with_suffix(".json"))
    notes = (*engine.report.notes, *([f"rebuilt: {fault}"] if fault else []))
    return dataclasses.replace(engine, path=path, kept=True, report=dataclasses.replace(engine.report, notes=notes))


def _build(path: Path, key: Mapping[str, Any], build: Build, progress: Callable[[str], None]) -> Engine:
    """Build an engine that is not kept yet; nothing is left of it when that fails."""
    started = time.monotonic()
    try:
        report = build(path)
        build_s = time.monotonic() - started
        if not path.is_file() or path.stat().st_size == 0:
            raise EngineRefused(f"the backend reported success and wrote no engine to {path}")
        engine = Engine(
            path=path,
            sha256=_sha256(path),
            bytes=path.stat().st_size,
            cached=False,
            build_s=build_s,
            report=report,
            key=_plain(key),
            kept=False,
        )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    progress(f"built {path.name.split('.')[0]} in {build_s:.3g} s")
    return engine


def _load(path: Path, key: Mapping[str, Any]) -> tuple[Engine | None, str]:
    """Return the verified engine, or None and what is wrong with it; nothing is wrong when it is not there."""
    if not path.exists():
        return None, ""
    try:
        data = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        report = BuildReport(**{**data["report"], "notes": tuple(data["report"]["notes"])})
        known = (data["schema"], data["key"], data["bytes"], data["sha256"])
        build_s = float(data["build_s"])
    except FileNotFoundError:
        return None, f"{path.name} has no description beside it"
    except (ValueError, KeyError, TypeError):
        return None, f"{path.with_suffix('.json').name} cannot be read"
    if known[:2] != (SCHEMA, _plain(key)):
        return None, f"{path.name} was built from something else"
    size, sha256 = path.stat().st_size, _sha256(path)
    if known[2:] != (size, sha256):
        return None, f"{path.name} does not match its checksum"
    return Engine(
        path=path, sha256=sha256, bytes=size, cached=True, build_s=build_s, report=report, key=_plain(key)
    ), ""


def _sidecar(engine: Engine) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "sha256": engine.sha256,
        "bytes": engine.bytes,
        "build_s": engine.build_s,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "key": engine.key,
        "report": dataclasses.asdict(engine.report),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key as it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(key))
    return plain


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80] or "engine"


def _unique() -> str:
    return uuid.uuid4().hex[:8]


@contextlib.contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of an engine, so that two processes build it once."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that builds {path.stem}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a sentence."""
    try:
        yield
    except (OSError, CannotWrite) as error:
        if is_disk_full(error):
            raise NotJudged(
                f"no space left for engines in {folder}; free some, or set PARITY_ENGINES to another folder"
            ) from error
        if isinstance(error, CannotWrite) or (
            error.errno in _FOLDER_ERRORS and Path(str(error.filename)).is_relative_to(folder)
        ):
            raise UsageError(
                f"the engine folder {folder} cannot be written; set PARITY_ENGINES to another folder"
            ) from error
        raise
