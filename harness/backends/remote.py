"""The engine cache that several runners share: a folder or an object store, whatever fsspec opens.

    objects/SHA256         the bytes of an engine, under the hash of its content
    engines/KEY.json       the description of the engine whose whole key has this hash; written last
    runtimes/SHA256-KEY    the runtime cache of an engine on one kind of machine
    incoming/              what is being written, on file systems where a name can be changed

An engine is code, so this is a place whose writers are trusted: docs/security.md. Nothing here raises for what is wrong
with the place. It is said once, and then the process does without.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from harness.arguments import REMOTE_MODES
from harness.backends.engine_file import Description, Engine, describe, fetch_in_place, key_hash, read_description
from harness.backends.runtime_file import RuntimeFile
from harness.errors import NotJudged, UsageError, first_line, install_hint
from harness.locks import Held, locked

TIMEOUT_S = 10.0
"""Seconds for an answer, for CHUNK bytes of an engine to come, and for as many to go."""
CHUNK = 4 * 2**20
MOST_DESCRIPTION = 16 * 2**20
MOST_RUNTIME = 2**30
LEFT_S = 24 * 3600.0
"""Age at which what a killed process left in ``incoming`` is deleted."""
_WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}
"""Where an object is there as a whole or not at all; elsewhere it gets its name once it is whole."""
_LOCAL = {"file", "local"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class Unusable(Exception):
    """The place gave no answer; the text says why."""


class Remote:
    """One shared engine cache, as one process sees it."""

    def __init__(self, url: str, mode: str) -> None:
        """Raise UsageError for a mode that is none, and where the package is missing that opens such a URL."""
        if mode not in REMOTE_MODES:
            raise UsageError(f"PARITY_ENGINES_REMOTE_MODE is {' or '.join(REMOTE_MODES)}, not {mode!r}")
        self._url, self.name, self.writes = url, shown(url), mode == "read-write"
        self.problem = ""
        """Why it is not used any more; empty while it is."""
        self._files: Any = None
        self._root = ""
        _check_installed(url)

    def fetch(self, path: Path, key: Mapping[str, Any], progress: Callable[[str], None]) -> Engine | None:
        """Return the engine of ``key``, downloaded to ``path`` and verified; None where there is none.

        One that does not match its description is thrown away. The lock of ``path`` is held. Raises OSError for what
        is wrong with the folder of ``path``.
        """
        return self._attempt(lambda: self._fetch(path, key, progress), None, progress)

    def offer(self, engine: Engine, progress: Callable[[str], None]) -> None:
        """Upload an engine unless it is there; the description goes last, so that half an engine is never found."""
        if self.writes:
            self._attempt(lambda: self._offer(engine, progress), None, progress)

    @contextlib.contextmanager
    def building(self, key: Mapping[str, Any], progress: Callable[[str], None]) -> Iterator[bool]:
        """Let one runner build an engine while others wait; yield whether another may have built it meanwhile.

        Only a folder that this process may write has such locks: from an object store two may build the same.
        """
        folder = self._attempt(self._lock_folder, None, progress) if self.writes else None
        with contextlib.ExitStack() as stack:
            if folder is not None:
                lock = folder / f"{key_hash(key)}.lock"
                try:
                    stack.enter_context(locked(lock, f"the build of engine {lock.stem[:16]}", waiting=progress))
                except (OSError, Held) as error:  # it is built twice, which is no fault
                    progress(f"{lock} cannot be waited for: {first_line(error)}")
            yield folder is not None

    def fetch_runtime(self, file: RuntimeFile, progress: Callable[[str], None]) -> None:
        """Download a runtime cache that is not here; one that does not fit is not kept."""
        fault = self._attempt(lambda: self._fetch_runtime(file), "", progress)
        if fault:
            progress(f"shared engine cache {self.name}: {file.path.name}: {fault}; not used")

    def offer_runtime(self, file: RuntimeFile, progress: Callable[[str], None]) -> None:
        """Upload a runtime cache that is larger than the one that is there."""
        if self.writes and file.read():
            self._attempt(lambda: self._offer_runtime(file), None, progress)

    def status(self) -> str:
        """Return how many engines it holds, or why it cannot be used: for ``parity doctor``."""
        return self._attempt(lambda: f"{len(self._list('engines'))} engines", "") or f"not used: {self.problem}"

    def clear(self, *, older_s: float = 0.0) -> tuple[int, int]:
        """Delete what is older than so many seconds; return how many engines and bytes that were.

        Raises UsageError where this process may not write, NotJudged where the place cannot be used.
        """
        if not self.writes:
            raise UsageError(f"{self.name} is read only here; give --engines-remote-mode read-write to empty it")
        done = self._attempt(lambda: self._clear(older_s), None)
        if done is None:
            raise NotJudged(f"{self.name} cannot be emptied: {self.problem}")
        return done

    def _fetch(self, path: Path, key: Mapping[str, Any], progress: Callable[[str], None]) -> Engine | None:
        described, fault = self._description(key)
        if described is not None:
            if self._size(f"objects/{described.sha256}") != described.bytes:
                fault = "is missing or not as large as its description says"
            else:
                progress(f"fetching {path.stem} ({described.bytes / 2**20:.3g} MiB) from {self.name}")
                engine, fault = fetch_in_place(path, key, described, self._read_object(described), self.name)
                if engine is not None:
                    return engine
        if fault:
            self._throw_away(key, described)
            end = "thrown away" if self.writes else "not used"
            progress(f"shared engine cache {self.name}: {path.stem} {fault}; {end}, and built here")
        return None

    def _offer(self, engine: Engine, progress: Callable[[str], None]) -> None:
        name, target = f"engines/{key_hash(engine.key)}.json", f"objects/{engine.sha256}"
        if self._size(name) is not None:
            return
        if self._size(target) != engine.bytes:
            local, seconds = str(engine.path), TIMEOUT_S * (1 + engine.bytes / CHUNK)
            self._publish(target, lambda place: self._files.put_file(local, place), seconds)
        content = describe(engine).encode()
        self._publish(name, lambda place: self._files.pipe_file(place, content))
        progress(f"shared {engine.path.stem} through {self.name}")

    def _fetch_runtime(self, file: RuntimeFile) -> str:
        """Return what is wrong with what is there; empty where nothing is."""
        place = self._place(_runtime_name(file))
        try:
            content = self._ask(self._files.cat_file, place, start=0, end=MOST_RUNTIME)
        except FileNotFoundError:
            return ""
        return file.take(bytes(content))

    def _offer_runtime(self, file: RuntimeFile) -> None:
        content, name = file.path.read_bytes(), _runtime_name(file)
        if (self._size(name) or 0) < len(content):
            seconds = TIMEOUT_S * (1 + len(content) / CHUNK)
            self._publish(name, lambda place: self._files.pipe_file(place, content), seconds)

    def _clear(self, older_s: float) -> tuple[int, int]:
        manifests = self._list("engines")
        old = {place for place in manifests if self._age_s(place) >= older_s}
        kept = {self._sha256_of(place) for place in manifests if place not in old}
        files = [place for folder in ("objects", "runtimes") for place in self._list(folder)]
        gone = [place for place in files if Path(place).name[:64] not in kept and self._age_s(place) >= older_s]
        freed = sum(self._size_at(place) or 0 for place in gone)
        for place in (*old, *gone):
            self._delete(place)
        return len(old), freed

    def _sha256_of(self, place: str) -> str:
        """Return the hash of the object that a description names; empty where it cannot be read."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads(self._ask(self._files.cat_file, place, start=0, end=MOST_DESCRIPTION))["sha256"])
        return ""

    def _description(self, key: Mapping[str, Any]) -> tuple[Description | None, str]:
        """Return what is said of the engine of a key, or None and what is wrong with it."""
        place = self._place(f"engines/{key_hash(key)}.json")
        try:
            content = self._ask(self._files.cat_file, place, start=0, end=MOST_DESCRIPTION)
        except FileNotFoundError:
            return None, ""
        described, fault = read_description(bytes(content), key)
        if described is not None and not _SHA256.fullmatch(described.sha256):
            return None, "has a description without a checksum"
        return described, fault

    def _read_object(self, described: Description) -> Iterator[bytes]:
        """Yield the content of an object in pieces, one byte more than it should have at most."""
        place = self._place(f"objects/{described.sha256}")
        file: BinaryIO = self._ask(self._files.open, place, "rb", block_size=CHUNK)
        left = described.bytes + 1
        try:
            while left and (chunk := self._ask(file.read, min(CHUNK, left))):
                left -= len(chunk)
                yield chunk
        finally:
            with contextlib.suppress(Unusable):
                self._ask(file.close)

    def _throw_away(self, key: Mapping[str, Any], described: Description | None) -> None:
        if self.writes:
            self._delete(self._place(f"engines/{key_hash(key)}.json"))
            if described is not None:
                self._delete(self._place(f"objects/{described.sha256}"))

    def _publish(self, name: str, write: Callable[[str], None], seconds: float | None = None) -> None:
        """Write a file so that its name leads to the whole of it."""
        final = self._place(name)
        if self._protocols() & _WHOLE_AT_ONCE:
            self._ask(write, final, seconds=seconds)
            return
        temporary = self._place(f"incoming/{uuid.uuid4().hex}")
        for place in (final, temporary):
            folder = place.rsplit("/", 1)[0]
            self._ask(self._files.makedirs, folder, exist_ok=True)
        for place in self._list("incoming"):
            if self._age_s(place) > LEFT_S:
                self._delete(place)
        try:
            self._ask(write, temporary, seconds=seconds)
            self._ask(self._files.mv, temporary, final, seconds=seconds)
        except BaseException:
            with contextlib.suppress(Unusable):
                self._delete(temporary)
            raise

    def _size(self, name: str) -> int | None:
        """Return the size of a file; None where there is none."""
        return self._size_at(self._place(name))

    def _size_at(self, place: str) -> int | None:
        try:
            size = self._ask(self._files.info, place)["size"]
        except FileNotFoundError:
            return None
        return int(size or 0)

    def _list(self, folder: str) -> list[str]:
        place = self._place(folder)
        try:
            return [str(found) for found in self._ask(self._files.ls, place, detail=False)]
        except FileNotFoundError:
            return []

    def _age_s(self, place: str) -> float:
        """Return how old a file is; 0 where it is gone."""
        try:
            modified: datetime.datetime = self._ask(self._files.modified, place)
        except FileNotFoundError:
            return 0.0
        return (datetime.datetime.now(datetime.UTC) - modified).total_seconds()

    def _delete(self, place: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(self._files.rm_file, place)

    def _place(self, name: str) -> str:
        """Return where a file lies, once the place is open."""
        if self._files is None:
            self._files, self._root = self._ask(self._open)
        return f"{self._root}/{name}"

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(self._url)
        if _LOCAL & _names(files) and not self.writes and not Path(root).is_dir():
            raise FileNotFoundError(f"there is no folder {root}")
        return files, str(root).rstrip("/")

    def _protocols(self) -> set[str]:
        return _names(self._files)

    def _lock_folder(self) -> Path | None:
        """Return where locks are kept; None where there are none."""
        folder = Path(self._place("locks"))
        if not self._protocols() & _LOCAL:
            return None
        self._ask(folder.mkdir, parents=True, exist_ok=True)
        return folder

    def _ask(self, call: Callable[..., _T], *arguments: Any, seconds: float | None = None, **options: Any) -> _T:
        """Return what a call gives within so many seconds. Raises FileNotFoundError, and Unusable for all else.

        It runs in a thread, which is left alone when it gives no answer: no library can be trusted with a time limit.
        """
        seconds = TIMEOUT_S if seconds is None else seconds
        answer: Future[_T] = Future()

        def run() -> None:
            try:
                answer.set_result(call(*arguments, **options))
            except BaseException as error:  # it is raised where it is waited for
                answer.set_exception(error)

        threading.Thread(target=run, daemon=True, name="parity-remote").start()
        try:
            return answer.result(seconds)
        except FileNotFoundError:
            if self._files is None:  # the place itself
                raise Unusable(f"there is no {self.name}") from None
            raise
        except TimeoutError:
            raise Unusable(f"no answer within {seconds:.0f} s") from None
        except Exception as error:
            said = first_line(error).replace(self._url, self.name)
            raise Unusable(f"{type(error).__name__}: {said}") from None

    def _attempt(
        self, call: Callable[[], _T], otherwise: _T, progress: Callable[[str], None] = lambda words: None
    ) -> _T:
        """Return what a call gives; from the first failure on, which is said once, do without the place."""
        if self.problem:
            return otherwise
        try:
            return call()
        except (Unusable, FileNotFoundError) as error:
            self.problem = first_line(error)
            progress(f"shared engine cache {self.name} is not used from here on: {self.problem}")
            return otherwise


def open_remote(url: str, mode: str) -> Remote | None:
    """Return the shared engine cache of this process at a URL; None for an empty one. Raises UsageError."""
    if url and "://" not in url:
        url = str(Path(url).absolute())  # whatever the current folder is when it is opened
    return _opened(url, mode) if url else None


@cache
def _opened(url: str, mode: str) -> Remote:
    return Remote(url, mode)


def shown(url: str) -> str:
    """Return a URL without what may be a secret: who logs in, and all that follows a question mark."""
    return re.sub(r"(://)[^/@\s]*@", r"\1", url.partition("?")[0])


def _check_installed(url: str) -> None:
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"{shown(url)}: fsspec is not installed; {install_hint('remote')}") from None
    protocol = url.partition("://")[0].split("::")[0] if "://" in url else "file"
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise UsageError(f"{shown(url)} cannot be opened: {first_line(error)}") from None
    except ValueError:
        raise UsageError(f"{shown(url)}: {protocol}:// is no kind of place that fsspec knows") from None


def _names(files: Any) -> set[str]:
    protocol = files.protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)


def _runtime_name(file: RuntimeFile) -> str:
    return f"runtimes/{file.key['engine']}-{key_hash(file.key)[:16]}"
