"""The command line: one module per command.

A module says what its options are, calls one function of the packages below, prints what comes back and returns the
exit status.
"""

from __future__ import annotations

from harness.cli.commands import main

__all__ = ["main"]
