"""``parity noise``: the smallest change that this machine can show, from one engine timed against itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness import limits, stopping
from harness.arguments import as_path, at_least
from harness.cli.expected import timed, to_judge, with_arrived
from harness.cli.latency_options import add_measuring, measuring
from harness.cli.options import Document, add_command, ended_by, request_of, settings_of
from harness.settings import print_progress

if TYPE_CHECKING:
    from harness.records import Measured, NotMeasured


def add(commands: Any) -> None:
    """Add the command."""
    noise = add_command(
        commands, "noise", run, "time an engine against itself: the smallest change that this machine can show",
        aliases=["aa"],
    )  # fmt: skip
    add_measuring(noise)
    noise.add_argument("--sessions", type=at_least(2), default=4, metavar="N", help="default: 4")
    noise.add_argument("--json", type=as_path, metavar="FILE", help="write the figures as JSON (docs/json.md)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import latency
    from harness.report.text import noise_text

    subject, targets, cases = request_of(options)
    sizes, settings = latency.combinations(subject, options.sweep), settings_of(options)
    document = Document(options, settings)

    def report_of(found: Sequence[Measured | NotMeasured], *, complete: bool = False) -> dict[str, Any]:
        report = latency.noise_report(found, complete=complete)
        return {**report, "expected": with_arrived(expected, timed(found))}

    expected = to_judge(subject, targets, cases, sizes)
    document.start(**report_of([]))
    measured = latency.measure_noise(
        subject, targets=targets, cases=cases, settings=settings, sizes=sizes, sessions=options.sessions,
        options=measuring(options),
    )  # fmt: skip
    found, interrupted = document.collect(measured, report_of, lambda found: None)
    report = report_of(found, complete=not interrupted)
    with document.written(interrupted=interrupted, **report):
        if report["aa"]:
            print(noise_text(report["aa"]))
        for item in report["not_measured"]:
            what = f"{item['backend']}-{item['precision']} {item['case']}"
            print_progress(f"{what}: not measured: {item['reason']}")
    if interrupted:
        print_progress(f"{ended_by()}; at least two whole sessions of an engine make a row")
        return stopping.exit_status() if limits.time_was_up() is None else 3
    return 0 if report["aa"] else 3
