"""What a GPU's library compiled when it loaded an engine, in a file beside the engine: the next process reads it.

TensorRT for RTX compiles an engine's kernels when a context is made, which takes seconds; its runtime cache holds them.
One file holds the cache of one engine on one kind of machine (GPU, driver, version): a line of JSON, then the bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.backends.engine_file import described_sha256, key_hash
from harness.errors import CannotWrite
from harness.files import write_bytes
from harness.locks import Held, locked

SCHEMA = "parity-runtime/1"
NAME = re.compile(r".+-[0-9a-f]{16}\.[0-9a-f]{16}\.runtime")
MOST_WAIT_S = 5.0
"""How long a process waits to write: the next one compiles again and writes then."""
_MOST_HEAD = 2**16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RuntimeFile:
    """The runtime cache of one engine on this machine; no method raises for what is wrong with the file."""

    engine: Path
    """The engine in the engine cache."""
    key: Mapping[str, str]
    """The engine's SHA-256, and what the compiled kernels depend on besides."""

    @property
    def path(self) -> Path:
        """Where it lies: beside the engine, under the start of the key's hash."""
        return self.engine.with_name(f"{self.engine.stem}.{key_hash(self.key)[:16]}.runtime")

    def read(self) -> bytes:
        """Return the cache, empty where there is none; a file that is damaged or of something else is thrown away."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self.discard(str(error))
            return b""
        head, _, cache = content.partition(b"\n")
        if fault := _fault(head, cache, self.key):
            self.discard(fault)
            return b""
        return cache

    def write(self, cache: bytes) -> bool:
        """Write the cache unless the file holds one that is as large; return whether it was written.

        Several processes may do so at once: each replaces the whole file, the largest stays. One that cannot be
        written is compiled again by the next process.
        """
        try:
            with locked(self.engine.with_suffix(".lock"), f"engine {self.engine.stem}", most_s=MOST_WAIT_S):
                if described_sha256(self.engine) != self.key["engine"] or len(self.read()) >= len(cache):
                    return False
                head = {"schema": SCHEMA, "key": self.key, "bytes": len(cache), "sha256": _sha256(cache)}
                write_bytes(json.dumps(head).encode() + b"\n" + cache, self.path)
        except (Held, CannotWrite, OSError) as error:
            _log.warning("the runtime cache %s is not written: %s", self.path.name, error)
            return False
        return True

    def take(self, content: bytes) -> str:
        """Write the file as another process wrote it elsewhere; return what is wrong with its content instead."""
        head, _, cache = content.partition(b"\n")
        fault = _fault(head, cache, self.key)
        if not fault:
            self.write(cache)
        return fault

    def discard(self, fault: str) -> None:
        """Throw the file away, and say why."""
        _log.warning("the runtime cache %s is thrown away and made again: %s", self.path.name, fault)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def runtime_file(engine: Path, environment: Mapping[str, str]) -> RuntimeFile | None:
    """Return where an engine's runtime cache belongs; None without an environment, or outside the engine cache."""
    sha256 = described_sha256(engine)
    return RuntimeFile(engine=engine, key={"engine": sha256, **environment}) if sha256 and environment else None


def _fault(head: bytes, cache: bytes, key: Mapping[str, str]) -> str:
    """Return what is wrong with the content of a file; empty where nothing is."""
    try:
        said: dict[str, Any] = json.loads(head[:_MOST_HEAD])
        known = (said["schema"], said["key"], said["bytes"], said["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its description cannot be read"
    if known[:2] != (SCHEMA, dict(key)):
        return "it was made for something else"
    return "" if known[2:] == (len(cache), _sha256(cache)) else "it does not match its checksum"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
