"""``parity report``: from recorded JSON to the hackathon report, the page, a CI summary and a badge."""

from __future__ import annotations

import argparse
import os
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import as_path
from harness.cli.options import add_command
from harness.errors import UsageError
from harness.files import check_writable, write_text
from harness.records import RUN_VARIABLE
from harness.settings import print_progress

if TYPE_CHECKING:
    from harness.records import Records
    from harness.report.words import Language


DEFAULT = Path("reports")
PAGE = "report.html"


def add(commands: Any) -> None:
    """Add the command."""
    report = add_command(
        commands, "report", run, "write a report from recorded JSON: the hackathon's README.md, a page, CI outputs"
    )
    report.add_argument(
        "paths",
        nargs="*",
        type=as_path,
        metavar="FILE_OR_DIR",
        help="JSON of --json, or folders of it; default: reports",
    )
    report.add_argument("--lang", choices=("zh", "en"), help="default: as the README there, else en")
    report.add_argument("--template", choices=("2022", "2023"), help="default: as the README there, else 2023")
    report.add_argument(
        "-o", "--output", type=as_path, default=DEFAULT, metavar="DIR",
        help="where README.md and figures/ go; default: reports",
    )  # fmt: skip
    report.add_argument(
        "--wenet", action="append", default=[], metavar="ROLE=SUBJECT",
        help="the evaluation table of the 2022 preliminary: encoder=SUBJECT, decoder=SUBJECT; repeatable",
    )  # fmt: skip
    report.add_argument(
        "--run", dest="run_id", metavar="ID",
        help=f"exit 1 where a record is of another run; default: {RUN_VARIABLE}",
    )  # fmt: skip
    report.add_argument(
        "--against", type=as_path, metavar="FILE_OR_DIR",
        help="earlier records: print what is worse, gone, moved, new or better since; the page has it too",
    )  # fmt: skip
    report.add_argument("--check", action="store_true", help="write nothing; exit 1 unless the README is finished")
    report.add_argument("--html", action="store_true", help=f"write {PAGE} as well: one file, no network")
    report.add_argument("--open", action="store_true", help=f"write {PAGE} and show it in the browser")
    report.add_argument(
        "--summary", action="store_true",
        help="add a summary to the file in GITHUB_STEP_SUMMARY, or print it where that is not set",
    )  # fmt: skip
    report.add_argument("--junit", type=as_path, metavar="FILE", help="write the verdicts as a JUnit file")
    report.add_argument("--badge", type=as_path, metavar="FILE", help="write a badge's state as shields.io reads it")
    report.add_argument(
        "--model-explorer", type=as_path, metavar="FILE",
        help="write the errors of --layers as node data of Google's Model Explorer; of several engines a file each",
    )  # fmt: skip
    report.add_argument(
        "--onnx", type=as_path, metavar="MODEL",
        help="with --model-explorer: the ONNX file that it shows, where the engines are of one",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import hackathon, records
    from harness.records import save_json
    from harness.report import badge, changes, changes_text, junit_xml, summary, write_summary

    roles = hackathon.wenet_roles(options.wenet)
    if options.check:
        return _check(options, roles)
    found = replace(records.load(options.paths or [DEFAULT]), run=options.run_id or os.environ.get(RUN_VARIABLE, ""))
    _warn(found)
    if options.onnx and not options.model_explorer:
        raise UsageError("--onnx names the nodes for --model-explorer FILE; give that too, or leave --onnx out")
    against = (options.against.name, records.load([options.against])) if options.against else None
    page = options.output / PAGE if options.html or options.open else None
    for file in filter(None, (page, options.badge, options.junit, options.model_explorer)):
        check_writable(file)
    path = hackathon.save_readme(
        found, options.output, lang=options.lang or "", template=options.template or "", wenet=roles
    )
    print(f"wrote {path}")
    if page:
        from harness.report.html import save_page

        save_page(found, page, lang=_language(path), against=against)
        print(f"wrote {page}")
        if options.open:
            _open(page)
    if against:
        print(changes_text(changes(against[1], found), against[0]))
    if options.badge:
        save_json(badge(found), options.badge)
        print(f"wrote {options.badge}")
    if options.junit:
        write_text(junit_xml(found), options.junit)
        print(f"wrote {options.junit}")
    if options.model_explorer:
        _write_node_data(found, options.model_explorer, options.onnx)
    if options.summary:
        text = summary(found)
        written = write_summary(text)
        print(f"wrote {written}" if written else text)
    return 1 if found.contradictory or found.clashes or found.stale else 0


def _write_node_data(found: Records, path: Path, model: Path | None) -> None:
    """Write node data for Model Explorer; say of what was observed otherwise than it runs that it is so."""
    from harness.graph import node_names
    from harness.report import save_node_data

    reports = [entry.data for entry in found.layers]
    for file in save_node_data(reports, path, node_names(model) if model else None):
        print(f"wrote {file}")
    for report in reports:
        if not report["trusted"]:
            engine = f"{report['subject']} {report['backend']}-{report['precision']} {report['case']}"
            print_progress(f"{engine}: observing it changed its outputs: do not trust its colours")


def _open(page: Path) -> None:
    """Show the page in the browser; without one, as on a runner, say where it is."""
    if not webbrowser.open(page.resolve().as_uri()):
        print_progress(f"no browser can be started here: open {page.resolve()} in one")


def _warn(found: Records) -> None:
    """Print on standard error which records could not be used, contradict themselves, or came twice."""
    for sentence in (*found.broken, *found.contradictory, *found.clashes, *found.stale, *found.foreign, *found.twice):
        print_progress(sentence)


def _language(readme: Path) -> Language:
    from harness import hackathon

    old = hackathon.read_readme(readme)
    return "zh" if old and old.options["lang"] == "zh" else "en"


def _check(options: argparse.Namespace, roles: dict[str, str]) -> int:
    """Print one line per finding; the records are those given, else those of the default folder, if any."""
    from harness import hackathon, records

    outputs = ("html", "open", "against", "badge", "junit", "summary", "lang", "template", "model_explorer", "onnx")
    if given := [f"--{name.replace('_', '-')}" for name in outputs if getattr(options, name)]:
        raise UsageError(f"--check writes nothing, so {', '.join(given)} would do nothing; run it without --check")
    paths = options.paths or [path for path in (DEFAULT,) if any(path.rglob("*.json"))]
    found = records.load(paths) if paths else None
    if found:
        _warn(found)
    findings = hackathon.check_readme(options.output, records=found, wenet=roles)
    for finding in findings:
        print(finding)
    for what in hackathon.not_checked(options.output, records=found):
        print_progress(f"not checked: {what}")
    if not findings:
        print(f"{options.output}: complete")
    return 1 if findings else 0
