"""An engine file and the description beside it: built under another name, put in place, verified when it is found.

An engine file is code that a GPU runs: load only engines from a trusted origin. The checksum finds a file that was cut
short, corrupted or exchanged by accident; it does not protect from anyone who can write into the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.backends.base import BuildReport
from harness.errors import EngineRefused, UsageError
from harness.files import write_text
from harness.records import EngineInfo
from harness.sentences import Sentence
from harness.temporary import Temporary

SCHEMA = "parity-engine/1"
Build = Callable[[Path], BuildReport]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine file, verified a moment ago."""

    path: Path
    sha256: str
    bytes: int
    cached: bool
    """True when it was built by an earlier run, or by another runner."""
    build_s: float
    """Seconds the build took, whenever it was."""
    report: BuildReport
    key: Mapping[str, Any]
    """What it was built from."""
    temporary: Temporary | None = None
    """What holds the file when it is for this run only."""
    is_fetched: bool = False
    """True when it was downloaded a moment ago."""
    fetched_from: str = ""
    """The shared cache that it was downloaded from, now or by an earlier run; empty where it was built here."""

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
            origin="remote" if self.is_fetched else "cached" if self.cached else "built",
            fetched_from=self.fetched_from,
        )

    def discard(self) -> None:
        """Delete the file if it is for this run only; a cached engine stays."""
        if self.temporary is not None:
            self.temporary.close()


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the JSON of an engine says of it; not verified."""

    sha256: str
    bytes: int
    build_s: float
    report: BuildReport
    fetched_from: str

    def engine(self, path: Path, key: Mapping[str, Any]) -> Engine:
        """Return the engine of a file that was found to be what is described."""
        return Engine(
            path=path,
            sha256=self.sha256,
            bytes=self.bytes,
            cached=True,
            build_s=self.build_s,
            report=self.report,
            key=_plain(key),
            fetched_from=self.fetched_from,
        )


def key_hash(key: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the key as canonical JSON. Raises TypeError when it is not JSON data."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def build_in_place(
    path: Path, key: Mapping[str, Any], build: Build, fault: str, progress: Callable[[str], None]
) -> Engine:
    """Build under a temporary name, then put engine and sidecar in place; the lock of ``path`` is held."""
    engine = _place(path, build_engine(path, key, build, progress))
    notes = (*engine.report.notes, *([Sentence("rebuilt_since", fault=fault)] if fault else []))
    return dataclasses.replace(engine, report=dataclasses.replace(engine.report, notes=notes))


def fetch_in_place(
    path: Path, key: Mapping[str, Any], described: Description, content: Iterable[bytes], source: str
) -> tuple[Engine | None, str]:
    """Write what comes from a shared cache under another name, and put it in place if it is what is described.

    Returns None and what is wrong with it otherwise. The lock of ``path`` is held.
    """
    temporary, digest, size = Temporary(path.parent), hashlib.sha256(), 0
    try:
        with open(temporary.descriptor, "wb", closefd=False) as file:
            for chunk in content:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        if (size, digest.hexdigest()) != (described.bytes, described.sha256):
            return None, Sentence("checksum_differs")
        engine = described.engine(temporary.path, key)
        engine = dataclasses.replace(engine, temporary=temporary, is_fetched=True, fetched_from=source)
        return _place(path, engine), ""
    finally:
        temporary.close()


def _place(path: Path, engine: Engine) -> Engine:
    """Give an engine its name, and describe it beside."""
    assert engine.temporary is not None
    try:
        os.fsync(engine.temporary.descriptor)
        path.with_suffix(".json").unlink(missing_ok=True)
        engine.path.replace(path)
        write_text(describe(engine), path.with_suffix(".json"))
    finally:
        engine.discard()
    return dataclasses.replace(engine, path=path, temporary=None)


def build_engine(final: Path, key: Mapping[str, Any], build: Build, progress: Callable[[str], None]) -> Engine:
    """Build an engine under a temporary name beside ``final``; nothing is left of it when that fails."""
    started = time.monotonic()
    temporary = Temporary(final.parent)
    path = temporary.path
    try:
        report = build(path)
        build_s = time.monotonic() - started
        if not path.is_file() or path.stat().st_size == 0:
            raise EngineRefused(Sentence("no_engine_written", path=path))
        engine = Engine(
            path=path,
            sha256=_sha256(path),
            bytes=path.stat().st_size,
            cached=False,
            build_s=build_s,
            report=report,
            key=_plain(key),
            temporary=temporary,
        )
    except BaseException:
        temporary.close()
        raise
    progress(f"built {final.stem} in {build_s:.3g} s")
    return engine


def find_engine(path: Path, key: Mapping[str, Any]) -> tuple[Engine | None, str]:
    """Return the verified engine, or None and what is wrong with it; nothing is wrong when it is not there."""
    if not path.exists():
        return None, ""
    for file in (path, path.with_suffix(".json")):
        if file.exists() and not file.is_file():
            raise UsageError(f"{file} is no file, but an engine belongs there; remove it, or give another --engines")
    try:
        described, fault = read_description(path.with_suffix(".json").read_bytes(), key)
    except FileNotFoundError:
        return None, Sentence("no_description", name=path.name)
    if described is None:
        return None, Sentence("name_fault", name=path.name, fault=fault)
    try:
        size, sha256 = path.stat().st_size, _sha256(path)
    except FileNotFoundError:  # another process empties the cache
        return None, ""
    if (described.bytes, described.sha256) != (size, sha256):
        return None, Sentence("name_checksum_differs", name=path.name)
    return described.engine(path, key), ""


def read_description(content: bytes, key: Mapping[str, Any]) -> tuple[Description | None, str]:
    """Return what an engine's JSON says, or None and what is wrong with it: it must be that of ``key``."""
    try:
        data = json.loads(content)
        is_of = (data["schema"], data["key"])
        described = Description(
            sha256=str(data["sha256"]),
            bytes=int(data["bytes"]),
            build_s=float(data["build_s"]),
            report=BuildReport(**{**data["report"], "notes": tuple(map(str, data["report"]["notes"]))}),
            fetched_from=str(data.get("fetched_from", "")),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, Sentence("description_unread")
    return (described, "") if is_of == (SCHEMA, _plain(key)) else (None, Sentence("built_of_else"))


def described_sha256(path: Path) -> str:
    """Return the SHA-256 that the description beside an engine names; empty where there is none to read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return str(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"])
    return ""


def describe(engine: Engine) -> str:
    """Return the JSON that lies beside an engine."""
    data = {
        "schema": SCHEMA,
        "sha256": engine.sha256,
        "bytes": engine.bytes,
        "build_s": engine.build_s,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fetched_from": engine.fetched_from,
        "key": engine.key,
        "report": dataclasses.asdict(engine.report),
    }
    return json.dumps(data, indent=1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key as it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(key))
    return plain
