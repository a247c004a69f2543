"""``parity bench``, ``accept``, ``history`` and ``aa``: options become calls, what comes back is printed and saved."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import history as history_command
from harness.cli.latency_options import add_history, add_measuring, add_series, chart, folder, open_history, sizes_of
from harness.cli.options import INTERRUPTED, Document, add_command, at_least, names, request_of, settings_of
from harness.errors import NotJudged, UsageError, unknown_name
from harness.report.plots import save_bench
from harness.report.text import kernels_table, latency_table

if TYPE_CHECKING:
    from harness.latency import Options
    from harness.records import Measured, NotMeasured, Session


_ALONE = (
    "only one session on the machine as it was then: its facts (power limit, locked clock, driver) changed between the "
    "sessions, or the others were not measured; measure again"
)
_BASELINES = "eager-fp32, eager-tf32, eager-fp16, eager-bf16, compile (FP32), compile-fp16, or none"


def add(commands: Any) -> None:
    """Add the commands about latency."""
    bench = add_command(
        commands, "bench", _bench, "time a subject's engines and PyTorch, and judge against the baseline"
    )
    add_measuring(bench)
    add_history(bench)
    bench.add_argument(
        "--baseline", type=_baselines, metavar="NAMES",
        help=f"comma-separated: {_BASELINES}; default: eager-fp32, on a GPU also eager-fp16 and compile",
    )  # fmt: skip
    bench.add_argument("--kernels", action="store_true", help="time every kernel as well, by module where it is known")
    bench.add_argument("--no-record", action="store_true", help="compare, and leave the history as it is")
    bench.add_argument("--require", action="append", default=[], metavar="BACKEND", help="exit 3 unless it was timed")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON (docs/json.md)")

    accept = add_command(
        commands, "accept", history_command.accept, "make a subject's latest sessions the baseline of this machine"
    )
    add_series(accept)
    add_history(accept)
    accept.add_argument("--why", required=True, metavar="TEXT", help="kept with the baseline")
    accept.add_argument(
        "--last", type=at_least(1), metavar="N",
        help=f"how many sessions; default: all since the last acceptance, at most {history_command.MOST_ACCEPTED}",
    )  # fmt: skip

    history = add_command(
        commands, "history", history_command.history,
        "show what was recorded of a subject, with change points and drift; or move records: "
        "history export FORMAT FILE, history import FORMAT FILE",
    )  # fmt: skip
    add_series(history)
    add_history(history)
    history.add_argument("move", nargs="*", metavar="FORMAT FILE", help="only after export or import: docs/history.md")
    history.add_argument("--machine", metavar="KEY", help="only with export: the records of this machine")
    history.add_argument("--json", type=Path, metavar="FILE", help="write the series as JSON (docs/json.md)")

    aa = add_command(commands, "aa", _aa, "measure the machine: the same engine against itself")
    add_measuring(aa)
    aa.add_argument("--sessions", type=at_least(2), default=4, metavar="N", help="default: 4")
    aa.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON (docs/json.md)")


def _baselines(text: str) -> tuple[str, ...]:
    found = names(text)
    return () if found == ("none",) else found


def _measuring(options: argparse.Namespace, **changes: Any) -> Options:
    from harness.latency import Options

    return Options(
        processes=options.processes, graph=not options.no_graph, l2=options.l2, lock_clocks=options.lock_clocks,
        suites=options.suites, **changes,
    )  # fmt: skip


def _bench(options: argparse.Namespace) -> int:
    from harness import latency

    if "none" in (options.baseline or ()):
        raise UsageError("--baseline none stands alone: it leaves every baseline out")
    if unknown := [name for name in options.baseline or () if name not in latency.BASELINES]:
        raise unknown_name("baseline", unknown[0], [*latency.BASELINES, "none"])
    subject, targets, cases = request_of(options)
    sizes = sizes_of(subject, options.batch, options.sweep)
    settings = settings_of(options)
    document = Document(options, settings)
    chosen = _measuring(options, baselines=options.baseline, kernels=options.kernels, record=not options.no_record)
    found: list[Measured | NotMeasured] = []
    error, interrupted = "", False
    with open_history(options) as history:
        try:
            for item in latency.bench(
                subject, targets=targets, cases=cases, settings=settings, sizes=sizes, options=chosen,
                history=history,
            ):  # fmt: skip
                found.append(item)
                document.write(**_rows(found))
        except KeyboardInterrupt:
            interrupted, error = True, "interrupted"
        except Exception as problem:
            document.write(error=str(problem), **_rows(found))
            _show(found, options)
            raise
    found = latency.adjusted(found)
    document.write(complete=not interrupted, error=error, **_rows(found))
    _show(found, options)
    if interrupted:
        print("parity: interrupted; the figures above are those found so far", file=sys.stderr)
        return INTERRUPTED
    for name in latency.lacking(found, options.require):
        print(f"parity: required backend {name} was not timed, or not everywhere", file=sys.stderr)
    return latency.exit_status(found, options.require)


def _rows(found: Sequence[Measured | NotMeasured]) -> dict[str, Any]:
    from harness.records import Measured

    return {
        "bench": [item.to_json() for item in found if isinstance(item, Measured)],
        "not_measured": [item.to_json() for item in found if not isinstance(item, Measured)],
    }


def _show(found: Sequence[Measured | NotMeasured], options: argparse.Namespace) -> None:
    """Print the table, the kernels, and where the charts are."""

    rows = _rows(found)
    measured = rows["bench"]
    print(latency_table(measured, rows["not_measured"]))
    for item in measured:
        if item["kernels"]:
            print(f"\n{kernels_table(item)}")
    groups: dict[tuple[str, ...], list[Any]] = {}
    for item in measured:
        session = item["session"]
        groups.setdefault((session["subject"], session["case"], session["device"], session["metric"]), []).append(item)
    for (subject, case, device, metric), items in groups.items():
        place = "cpu" if device == "CPU" else "gpu" if metric == "gpu_ms" else "host"
        chart(save_bench, items, folder(options) / f"{subject}-{case}-latency-{place}")


def _aa(options: argparse.Namespace) -> int:
    from harness import latency
    from harness.records import Measured
    from harness.report.text import noise_text

    subject, targets, cases = request_of(options)
    sizes = sizes_of(subject, options.batch, options.sweep)
    settings = settings_of(options)
    document = Document(options, settings)
    chosen = _measuring(options, baselines=(), throughput=False, record=False)
    missing: list[NotMeasured] = []
    sessions: dict[tuple[str, str], list[Session]] = {}
    error = ""
    try:
        for target, case, size in itertools.product(targets, cases, sizes):
            for item in latency.repeat(
                subject, target, case, settings, sizes=size, sessions=options.sessions, options=chosen
            ):
                if isinstance(item, Measured):
                    series = item.session.benchmark, item.session.machine.key
                    sessions.setdefault(series, []).append(item.session)
                else:
                    missing.append(item)
    except KeyboardInterrupt:
        error = "interrupted"
    except Exception as problem:
        document.write(error=str(problem), **_aa_rows(sessions, missing))
        raise
    found = _aa_rows(sessions, missing, whole=not error)
    document.write(complete=not error, error=error, **found)
    if rows := found["aa"]:
        print(noise_text(rows))
    for item in found["not_measured"]:
        what = f"{item['backend']}-{item['precision']} {item['case']}"
        print(f"parity: {what}: not measured: {item['reason']}", file=sys.stderr)
    if error:
        print("parity: interrupted; at least two whole sessions of an engine make a row", file=sys.stderr)
    return INTERRUPTED if error else 0 if rows else 3


def _aa_rows(
    sessions: Mapping[Any, Sequence[Session]], missing: Sequence[NotMeasured], *, whole: bool = False
) -> dict[str, Any]:
    """Return what is written and shown; only of a whole run it is wrong that a session stands alone."""
    rows, useless = [], list(missing)
    for same in sessions.values():
        if len(same) > 1:
            try:
                rows.append(_aa_row(same))
            except NotJudged as error:  # all in an invalid environment; the other engines may have been luckier
                useless.append(_aa_problem(same[0], str(error)))
        elif whole:
            useless.append(_aa_problem(same[0], _ALONE))
    return {
        "aa": rows,
        "not_measured": [item.to_json() for item in useless],
        "sessions": [session.to_json() for same in sessions.values() for session in same],
    }


def _aa_problem(session: Session, reason: str) -> NotMeasured:
    from harness.records import NotMeasured

    fields = {name: getattr(session, name) for name in ("subject", "case", "backend", "precision", "runner", "sizes")}
    return NotMeasured(**fields, reason=reason)


def _aa_row(sessions: Sequence[Session]) -> dict[str, Any]:
    """Return one engine against itself: spreads, and the verdict of every session against every earlier one."""
    import dataclasses

    from harness.latency import compare_sessions, smallest_change
    from harness.report import case_label, session_latency, session_target

    verdicts = Counter(compare_sessions(new, [old]).verdict for old, new in itertools.combinations(sessions, 2))
    first = sessions[0].to_json()
    times = [found[0] for session in sessions if (found := session_latency(session.to_json())) is not None]
    spreads = smallest_change(sessions)
    return {
        "benchmark": sessions[0].benchmark,
        "target": f"{session_target(first)} {case_label(first)}", "device": first["device"],
        "ms": sum(times) / len(times) if times else None, "verdicts": dict(verdicts),
        **dataclasses.asdict(spreads),
    }  # fmt: skip
