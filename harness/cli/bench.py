"""``parity bench``: a subject's engines and PyTorch timed in turns, and compared with the accepted baseline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import stopping
from harness.arguments import as_path, names
from harness.cli.expected import timed, to_judge, with_arrived
from harness.cli.known import ledger_of
from harness.cli.latency_options import add_history, add_measuring, measuring, open_history
from harness.cli.options import (
    Document,
    add_command,
    add_shared,
    chart,
    charts_folder,
    not_reached,
    request_of,
    settings_of,
)
from harness.errors import UsageError
from harness.settings import print_progress

if TYPE_CHECKING:
    from harness.ledger import Entry, Ledger
    from harness.records import Measured, NotMeasured
    from harness.subject import Subject, Target


NO_BASELINE = "none"
_BASELINES = f"eager-fp32, eager-tf32, eager-fp16, eager-bf16, compile (FP32), compile-fp16, or {NO_BASELINE}"


def add(commands: Any) -> None:
    """Add the command."""
    bench = add_command(commands, "bench", run, "time a subject's engines and PyTorch, and judge against the baseline")
    add_measuring(bench)
    add_history(bench)
    add_shared(bench, "--retries", "--retry-on", "--known", "--run-known")
    bench.add_argument(
        "--baseline", type=names, metavar="NAMES",
        help=f"comma-separated: {_BASELINES}; default: eager-fp32, on a GPU also eager-fp16 and compile",
    )  # fmt: skip
    bench.add_argument("--kernels", action="store_true", help="time every kernel as well, by module where it is known")
    bench.add_argument("--no-record", action="store_true", help="compare, and leave the history as it is")
    bench.add_argument("--require", action="append", default=[], metavar="BACKEND", help="exit 3 unless it was timed")
    bench.add_argument("--json", type=as_path, metavar="FILE", help="write the figures as JSON (docs/json.md)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import latency

    chosen = measuring(
        options, baselines=_baselines(options.baseline), kernels=options.kernels, record=not options.no_record
    )
    subject, targets, cases = request_of(options)
    sizes, settings = latency.combinations(subject, options.sweep), settings_of(options)
    ledger = ledger_of(options, settings, subject, targets, cases)
    document = Document(options, settings)
    expected = to_judge(subject, targets, cases, sizes)

    def rows(found: Sequence[Measured | NotMeasured]) -> dict[str, Any]:
        return {"expected": with_arrived(expected, timed(found)), **_rows(subject, ledger, found)}

    document.start(**rows([]))
    show = partial(_show, subject, ledger, folder=charts_folder(options))
    crashing = {} if options.run_known else {target: _crash(subject, ledger, target, cases) for target in targets}
    left = [target for target in targets if not crashing.get(target)]
    with open_history(options) as history:
        measured = latency.bench(
            subject, targets=left, cases=cases, settings=settings, sizes=sizes, options=chosen, history=history
        )
        skipped = [
            _not_launched(subject, ledger, target, case, entry)
            for target, entry in crashing.items()
            for case in cases
            if entry
        ]
        judged = (_by_ledger(subject, ledger, item) for item in measured)
        found, interrupted = document.collect(chain(skipped, judged), rows, show)
    late = not_reached(found)
    lacking = {"complete": False, "error": late} if late and not interrupted else {}
    with document.written(interrupted=interrupted, **lacking, **rows(found)):
        show(found)
    if interrupted:
        print_progress(f"{stopping.words()}; the figures above are those found so far")
        return stopping.exit_status()
    for name in latency.lacking(found, options.require):
        print_progress(f"required backend {name} was not timed, or not everywhere")
    if late:
        print_progress(late)
    status = latency.exit_status(found, options.require)
    if status == 1:
        print_progress(ledger.offer(options.json))
    return status or (3 if late else 0)


def _crash(subject: Subject, ledger: Ledger, target: Target, cases: Sequence[str]) -> Entry | None:
    """Return the entry because of which a target is not launched: its engine is known to crash in one of the cases."""
    from harness.ledger import is_launched

    found = [ledger.entry_of(subject.name, str(target), case, source=subject.source) for case in cases]
    return next((entry for entry in found if not is_launched(entry)), None)


def _not_launched(subject: Subject, ledger: Ledger, target: Target, case: str, entry: Entry) -> NotMeasured:
    from harness.ledger import not_launched
    from harness.records import NotMeasured

    result = not_launched(subject, target, case, ledger, entry, "")
    return NotMeasured(
        subject=subject.name, case=case, backend=target.backend, precision=target.precision_name, source=subject.source,
        reason=result.reason, failed=result.verdict == "fail", owner=result.owner, known=result.known,
    )  # fmt: skip


def _by_ledger(subject: Subject, ledger: Ledger, item: Measured | NotMeasured) -> Measured | NotMeasured:
    """Return a measurement with its owner, and what the ledger says of it."""
    from harness.ledger import judged_latency
    from harness.records import Known, NotMeasured

    if isinstance(item, NotMeasured) or item.baseline:
        return replace(item, owner=subject.owner)
    session = item.session
    target = f"{session.backend}-{session.precision}"
    entry = ledger.entry_of(subject.name, target, session.case, source=subject.source, latency=True)
    if entry is None:
        return replace(item, owner=subject.owner)
    data = judged_latency(item.to_json(), ledger, entry, owner=subject.owner)
    return replace(item, owner=data["owner"], known=Known(**data["known"]))


def _baselines(given: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if given == (NO_BASELINE,):
        return ()
    if NO_BASELINE in (given or ()):
        raise UsageError(f"--baseline {NO_BASELINE} stands alone: it leaves every baseline out")
    return given


def _rows(subject: Subject, ledger: Ledger, found: Sequence[Measured | NotMeasured]) -> dict[str, Any]:
    from harness.ledger import declared_by, standings
    from harness.records import Measured

    measured = [item.to_json() for item in found if isinstance(item, Measured)]
    missing = [item.to_json() for item in found if not isinstance(item, Measured)]
    known = standings(ledger, {subject.name: declared_by(subject)}, missing, measured)
    return {"bench": measured, "not_measured": missing, "known": known}


def _show(subject: Subject, ledger: Ledger, found: Sequence[Measured | NotMeasured], folder: Path) -> None:
    """Print the table, the kernels, and where the charts are."""
    from harness.report.plots import bench_charts, save_bench
    from harness.report.text import kernels_table, known_text, latency_table

    rows = _rows(subject, ledger, found)
    measured = rows["bench"]
    print(latency_table(measured, rows["not_measured"]))
    if text := known_text(rows["known"]):
        print(text)
    for item in measured:
        if item["kernels"]:
            print(f"\n{kernels_table(item)}")
    for name, items in bench_charts(measured).items():
        chart(save_bench, items, folder / name)
