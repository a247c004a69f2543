"""``parity doctor``: this machine, and every backend's version or why it is missing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.cli.options import Document, add_command, add_folders, settings_of


def add(commands: Any) -> None:
    """Add the command."""
    doctor = add_command(commands, "doctor", run, "show the machine, and every backend's version or why it is missing")
    doctor.add_argument("--json", type=Path, metavar="FILE", help="write the same as JSON")
    add_folders(doctor)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness.backends import environment
    from harness.report.text import machine_text

    settings = settings_of(options)
    document = Document(options, settings)
    print(machine_text(document.environment or environment(settings)))
    document.write(complete=True)
    return 0
