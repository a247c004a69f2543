"""Accuracy over time on the command line: ``parity history --accuracy``, ``parity accept --accuracy``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from harness.cli.latency_options import add_history, open_history
from harness.cli.options import Document, add_shared, settings_of
from harness.errors import NotJudged, UsageError

if TYPE_CHECKING:
    from harness.records import AccuracyTrend


def add_recording(parser: argparse.ArgumentParser) -> None:
    """Add whether a run goes into the history, and what a rise does."""
    add_history(parser)
    parser.add_argument(
        "--no-record", action="store_true", help="leave the history as it is (PARITY_NO_ACCURACY_RECORD=1)"
    )
    add_shared(parser, "--fail-on-creep")


def show(options: argparse.Namespace) -> int:
    """Show the trends that are asked for, and write them."""
    from harness.history import accuracy_trends
    from harness.report.text import accuracy_text

    _check(options)
    document = Document(options, settings_of(options))
    with open_history(options) as history:
        every = accuracy_trends(history)
    found = [trend for trend in every if _is_chosen(trend, options)]
    data = [trend.to_json() for trend in found]
    document.write(complete=True, accuracy_history=data)
    if not found:
        raise NotJudged(_nothing(options, every))
    newest = {_place(trend): i for i, trend in sorted(enumerate(found), key=lambda one: _newest(one[1]))}
    shown = [one for i, one in enumerate(data) if newest[_place(found[i])] == i]
    print(accuracy_text(shown, hidden=len(data) - len(shown)))
    return 0


def accept(options: argparse.Namespace) -> int:
    """Accept the level of every series that rises: its trend begins anew with its newest run."""
    from harness.history import accept_rises, accuracy_trends
    from harness.machine import commit
    from harness.report.text import trend_name

    _check(options)
    settings = settings_of(options)
    with open_history(options) as history:
        history.check_readable("nothing was accepted")
        every = accuracy_trends(history)
        rising = [trend for trend in every if _is_chosen(trend, options) and trend.creeps]
        if not rising:
            raise NotJudged(f"no accuracy of {options.subject} rises as chosen, so nothing was accepted")
        accept_rises(history, rising, options.why, commit(settings.root))
    for trend in rising:
        print(f"{trend_name(trend.to_json())} {trend.output}: accepted, {trend.last:.3g} floors")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise UsageError for options that are about latencies."""
    given = {"--sweep (or --batch)": options.sweep, "--inputs": options.inputs, "--shape": options.shape,
             "--machine": vars(options).get("machine"), "--last": vars(options).get("last"),
             "--include": vars(options).get("include")}  # fmt: skip
    if ignored := [name for name, value in given.items() if value]:
        raise UsageError(f"--accuracy goes by names alone; leave out {', '.join(ignored)}")


def _is_chosen(trend: AccuracyTrend, options: argparse.Namespace) -> bool:
    """Return whether names and patterns (``clip*``) take a trend; a list that is empty takes all."""
    asked = (
        ([options.subject] if options.subject else [], trend.subject), (options.case, trend.case),
        (options.backend, trend.backend), (options.precision, trend.precision), (options.output, trend.output),
    )  # fmt: skip
    return all(not names or any(fnmatchcase(value, name) for name in names) for names, value in asked)


def _nothing(options: argparse.Namespace, every: Sequence[AccuracyTrend]) -> str:
    known = ", ".join(dict.fromkeys(trend.subject for trend in every))
    what = f"of {options.subject} as chosen" if options.subject else "as chosen"
    return f"no accuracy {what} is recorded; recorded are: {known or 'none, run parity verify or pytest first'}"


def _place(trend: AccuracyTrend) -> tuple[str, ...]:
    """Return what series of one output share that differ in weights, inputs or the content of a plan."""
    plan = trend.plan_source.partition("@")[0]
    return (trend.subject, trend.case, trend.backend, trend.precision, trend.source, plan, trend.output, trend.device)


def _newest(trend: AccuracyTrend) -> str:
    return trend.points[-1].recorded_at
