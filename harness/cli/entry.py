"""The entry points. What a command needs is imported in it, so that a signal is heeded from the first moment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from harness.stopping import end_at_once, exit_status, stoppable, words


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status; SIGINT, SIGTERM and SIGHUP end it in one sentence."""
    with stoppable():
        try:
            from harness.cli import commands

            return commands.main(argv)
        except KeyboardInterrupt:  # while commands are imported
            print(f"parity: {words()}", file=sys.stderr, flush=True)
            return exit_status()


def script() -> NoReturn:
    """Run the command of this process, and end it."""
    status = main()
    end_at_once()
    sys.exit(status)
