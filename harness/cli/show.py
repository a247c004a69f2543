"""``parity doctor``: this machine and its backends; ``parity list``: the subjects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from harness.arguments import as_path
from harness.cli.options import Document, add_command, add_folders, add_suites, settings_of
from harness.errors import UsageError


def add(commands: Any) -> None:
    """Add the commands."""
    doctor = add_command(
        commands, "doctor", _doctor, "show the machine, and every backend's version or why it is missing"
    )
    doctor.add_argument("--json", type=as_path, metavar="FILE", help="write the same as JSON")
    add_folders(doctor)
    listing = add_command(commands, "list", _list, "list the subjects: cases, targets, where the weights come from")
    add_suites(listing)
    listing.add_argument(
        "-b", "--backend", action="append", default=[], metavar="BACKEND", help="only targets of it; repeatable"
    )
    listing.add_argument("--json", type=as_path, metavar="FILE", help="write a manifest, for pytest --expect")
    listing.set_defaults(records=False)


def _doctor(options: argparse.Namespace) -> int:
    from harness.backends import engine_cache, environment
    from harness.report.text import machine_text

    settings = settings_of(options)
    document = Document(options, settings)
    document.write(complete=True)
    print(machine_text(document.environment or environment(settings)))
    if (remote := engine_cache(settings).remote) is not None:
        print(f"shared engine cache: {remote.status()}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from harness import discovery
    from harness.records import save_json
    from harness.report.text import subjects_table

    discovery.check_backends(options.backend)
    rows = [_of_backends(row, options.backend) for row in discovery.list_subjects(options.suites)]
    if options.json:
        save_json(_manifest(rows), options.json)
        print(f"wrote {options.json}")
        return 0
    print(subjects_table(rows) if rows else f"no suites in {options.suites}: a suite is a file named test_*.py")
    return 0


def _of_backends(row: dict[str, Any], backends: Sequence[str]) -> dict[str, Any]:
    """Return a suite with its targets on these backends; without any given, with all."""
    if not backends or row["problem"]:
        return row
    kept = [(pair, name) for pair, name in zip(row["pairs"], row["targets"], strict=True) if pair[0] in backends]
    return {**row, "pairs": [pair for pair, _ in kept], "targets": [name for _, name in kept]}


def _manifest(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the suites declare to be judged. Raises UsageError where one cannot be loaded."""
    if broken := [f"{row['path']}: {row['problem']}" for row in rows if row["problem"]]:
        raise UsageError(f"no manifest is written, since {len(broken)} suites cannot be loaded: {'; '.join(broken)}")
    expected = [
        {"subject": row["subject"], "case": case, "backend": backend, "precision": precision}
        for row in rows
        for backend, precision in row["pairs"]
        for case in row["cases"]
    ]
    if not expected:
        raise UsageError("no manifest is written: there is no suite with such a target, so nothing could be missing")
    return {"schema": "parity-manifest/1", "expected": expected}
