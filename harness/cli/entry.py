"""The entry points. What a command needs is imported in it, so that a signal is heeded from the first moment."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from harness.stopping import exit_status, stoppable, words


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status; SIGINT, SIGTERM and SIGHUP end it in one sentence."""
    with stoppable():
        return _run(argv)


def script() -> NoReturn:
    """Run the command of this process, and end it, whatever threads a suite has started and left."""
    with stoppable(for_good=True):
        status = _run(None)
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    if left:  # Python would wait for them
        print(f"parity: ended beside {len(left)} threads that a suite has started and not ended", file=sys.stderr)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _run(argv: Sequence[str] | None) -> int:
    try:
        from harness.cli import commands

        return commands.main(argv)
    except KeyboardInterrupt:  # while commands are imported
        print(f"parity: {words()}", file=sys.stderr, flush=True)
        return exit_status()
