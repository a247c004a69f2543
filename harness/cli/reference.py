"""``parity reference``: the stored references of a subject, made or updated."""

from __future__ import annotations

import argparse
from typing import Any

from harness.cli.options import add_cases, add_command, add_computing, add_subject, request_of, settings_of


def add(commands: Any) -> None:
    """Add the command."""
    reference = add_command(commands, "reference", run, "make or update a subject's stored references")
    add_subject(reference)
    add_cases(reference)
    add_computing(reference)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import verify

    subject, _, cases = request_of(options)
    for path in verify.update_references(subject, cases, settings_of(options)):
        print(f"wrote {path}")
    return 0
