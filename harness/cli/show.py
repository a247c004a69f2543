"""``parity doctor``: this machine and its backends; ``parity list``: the subjects."""

from __future__ import annotations

import argparse
from typing import Any

from harness.cli.options import (
    Document,
    add_command,
    add_folders,
    add_suites,
    as_path,
    settings_of,
)


def add(commands: Any) -> None:
    """Add the commands."""
    doctor = add_command(
        commands, "doctor", _doctor, "show the machine, and every backend's version or why it is missing"
    )
    doctor.add_argument("--json", type=as_path, metavar="FILE", help="write the same as JSON")
    add_folders(doctor)
    add_suites(add_command(commands, "list", _list, "list the subjects: cases, targets, where the weights come from"))


def _doctor(options: argparse.Namespace) -> int:
    from harness.backends import environment
    from harness.report.text import machine_text

    settings = settings_of(options)
    document = Document(options, settings)
    document.write(complete=True)
    print(machine_text(document.environment or environment(settings)))
    return 0


def _list(options: argparse.Namespace) -> int:
    from harness import discovery
    from harness.report.text import subjects_table

    rows = discovery.list_subjects(options.suites)
    print(subjects_table(rows) if rows else f"no suites in {options.suites}: a suite is a file named test_*.py")
    return 0
