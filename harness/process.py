"""Python processes that this one starts: how they are started, and in what words their end is told."""

from __future__ import annotations

import os
import signal
import sys

from harness.sentences import Sentence

for_one_engine = False
"""Whether this process was started for one engine alone, so that a crash of it takes nothing along."""


def python_child(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs a module in a process of its own, and an environment in which it imports the same.

    The environment is a fresh dict, to be added to.
    """
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100
    return [sys.executable, "-P", "-m", module, *arguments], {**os.environ, "PYTHONPATH": path}


def how_it_ended(status: int) -> str:
    """Return ``ended with status 1``, or ``died with signal 9 (SIGKILL, as when memory runs out)``."""
    if status >= 0:
        return Sentence("ended_with_status", status=status)
    names = {known.value: known.name for known in signal.Signals}
    hint = Sentence("memory_hint") if -status == signal.SIGKILL else ""
    return Sentence("died_with_signal", it=-status, get=names.get(-status, "no name"), hint=hint)
