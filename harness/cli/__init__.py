"""The command line: one module per command, or per group of short ones.

A module adds its options, calls one function of the packages below, prints the result and returns the exit status.
"""

from __future__ import annotations

from harness.cli.entry import main, script

__all__ = ["main", "script"]
