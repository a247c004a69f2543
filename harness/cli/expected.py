"""What a command is to judge or to time, written from its start: what a dead process did not get to is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.records import Measured, NotMeasured
    from harness.subject import Subject, Target

Json = dict[str, Any]


def manifest_of(path: Path, subject: Subject) -> Json:
    """Return what a manifest expects of one subject. Raises UsageError for none, and where it expects nothing of it."""
    from harness.arrivals import read_manifest

    manifest = read_manifest(path)
    ours = [entry for entry in manifest["expected"] if entry["subject"] == subject.name]
    if not ours:
        raise UsageError(f"--expect: {path} expects nothing of {subject.name}; write it again: parity list --json FILE")
    return {**manifest, "expected": ours}


def to_judge(
    subject: Subject, targets: Sequence[Target], cases: Sequence[str], sizes: Sequence[Mapping[str, int]] | None = None
) -> list[Json]:
    """Return what is to be judged; with ``sizes`` what is to be timed, at each combination of them."""
    return [
        {
            "subject": subject.name, "case": case, "backend": target.backend, "precision": target.precision_name,
            "source": subject.source, "owner": subject.owner, **one,
        }
        for target in targets
        for case in cases
        for one in ([{}] if sizes is None else [{"sizes": dict(size)} for size in sizes])
    ]  # fmt: skip


def with_arrived(expected: Iterable[Json], found: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Return what is expected, each with whether something was found of it; ``found`` are records."""
    there = [_key(one) for one in found]
    return [{**one, "arrived": _key(one) in there} for one in expected]


def timed(found: Iterable[Measured | NotMeasured]) -> list[Json]:
    """Return the engines, and PyTorch as a target, of which there are figures or a reason for none."""
    from harness.records import Measured

    return [item.session.to_json() if isinstance(item, Measured) else item.to_json() for item in found]


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    from harness.records import name_of

    return name_of(record), record.get("sizes", {})
