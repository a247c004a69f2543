"""``parity merge``: the records of shards to one record, as if it had been one run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from harness.arguments import as_path
from harness.cli.options import add_command, start_record
from harness.errors import UsageError
from harness.settings import print_progress


def add(commands: Any) -> None:
    """Add the command."""
    merge = add_command(
        commands,
        "merge",
        run,
        "make one record of those of shards; status 1 where one is missing or does not fit",
    )
    merge.add_argument(
        "paths", nargs="+", type=as_path, metavar="FILE_OR_DIR",
        help="records of pytest --shard and of the latency stage, merged ones, or folders of them",
    )  # fmt: skip
    merge.add_argument("-o", "--output", dest="json", required=True, type=as_path, metavar="JSON", help="where it goes")
    merge.add_argument(
        "--expect", type=as_path, metavar="MANIFEST",
        help="fail unless all of this was judged that parity list --json wrote",
    )  # fmt: skip
    merge.set_defaults(records=False)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import records, shards
    from harness.records import save_json
    from harness.report import all_verdicts
    from harness.report.text import results_table

    output: Path = options.json
    asked = [path.resolve() for path in options.paths]
    if output.resolve() in asked:
        raise UsageError(f"-o {output} is one of the records to merge; give another name")
    if twice := [str(path) for path in options.paths if asked.count(path.resolve()) > 1]:
        raise UsageError(f"{twice[0]} is given twice; give each record once")
    options.records = True  # from here on what goes wrong is written there, and what an earlier run left is gone
    start_record(output, options.command_line)
    found = records.load(options.paths, without=output)
    if found.broken:
        raise UsageError("; ".join(found.broken))
    for sentence in found.foreign:
        print_progress(sentence)
    manifest = _manifest(options.expect) if options.expect else None
    merged = shards.merge((_run_of(document.path, document.name) for document in found.documents), manifest)
    save_json(merged, output)
    options.recorded = True
    if merged["results"]:
        print(results_table(merged["results"]))
    print(f"wrote {output}: {len(merged['shards'])} records, {len(merged['results'])} results")
    for sentence in filter(None, merged["error"].split("; ")):
        print_progress(sentence)
    given: set[Any] = {one.verdict for one in all_verdicts(records.load([output]))}
    return records.status_of(given) if merged["complete"] else 1


def _run_of(path: Path, name: str) -> dict[str, Any]:
    """Return a record of pytest or ``parity verify``. Raises UsageError for another one."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "expected" not in data and data.get("complete", True):
        command = data.get("command") or "an older version"
        raise UsageError(f"{name} is a record of {command}; give those of pytest --parity-json or parity verify --json")
    return data


def _manifest(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be used: {error}") from error
