"""Python processes that this one starts: how they are started, and in what words their end is told."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path


def python_child(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs a module in a process of its own, and an environment in which it imports the same.

    The environment is a fresh dict, to be added to.
    """
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100
    return [sys.executable, "-P", "-m", module, *arguments], {**os.environ, "PYTHONPATH": path}


def available_bytes() -> int:
    """Return how much memory this process may still take: what the machine has free, or less where a group limits it.

    Raises nothing: where the system does not tell, it is 2**62.
    """
    free = [2**62]
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        most, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        free.append(most - used)
    return max(0, min(free))


def how_it_ended(status: int) -> str:
    """Return ``ended with status 1``, or ``died with signal 9 (SIGKILL, as when memory runs out)``."""
    if status >= 0:
        return f"ended with status {status}"
    names = {known.value: known.name for known in signal.Signals}
    hint = ", as when memory runs out" if -status == signal.SIGKILL else ""
    return f"died with signal {-status} ({names.get(-status, 'no name')}{hint})"
