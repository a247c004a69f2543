"""Options that the commands about latency share, and what they become: how to measure, series, a history."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.arguments import are_sizes, at_least
from harness.cli.options import (
    add_cases,
    add_choice,
    add_computing,
    add_shared,
    add_subject,
    request_of,
    settings_of,
)
from harness.settings import print_progress

if TYPE_CHECKING:
    from harness.history import History
    from harness.latency import Options, Selection


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """Add what is measured, and how."""
    add_series(parser)
    add_computing(parser)
    add_shared(parser, "--no-engine-cache")
    parser.add_argument("--processes", type=at_least(2), default=5, metavar="N", help="per session; default: 5")
    parser.add_argument("--no-graph", action="store_true", help="launch engines without a CUDA graph")
    parser.add_argument("--l2", choices=("warm", "flush"), default="warm", help="the GPU's L2 cache; default: warm")
    parser.add_argument("--lock-clocks", type=at_least(1), metavar="MHZ", help="hold the SM clock; needs root")


def add_series(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add what chooses series: subject, which may be ``optional``, targets, cases and sizes."""
    add_subject(parser, optional=optional)
    add_cases(parser)
    add_choice(parser)
    parser.add_argument(
        "--sweep", action="append", default=[], type=_sweep, metavar="NAME=V1,V2",
        help="sizes of a dynamic dimension; repeatable: every combination",
    )  # fmt: skip
    parser.add_argument(
        "--batch", action="append", dest="sweep", type=_batch, metavar="1,2,4",
        help="short for --sweep of dimension 0 of the inputs",
    )  # fmt: skip


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add where the history is."""
    parser.add_argument(
        "--history", metavar="FILE", help="where runs are recorded: a file or postgresql://... (PARITY_HISTORY)"
    )


def _numbers(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if not are_sizes(sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of sizes, such as 1,2,4,8")
    return tuple(dict.fromkeys(map(int, sizes)))


def _batch(text: str) -> tuple[None, tuple[int, ...]]:
    return None, _numbers(text)


def _sweep(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=V1,V2, such as tokens=16,64")
    return name, _numbers(sizes)


def measuring(options: argparse.Namespace, **changes: Any) -> Options:
    """Return how to measure."""
    from harness.latency import Options

    return Options(
        processes=options.processes, graph=not options.no_graph, l2=options.l2, lock_clocks=options.lock_clocks,
        suites=options.suites, **changes,
    )  # fmt: skip


def selection(options: argparse.Namespace) -> Selection:
    """Return the selected series."""
    from harness.latency import Selection, combinations

    subject, _, _ = request_of(options, runs=False)
    return Selection(
        subject=subject, cases=options.case, backends=options.backend, precisions=options.precision,
        sizes=combinations(subject, options.sweep) if options.sweep else None, root=settings_of(options).root,
    )  # fmt: skip


@contextlib.contextmanager
def open_history(options: argparse.Namespace) -> Iterator[History]:
    """Open the history; print its notes at the end, such as a damaged file or a database that was down."""
    from harness.history import open_history

    with open_history(options.history, folder=settings_of(options).history) as history:
        try:
            yield history
        finally:
            for note in history.notes:
                print_progress(f"history: {note}")
