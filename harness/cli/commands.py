"""Every command of ``parity``, and what runs one. Run ``parity --help``.

Exit status: 0 something passed and nothing failed (what was not judged does not count: ``--require``), 1 at least one
failed, 2 usage, 3 nothing could be judged or a required backend could not, 130 interrupted,
143 stopped by SIGTERM, 129 by SIGHUP.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

from harness import limits, locks, memory, stopping
from harness.cli import (
    bench,
    bisect,
    calibrate,
    history,
    known,
    merge,
    noise,
    parts,
    report,
    score,
    show,
    stores,
    study,
    verify,
)
from harness.cli.options import INTERRUPTED, start_record
from harness.errors import NotJudged, ParityError, no_exit, visible
from harness.limit_options import given_or_defaults
from harness.machine import command_line
from harness.settings import others_quiet, print_progress

COMMANDS = (show, verify, parts, bisect, calibrate, known, stores, bench, history, noise, merge, report, study, score)
"""In the order of ``parity --help``. Each has ``add(commands)``, which registers the functions that run them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    options.command_line = command_line("parity", arguments)
    options.started = {}
    """What the record of this run holds from its start."""
    options.recorded = False
    """Whether a record of this run holds more than that it started."""
    try:
        _record(options)
        with (
            no_exit(), others_quiet(verbose=options.verbose), limits.allowed(**given_or_defaults(vars(options))),
            memory.at_most(options.memory), memory.in_words("the run"), locks.patience(options.lock_timeout),
        ):  # fmt: skip
            status: int = options.run(options)
        return status
    except SystemExit as end:  # code of a suite: its status must not pass for a verdict
        print_progress(f"not judged: something ended the process with status {end.code!r}")
        return 3
    except GeneratorExit:
        print_progress("not judged: a suite's code raised GeneratorExit")
        return 3
    except KeyboardInterrupt:
        print_progress(stopping.words())
        return stopping.exit_status()
    except BrokenPipeError:  # `parity list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports the pipe at exit
        return INTERRUPTED
    except NotJudged as error:
        print_progress(f"not judged: {error}")
        _record(options, f"not judged: {error}")
        return 3
    except ParityError as error:
        print_progress(str(error))
        _record(options, str(error))
        return 2
    except OSError as error:  # a file or folder of the command line
        named = f"{error.filename} cannot be used: {error.strerror}" if error.filename else str(error)
        print_progress(named)
        return 2


def _record(options: argparse.Namespace, error: str = "") -> None:
    """Say in the file of ``--json`` that the run started, or why it ended before it found anything."""
    path = vars(options).get("json")
    if path is None or options.recorded or not options.records:
        return
    with contextlib.suppress(ParityError) if error else contextlib.nullcontext():
        start_record(path, options.command_line, error=error, **options.started)


@cache
def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="parity",
        description="Proves how far an engine is from PyTorch FP32.",
        epilog="exit status: 0 something passed and nothing failed (what was not judged does not count: --require); "
        "1 at least one failed; 2 usage; 3 nothing could be judged, or a required backend could not; 130 interrupted; "
        "143 stopped by SIGTERM",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions of parity and of torch")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong with an option, as every command does of its request."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {visible(message)}; usage: {self.prog} --help\n")


class _Version(argparse.Action):
    """Prints the installed versions without importing the packages."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from harness.machine import installed_version

        versions = {"parity": installed_version("trt-parity"), "torch": installed_version("torch")}
        print(", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items()))
        parser.exit()
