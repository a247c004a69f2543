"""``parity known``: the ledger of known failures, checked; ``parity known add``: entries for what a run recorded."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import as_path
from harness.cli.options import add_choice, add_command, add_shared, add_suites, settings_of
from harness.errors import UsageError
from harness.settings import print_progress
from harness.shared_options import SHARED

if TYPE_CHECKING:
    from harness.ledger import Ledger
    from harness.records import Records
    from harness.settings import Settings
    from harness.subject import Subject, Target

Json = dict[str, Any]


def add(commands: Any) -> None:
    """Add the command."""
    known = add_command(commands, "known", _list, "list the known failures: who mends each, and until when it holds")
    add_shared(known, "--known")
    add_suites(known)
    known.add_argument("--check", action="store_true", help="exit 1 where an entry is expired or names nothing")
    known.add_argument("--json", type=as_path, metavar="FILE", help="write the entries as JSON")
    known.set_defaults(records=False)
    nested = known.add_subparsers(title="commands", metavar="COMMAND")
    adding = nested.add_parser(
        "add", help="add entries for what a run recorded as failed",
        description="Adds entries to the ledger for what a run recorded as failed.",
    )  # fmt: skip
    adding.set_defaults(run=_add)
    adding.add_argument(
        "paths",
        nargs="+",
        type=as_path,
        metavar="FILE_OR_DIR",
        help="JSON of --json or --parity-json, or folders of it",
    )
    adding.add_argument("--known", default=argparse.SUPPRESS, **SHARED["--known"])
    adding.add_argument("--subject", metavar="NAME", help="only what failed of this subject")
    adding.add_argument("--case", action="append", default=[], metavar="NAME", help="only this case; repeatable")
    adding.add_argument("--part", action="append", default=[], metavar="MODULE", help="only this part; repeatable")
    add_choice(adding)
    adding.add_argument("--all", action="store_true", help="add all, where several subjects or targets failed")
    adding.add_argument("--reason", required=True, metavar="WORDS", help="why it fails")
    adding.add_argument("--issue", required=True, metavar="URL", help="its issue")
    adding.add_argument("--owner", default="", metavar="NAME", help="who mends it; default: the subject's owner")
    adding.add_argument("--expires", required=True, type=_date, metavar="DATE", help="the last day on which it holds")
    adding.add_argument(
        "--at-most", type=float, metavar="TIMES",
        help="how many times its limit a wrong answer may lose, or a latency its baseline; default: 1.5 x the record",
    )  # fmt: skip


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day, such as 2027-03-01") from None


def ledger_of(
    options: argparse.Namespace, settings: Settings, subject: Subject, targets: Sequence[Target], cases: Sequence[str]
) -> Ledger:
    """Return the ledger of a run of one subject, of the entries about it. Raises UsageError where one is wrong."""
    from harness import ledger as ledgers

    found = ledgers.read(settings.root, options.known)
    found.check(subject.name, ledgers.declared_by(subject), targets=map(str, targets), cases=cases)
    about = [e for e in found.entries if e.subject == subject.name and e.source in ("", subject.source)]
    return replace(found, entries=tuple(about))


def _list(options: argparse.Namespace) -> int:
    from harness import ledger as ledgers
    from harness.records import save_json
    from harness.report.text import known_table

    root = settings_of(options).root
    found = ledgers.read(root, options.known)
    declared, problems = _declared(options.suites, root, found) if found.entries else ({}, [])
    rows = ledgers.standings(found, declared)
    problems += _problems(found, declared)
    if options.json:
        save_json({"schema": "parity-known/1", "known": rows, "problems": problems}, options.json)
    print(known_table(rows) if rows else f"no known failures: {options.known or root / ledgers.FILE} has no entry")
    for sentence in problems:
        print_progress(sentence)
    for row in rows:
        if row["expires_soon"]:
            words = f"{row['file']}, entry {row['entry']} ({row['subject']}) expires on {row['expires']}"
            print_progress(f"{words}, in {row['days_left']} days: mend it, or give the entry another day")
    return 1 if options.check and problems else 0


def _declared(suites: Path, root: Path, ledger: Ledger) -> tuple[dict[str, Json], list[str]]:
    """Return what subjects declare, by name: those of all suites, and of the files that entries name; and what failed.

    An ONNX file has one case and any target.
    """
    from harness import discovery
    from harness import ledger as ledgers

    found: dict[str, Json] = {}
    problems = []
    for row in discovery.list_subjects(suites) if suites.is_dir() else []:
        if row["problem"]:
            problems.append(f"{row['path']} cannot be held against {ledger.file}: {row['problem']}")
        else:
            found[row["subject"]] = {key: row[key] for key in ("source", "targets", "cases")}
            found[row["subject"]]["cases"] = [*row["cases"], *row["range_cases"]]
    known = {one["source"] for one in found.values()}
    for entry in ledger.entries:
        path = root / entry.source
        if not entry.source or entry.source in known:
            continue
        if not path.is_file():
            problems.append(f"{ledger.where(entry)}: there is no {path}; correct source, or remove the entry")
        elif path.suffix == ".py":
            subject = discovery.load_suite(path)
            found.setdefault(subject.name, ledgers.declared_by(subject))
    return found, problems


def _problems(ledger: Ledger, declared: Mapping[str, Json]) -> list[str]:
    """Return a sentence for each entry that names nothing, and for each that is expired."""
    from harness import ledger as ledgers

    problems = ledgers.unknown_subjects(ledger, declared)
    for name, one in declared.items():
        try:
            ledger.check(name, one)
        except UsageError as error:
            problems.append(str(error))
    over = [entry for entry in ledger.entries if ledger.is_expired(entry)]
    return problems + [
        f"{ledger.where(entry)} ({entry.words}) expired on {entry.expires}: mend it, or give the entry another day"
        for entry in over
    ]


def _add(options: argparse.Namespace) -> int:
    from harness import ledger as ledgers
    from harness import records
    from harness.files import write_text

    root = settings_of(options).root
    entries = [entry for entry in _failed(records.load(options.paths)) if _is_asked(options, entry)]
    if not entries:
        raise UsageError("nothing of what was asked for failed in these records without being known")
    names = [
        " ".join(filter(None, (entry["subject"], f"[{entry['target']}]", entry["part"], entry["kind"])))
        for entry in entries
    ]
    if len(entries) > 1 and not options.all:
        words = f"{len(entries)} things failed: {', '.join(names)}"
        raise UsageError(f"{words}; choose by --subject, -b, -p, --case or --part, or give --all")
    given = {"reason": options.reason, "issue": options.issue, "expires": options.expires}
    for entry in entries:
        entry |= given | ({"owner": options.owner} if options.owner else {})
        if options.at_most is not None:
            entry["at_most"] = options.at_most
    texts = [ledgers.entry_text(entry) for entry in entries]
    path, text, _ = ledgers.with_entries(root, options.known, texts)
    write_text(text, path)
    print("\n".join(texts))
    print(f"added to {path}: {', '.join(names)}")
    return 0


def _failed(found: Records) -> list[Json]:
    from harness import ledger as ledgers

    rows = ((entry.data for entry in entries) for entries in (found.results, found.bench, found.parts))
    return ledgers.proposed(*rows)


def _is_asked(options: argparse.Namespace, entry: Json) -> bool:
    """Return whether an entry is of what was asked for; of its cases those stay that were."""
    backend, _, precision = entry["target"].partition(" ")
    entry["case"] = [case for case in entry["case"] if not options.case or case in options.case]
    return bool(
        entry["case"]
        and options.subject in (None, entry["subject"])
        and (not options.part or entry["part"] in options.part)
        and (not options.backend or backend in options.backend)
        and (not options.precision or precision in options.precision)
    )
