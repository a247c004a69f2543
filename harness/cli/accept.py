"""``parity accept``: recorded sessions become the baseline of this machine."""

from __future__ import annotations

import argparse
from typing import Any

from harness.cli.latency_options import add_history, add_series, open_history, selection
from harness.cli.options import add_command, at_least


def add(commands: Any) -> None:
    """Add the command."""
    accept = add_command(commands, "accept", run, "make a subject's latest sessions the baseline of this machine")
    add_series(accept)
    add_history(accept)
    accept.add_argument("--why", required=True, metavar="TEXT", help="kept with the baseline")
    accept.add_argument(
        "--last", type=at_least(1), metavar="N",
        help="how many sessions; default: all since the last acceptance, at most 8",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import latency
    from harness.report.text import accepted_text

    accepted = 0
    with open_history(options) as history:
        for one in latency.accept(history, selection(options), why=options.why, last=options.last):
            accepted += bool(one.sessions)
            words = one.problem or accepted_text(one.sessions, fewest=latency.FEWEST_SESSIONS)
            print(f"{one.benchmark}: {words}")
    return 0 if accepted else 3
