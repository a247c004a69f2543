"""The command line: options become Settings and one call. Run ``parity --help``.

Exit status: 0 something passed and nothing failed (what was not judged does not count: ``--require``), 1 at least one
failed, 2 usage, 3 nothing could be judged or a required backend could not, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.cli import bench, bisect, report, study, verify
from harness.cli.options import (
    INTERRUPTED,
    add_cases,
    add_choice,
    add_command,
    add_computing,
    add_engine_cache,
    add_folders,
    add_subject,
    request_of,
    settings_of,
)
from harness.errors import NotJudged, ParityError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    options.command_line = shlex.join(["parity", *arguments])
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        print("parity: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `parity list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return INTERRUPTED
    except NotJudged as error:
        print(f"parity: not judged: {error}", file=sys.stderr)
        return 3
    except (ParityError, OSError) as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parity",
        description="Proves how far an engine is from PyTorch FP32.",
        epilog="exit status: 0 something passed and nothing failed (what was not judged does not count: --require); "
        "1 at least one failed; 2 usage; 3 nothing could be judged, or a required backend could not; 130 interrupted",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    doctor = add_command(
        commands, "doctor", _doctor, "show the machine, and every backend's version or why it is missing"
    )
    doctor.add_argument("--json", type=Path, metavar="FILE", help="write the same as JSON")
    add_folders(doctor)

    listing = add_command(commands, "list", _list, "list the subjects: cases, targets, where the weights come from")
    listing.add_argument("--suites", type=Path, default=Path("suites"), metavar="DIR", help="default: suites")

    verify.add(commands)
    bisect.add(commands)

    build = add_command(commands, "build", _build, "build a subject's engines and print where they are")
    add_subject(build)
    add_choice(build)
    add_engine_cache(build)
    add_computing(build)

    reference = add_command(commands, "reference", _reference, "make or update a subject's stored references")
    add_subject(reference)
    add_cases(reference)
    add_computing(reference)

    bench.add(commands)
    report.add(commands)
    study.add(commands)

    clean = add_command(commands, "clean", _clean, "empty the engine cache")
    clean.add_argument("--engines", type=Path, metavar="DIR", help="the engine cache (PARITY_ENGINES)")
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from harness import files, records
    from harness.backends import environment
    from harness.report.text import machine_text

    if options.json:
        files.check_writable(options.json)
    found = environment(settings_of(options))
    print(machine_text(found))
    if options.json:
        records.save_json(records.document([], environment=found, command=options.command_line), options.json)
    return 0


def _list(options: argparse.Namespace) -> int:
    from harness import discovery
    from harness.report.text import subjects_table

    rows = discovery.list_subjects(options.suites)
    print(subjects_table(rows) if rows else f"no suites in {options.suites}: a suite is a file named test_*.py")
    return 0


def _build(options: argparse.Namespace) -> int:
    from harness import verify

    subject, targets, _ = request_of(options)
    run = verify.Run(subject, settings_of(options))
    built = 0
    for target in targets:
        with run.target(target) as opened:
            try:
                engine = opened.build()
            except UsageError:
                raise
            except ParityError as error:
                print(f"{target}: not built: {error}")
                continue
        built += 1
        origin = "cached" if engine.cached else f"built in {engine.build_s:.3g} s"
        print(f"{target}: {engine.path} ({engine.bytes / 2**20:.3g} MiB, {origin})")
    return 0 if built else 3


def _reference(options: argparse.Namespace) -> int:
    from harness import verify

    subject, _, cases = request_of(options)
    for path in verify.update_references(subject, cases, settings_of(options)):
        print(f"wrote {path}")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from harness.backends import EngineCache
    from harness.reference import OutputCache

    settings = settings_of(options)
    cache = EngineCache(settings.engines, limit_bytes=settings.engine_cache_bytes)
    before = len(cache.entries())
    freed = cache.clear() + OutputCache(settings.engines / "outputs", enabled=True).clear()
    print(f"{settings.engines}: removed {before - len(cache.entries())} engines, freed {freed / 2**20:.3g} MiB")
    return 0
