"""``parity parts``: bring a model up module by module, each as an engine of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import stopping
from harness.arguments import as_path
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
    add_shared(parts, "--no-engine-cache", "--runs", "--retries", "--retry-on")
    parts.add_argument("--require", action="append", default=[], metavar="BACKEND", help="exit 3 unless it was judged")
    parts.add_argument("--json", type=as_path, metavar="FILE", help="write what was found as JSON (docs/json.md)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness.bringup import Request, bring_up
    from harness.records import all_judged, status_of
    from harness.report.text import parts_text

    subject, targets, cases = request_of(options)
    cases = cases if options.case else (*cases, *subject.range_cases)
    settings = settings_of(options)
    document = Document(options, settings)
    document.start(parts=[])
    request = Request(prefix=options.prefix, upto=options.upto, keep_going=options.keep_going)
    found = bring_up(subject, targets=targets, cases=cases, settings=settings, request=request)
    rows = partial(_rows, found)
    judged, interrupted = document.collect(found.run(), rows, lambda _: print(parts_text(rows()["parts"])))
    missing = [f"required backend {name} was not judged" for name in options.require
               if not all_judged(found.results, name)]  # fmt: skip
    lacking = {"complete": False, "error": "; ".join(missing)} if missing and not interrupted else {}
    with document.written(interrupted=interrupted, **lacking, **rows()):
        print(parts_text(rows()["parts"]))
    if interrupted:
        print_progress(f"{stopping.words()}; the parts above are those found so far")
        return stopping.exit_status()
    for sentence in missing:
        print_progress(sentence)
    status = status_of(part.verdict for part in judged)
    return 3 if status == 0 and missing else status


def _rows(found: BringingUp, _: Sequence[Any] = ()) -> dict[str, Any]:
    return {"parts": [record.to_json() for record in found.records()]}
