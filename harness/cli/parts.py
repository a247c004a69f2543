"""``parity parts``: bring a model up module by module, each as an engine of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import stopping
from harness.arguments import as_path
from harness.cli.known import ledger_of
from harness.cli.options import (
    Document,
    add_cases,
    add_choice,
    add_command,
    add_computing,
    add_shared,
    add_subject,
    request_of,
    settings_of,
)
from harness.settings import print_progress

if TYPE_CHECKING:
    from harness.bringup import BringingUp
    from harness.ledger import Ledger
    from harness.subject import Subject


def add(commands: Any) -> None:
    """Add the command."""
    parts = add_command(commands, "parts", run, "build and verify the modules of a model one by one, as they run")
    add_subject(parts)
    add_cases(parts)
    add_choice(parts)
    parts.add_argument(
        "--prefix", default="", metavar="MODULE",
        help="the module whose children are built, such as encoder.layer; default: the subject's parts=, else the "
        "first level that has several",
    )  # fmt: skip
    parts.add_argument(
        "--upto", default="", metavar="MODULE",
        help="build the model cut after each of these modules instead, up to this one",
    )  # fmt: skip
    parts.add_argument("--keep-going", action="store_true", help="go on behind a part that fails")
    add_computing(parts)
    add_shared(parts, "--no-engine-cache", "--runs", "--retries", "--retry-on", "--known", "--run-known")
    parts.add_argument("--require", action="append", default=[], metavar="BACKEND", help="exit 3 unless it was judged")
    parts.add_argument("--json", type=as_path, metavar="FILE", help="write what was found as JSON (docs/json.md)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness.bringup import Request, bring_up
    from harness.records import all_judged, status_of
    from harness.report.text import known_text, parts_text

    subject, targets, cases = request_of(options)
    cases = cases if options.case else (*cases, *subject.range_cases)
    settings = settings_of(options)
    document = Document(options, settings)
    document.start(parts=[])
    request = Request(prefix=options.prefix, upto=options.upto, keep_going=options.keep_going)
    ledger = replace(ledger_of(options, settings, subject, targets, cases), launches_all=options.run_known)
    found = bring_up(subject, targets=targets, cases=cases, settings=settings, request=request, ledger=ledger)
    rows = partial(_rows, found, subject, ledger)
    judged, interrupted = document.collect(found.run(), rows, lambda _: print(parts_text(rows()["parts"])))
    missing = [f"required backend {name} was not judged" for name in options.require
               if not all_judged(found.results, name)]  # fmt: skip
    lacking = {"complete": False, "error": "; ".join(missing)} if missing and not interrupted else {}
    with document.written(interrupted=interrupted, **lacking, **rows()):
        print(parts_text(rows()["parts"]))
        if text := known_text(rows()["known"]):
            print(text)
    if interrupted:
        print_progress(f"{stopping.words()}; the parts above are those found so far")
        return stopping.exit_status()
    for sentence in missing:
        print_progress(sentence)
    if any(part.verdict == "fail" and not part.known for part in judged):
        print_progress(ledger.offer(options.json))
    status = status_of(part.verdict for part in judged)
    return 3 if status == 0 and missing else status


def _rows(found: BringingUp, subject: Subject, ledger: Ledger, _: Sequence[Any] = ()) -> dict[str, Any]:
    from harness.ledger import declared_by, standings

    models = [record.to_json() for record in found.records()]
    return {"parts": models, "known": standings(ledger, {subject.name: declared_by(subject)}, models=models)}
