"""``parity list``: the subjects, their cases and targets, and where the weights come from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.cli.options import add_command


def add(commands: Any) -> None:
    """Add the command."""
    subjects = add_command(commands, "list", run, "list the subjects: cases, targets, where the weights come from")
    subjects.add_argument("--suites", type=Path, default=Path("suites"), metavar="DIR", help="default: suites")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import discovery
    from harness.report.text import subjects_table

    rows = discovery.list_subjects(options.suites)
    print(subjects_table(rows) if rows else f"no suites in {options.suites}: a suite is a file named test_*.py")
    return 0
