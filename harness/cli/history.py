"""``parity accept`` makes recorded sessions the baseline; ``parity history`` shows, exports and imports records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness.arguments import as_path, at_least
from harness.cli import accuracy
from harness.cli.latency_options import add_history, add_series, open_history, selection
from harness.cli.options import Document, add_command, add_shared, chart, charts_folder, settings_of
from harness.errors import NotJudged, UsageError
from harness.files import file_name

MOVES = ("export", "import")


def add(commands: Any) -> None:
    """Add the commands."""
    accept = add_command(commands, "accept", _accept, "make a subject's latest sessions the baseline of this machine")
    add_series(accept)
    add_history(accept)
    add_shared(accept, "--lock-timeout")
    accept.add_argument("--why", required=True, metavar="TEXT", help="kept with the baseline")
    accept.add_argument(
        "--last", type=at_least(1), metavar="N",
        help="how many sessions; default: all since the last acceptance, at most 8",
    )  # fmt: skip
    accept.add_argument("--include", action="store_true", help="outliers too, which are left out by default")
    _add_accuracy(accept, "let trends of accuracy that rise begin anew, in the place of latencies")
    history = add_command(
        commands, "history", _history,
        "show what was recorded of a subject, with change points and drift; or move records: "
        "history export FORMAT FILE, history import FORMAT FILE",
    )  # fmt: skip
    add_series(history, optional=True)
    add_history(history)
    add_shared(history, "--lock-timeout")
    history.add_argument("move", nargs="*", metavar="FORMAT FILE", help="only after export or import: docs/history.md")
    _add_accuracy(history, "show the error of each output over its floor; SUBJECT is a name, a pattern or left out")
    history.add_argument("--machine", metavar="KEY", help="only with export: the records of this machine")
    history.add_argument("--json", type=as_path, metavar="FILE", help="write the series as JSON (docs/json.md)")


def _add_accuracy(parser: argparse.ArgumentParser, words: str) -> None:
    parser.add_argument("--accuracy", action="store_true", help=words)
    parser.add_argument(
        "--output", action="append", default=[], metavar="NAME", help="only with --accuracy: this output; repeatable"
    )


def _check_subject(options: argparse.Namespace) -> None:
    if options.output:
        raise UsageError("--output is for --accuracy; a latency is of all outputs")
    if options.subject is None:
        raise UsageError("history needs a SUBJECT; only with --accuracy it shows all that is recorded")


def _accept(options: argparse.Namespace) -> int:
    if options.accuracy:
        return accuracy.accept(options)
    _check_subject(options)
    from harness import latency
    from harness.report.text import accepted_text

    accepted = 0
    with open_history(options) as history:
        chosen = selection(options)
        for one in latency.accept(history, chosen, why=options.why, last=options.last, include=options.include):
            accepted += bool(one.sessions)
            print(f"{one.benchmark}: {one.problem or accepted_text(one.sessions, one.remarks)}")
    return 0 if accepted else 3


def _history(options: argparse.Namespace) -> int:
    if options.move or options.subject in MOVES:
        return _move(options)
    if options.accuracy:
        return accuracy.show(options)
    _check_subject(options)
    if options.machine:
        raise UsageError("--machine is for history export FORMAT FILE; the series of every machine are shown")
    from harness.latency import recorded_series
    from harness.report.plots import save_history
    from harness.report.text import history_text, series_of

    selected = selection(options)
    document = Document(options, settings_of(options))
    with open_history(options) as history:
        found = []
        for sessions in recorded_series(history, selected):
            acceptances = history.acceptances(sessions[-1].benchmark, sessions[-1].machine.key)
            found.append(series_of(sessions, acceptance=acceptances[-1] if acceptances else None))
    document.write(complete=True, history=found)
    if not found:
        name = selected.subject.name
        raise NotJudged(f"nothing is recorded of {name} as chosen: run parity bench {options.subject}")
    print(history_text(found))
    for one in found:
        name = file_name(one["benchmark"], one["machine_key"][:8], "history")
        chart(save_history, one, charts_folder(options) / name)
    return 0


def _move(options: argparse.Namespace) -> int:
    if options.subject not in MOVES or len(options.move) != 2:
        raise UsageError(
            f"history {' '.join([options.subject, *options.move])} is not complete; show a subject with history "
            "SUBJECT, or move records with history export FORMAT FILE or history import FORMAT FILE"
        )
    chosen = {"--case": options.case, "-b": options.backend, "-p": options.precision,
              "--sweep (or --batch)": options.sweep, "--json": options.json, "--accuracy": options.accuracy,
              "--output": options.output}  # fmt: skip
    if ignored := [name for name, value in chosen.items() if value]:
        raise UsageError(f"history {options.subject} moves all records; leave out {', '.join(ignored)}")
    if options.machine and options.subject == "import":
        raise UsageError("--machine is for history export; an import takes every record of its file")
    from harness.history import ONE_MACHINE
    from harness.machine import system_keys

    form, path = options.move[0], Path(options.move[1])
    with open_history(options) as history:
        if options.subject == "import":
            print(f"{path}: {history.import_(form, path)} new records")
            return 0
        here = system_keys() if form in ONE_MACHINE and not options.machine else ()
        count = history.export(form, path, machine_key=options.machine, here=here)
        print(f"{path}: {count} records written as {form}")
    return 0
