"""References on disk: those a repository keeps, and outputs that an earlier run computed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes

from harness.errors import CannotWrite, UsageError
from harness.files import check_is_content, file_name, make_folder, write_bytes, write_text
from harness.sentences import Sentence
from harness.temporary import held
from harness.tensors import Tensors, on_cpu

SCHEMA = "parity-reference/1"
_WHAT = {
    "weights": Sentence("the_weights"), "inputs": Sentence("the_inputs"), "program": Sentence("the_program"),
    "valid": Sentence("valid_mask"),
}  # fmt: skip
BEFORE = "before"
"""In the JSON while a reference is written: what describes the tensors that are still there."""


class OutputCache:
    """Outputs that PyTorch computed earlier, in files named after everything they were computed from.

    A file is a SHA-256 digest, a line of JSON with the run's notes, and safetensors data. One that does not match its
    digest is computed again.
    """

    LIMIT_BYTES = 2**30
    SCANS = 64
    """The folder is looked through again once this part of the limit was written: not at every output."""

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        self.folder, self.enabled = folder, enabled
        self._room = 0
        """Bytes that may be written before the folder is looked through again."""

    def get(
        self,
        key: Mapping[str, Any],
        compute: Callable[[], tuple[Tensors, tuple[str, ...]]],
        device: torch.device,
        *,
        anew: bool = False,
    ) -> tuple[Tensors, tuple[str, ...]]:
        """Return the outputs and notes for a key, computing and keeping them where there are none, or ``anew``."""
        if not self.enabled:
            return compute()
        path = self.folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.outputs"
        with contextlib.suppress(OSError):  # there is none, or it cannot be read
            content = b"" if anew else path.read_bytes()
            if content and hashlib.sha256(content[32:]).digest() == content[:32]:
                notes, _, data = content[32:].partition(b"\n")
                outputs = {name: tensor.to(device) for name, tensor in load_tensors(data).items()}
                return outputs, tuple(json.loads(notes))
        outputs, lines = compute()
        data = tensors_to_bytes(on_cpu(outputs))
        content = json.dumps(lines).encode() + b"\n" + data
        with contextlib.suppress(OSError, CannotWrite):  # a full disk costs time in the next run, nothing else
            write_bytes(hashlib.sha256(content).digest() + content, path)
            self._room -= len(content)
            if self._room <= 0:
                self._shrink(self.LIMIT_BYTES)
        return outputs, lines

    def clear(self) -> int:
        """Remove everything and return the bytes freed."""
        return self._shrink(0)

    def _shrink(self, limit: int) -> int:
        """Remove the oldest files until the rest fits the limit; return the bytes freed."""
        found = []
        for file in self.folder.glob("*.outputs"):
            with contextlib.suppress(FileNotFoundError):  # another process may do the same
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        total = whole = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= limit:
                break
            file.unlink(missing_ok=True)
            total -= size
        self._room = min(limit - total, limit // self.SCANS)
        return whole - total


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a stored reference belongs to."""

    weights_sha256: str
    """Hash of the weights, see :func:`harness.tensors.sha256_of`."""
    inputs_sha256: str
    """The same of the case's inputs."""
    valid_sha256: str = ""
    """The same of the masks of what counts; empty where all does."""
    program_sha256: str
    """Hash of the traced program."""
    torch: str
    """The torch version: another one exports another text for the same model."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A reference read from disk."""

    fp32: Tensors
    """The outputs in FP32, by name."""
    fp64: Tensors
    """The same in FP64."""
    provenance: dict[str, Any]
    """What was stored beside them: device, versions, commit."""


def update_command(typed: str, case: str) -> str:
    """Return the command that computes a stored reference again."""
    return f"parity reference {typed} --case {shlex.quote(case)}"


def _record_of(record: Any, tensors: bytes) -> dict[str, Any] | None:
    """Return the record of these tensors: this one, or the one before; None where neither is."""
    digest = hashlib.sha256(tensors).hexdigest()
    both = (record, record.get(BEFORE)) if isinstance(record, dict) else ()
    return next((one for one in both if isinstance(one, dict) and one.get("tensors_sha256") == digest), None)


class StaleReference(UsageError):
    """A stored reference belongs to other weights, inputs or another program."""


class ReferenceStore:
    """References on disk: ``<folder>/<subject>/<case>.safetensors`` and ``.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, subject: str, case: str) -> Path:
        """Return where a case's tensors are kept."""
        return self.folder / file_name(subject) / f"{file_name(case)}.safetensors"

    def save(
        self, subject: str, case: str, identity: Identity, *, fp32: Tensors, fp64: Tensors, provenance: dict[str, Any]
    ) -> Path:
        """Write a reference, which one process does at a time.

        The JSON holds the tensors' checksum. Until the new tensors are there it describes the old ones as well, so that
        one that is broken off between two files loses neither. Raises CannotWrite.
        """
        path = self.path(subject, case)
        tensors = {f"fp32/{name}": value for name, value in fp32.items()}
        tensors |= {f"fp64/{name}": value for name, value in fp64.items()}
        data = tensors_to_bytes(on_cpu(tensors))
        record = {
            "schema": SCHEMA,
            **dataclasses.asdict(identity),
            "tensors_sha256": hashlib.sha256(data).hexdigest(),
            **provenance,
        }
        make_folder(path.parent)
        with held(path.parent):
            old = self._described(path)
            if old:
                write_text(json.dumps({**record, BEFORE: old}, indent=2) + "\n", path.with_suffix(".json"))
            write_bytes(data, path)
            write_text(json.dumps(record, indent=2) + "\n", path.with_suffix(".json"))
        return path

    def source(self, subject: str, case: str) -> str:
        """Return which file declares the subject of a stored reference; empty where there is none that says so."""
        try:
            record = json.loads(self.path(subject, case).with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return ""
        return str(record.get("source", "")) if isinstance(record, dict) else ""

    @staticmethod
    def _described(path: Path) -> dict[str, Any]:
        """Return the record of the tensors that are stored; empty where there are none, or not those of a record."""
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            return _record_of(record, path.read_bytes()) or {}
        except (OSError, ValueError, RecursionError):
            return {}

    def load(self, subject: str, case: str, identity: Identity, *, typed: str = "") -> Stored | None:
        """Return the stored reference, or None when there is none.

        ``typed`` is what reaches the subject on the command line, where that is not its name.
        Raises StaleReference when it belongs to something else or its file is damaged; the text says what changed.
        """
        path = self.path(subject, case)
        if not path.exists() and not path.with_suffix(".json").exists():
            return None
        again = Sentence("run_command", update_command=update_command(typed or shlex.quote(subject), case))
        for file in (path, path.with_suffix(".json")):
            check_is_content(file)
        try:
            with held(path.parent):  # nobody writes between the two
                data, text = path.read_bytes(), path.with_suffix(".json").read_text(encoding="utf-8")
            record = _record_of(json.loads(text), data)
        except (FileNotFoundError, ValueError, RecursionError) as error:
            raise StaleReference(Sentence("stored_unread", path=path, error=error, again=again)) from error
        except OSError as error:
            raise UsageError(f"stored reference {error.filename} cannot be read: {error.strerror}; {again}") from error
        if record is None:
            raise StaleReference(Sentence("stored_damaged", path=path, again=again))
        if changed := self._changes(record, identity):
            raise StaleReference(Sentence("stored_stale", path=path, changed=changed, again=again))
        tensors = load_tensors(data)
        return Stored(
            fp32={name.removeprefix("fp32/"): value for name, value in tensors.items() if name.startswith("fp32/")},
            fp64={name.removeprefix("fp64/"): value for name, value in tensors.items() if name.startswith("fp64/")},
            provenance=record,
        )

    @staticmethod
    def _changes(record: Mapping[str, Any], identity: Identity) -> list[str]:
        names = ["weights", "inputs", "valid"]
        if record.get("torch") == identity.torch:  # the program's text compares only under one exporter
            names.append("program")
        changes: list[str] = []
        for name in names:
            key = f"{name}_sha256"
            before, now = str(record.get(key, "" if name == "valid" else None)), getattr(identity, key)
            if before != now:
                what = _WHAT[name]
                none = Sentence("nothing_here")
                changes.append(Sentence("stale_change", what=what, before=before[:8] or none, now=now[:8] or none))
        return changes
