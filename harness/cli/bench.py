"""``parity bench``: a subject's engines and PyTorch timed in turns, and compared with the accepted baseline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import stopping
from harness.arguments import as_path
from harness.cli.latency_options import add_history, add_measuring, measuring, open_history
from harness.cli.options import Document, add_command, chart, charts_folder, names, request_of, settings_of
from harness.errors import UsageError
from harness.settings import print_progress

if TYPE_CHECKING:
    from harness.records import Measured, NotMeasured


NO_BASELINE = "none"
_BASELINES = f"eager-fp32, eager-tf32, eager-fp16, eager-bf16, compile (FP32), compile-fp16, or {NO_BASELINE}"


def add(commands: Any) -> None:
    """Add the command."""
    bench = add_command(commands, "bench", run, "time a subject's engines and PyTorch, and judge against the baseline")
    add_measuring(bench)
    add_history(bench)
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
    document, show = Document(options, settings), partial(_show, folder=charts_folder(options))
    with open_history(options) as history:
        measured = latency.bench(
            subject, targets=targets, cases=cases, settings=settings, sizes=sizes, options=chosen, history=history
        )
        found, interrupted = document.collect(measured, _rows, show)
    with document.written(interrupted=interrupted, **_rows(found)):
        show(found)
    if interrupted:
        print_progress(f"{stopping.words()}; the figures above are those found so far")
        return stopping.exit_status()
    for name in latency.lacking(found, options.require):
        print_progress(f"required backend {name} was not timed, or not everywhere")
    return latency.exit_status(found, options.require)


def _baselines(given: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if given == (NO_BASELINE,):
        return ()
    if NO_BASELINE in (given or ()):
        raise UsageError(f"--baseline {NO_BASELINE} stands alone: it leaves every baseline out")
    return given


def _rows(found: Sequence[Measured | NotMeasured]) -> dict[str, Any]:
    from harness.records import Measured

    return {
        "bench": [item.to_json() for item in found if isinstance(item, Measured)],
        "not_measured": [item.to_json() for item in found if not isinstance(item, Measured)],
    }


def _show(found: Sequence[Measured | NotMeasured], folder: Path) -> None:
    """Print the table, the kernels, and where the charts are."""
    from harness.report.plots import bench_charts, save_bench
    from harness.report.text import kernels_table, latency_table

    rows = _rows(found)
    measured = rows["bench"]
    print(latency_table(measured, rows["not_measured"]))
    for item in measured:
        if item["kernels"]:
            print(f"\n{kernels_table(item)}")
    for name, items in bench_charts(measured).items():
        chart(save_bench, items, folder / name)
