"""``parity accept``: recorded sessions become the baseline of this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from harness.cli.latency_options import add_history, add_series, open_history, selection
from harness.cli.options import add_command, at_least

if TYPE_CHECKING:
    from harness.latency import Accepted


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

    accepted = 0
    with open_history(options) as history:
        for one in latency.accept(history, selection(options), why=options.why, last=options.last):
            accepted += bool(one.sessions)
            print(f"{one.benchmark}: {one.problem or _words(one)}")
    return 0 if accepted else 3


def _words(accepted: Accepted) -> str:
    """Return how many sessions were accepted, the range of their times, and whether they are too few."""
    from harness.latency import FEWEST_SESSIONS
    from harness.report import session_latency
    from harness.report.text import ms

    sessions = accepted.sessions
    times = [found[0] for session in sessions if (found := session_latency(session.to_json())) is not None]
    count = f"{len(sessions)} session{'' if len(sessions) == 1 else 's'}"
    span = " to ".join(dict.fromkeys((ms(min(times)), ms(max(times)))))
    warning = f"; a regression counts from {FEWEST_SESSIONS} sessions on" if len(sessions) < FEWEST_SESSIONS else ""
    return f"accepted {count}, {span} ms{warning}"
