"""The command line: options become Settings and one call. Run ``parity --help``.

Exit status: 0 something passed and nothing failed (what was not judged does not count: ``--require``), 1 at least one
failed, 2 usage, 3 nothing could be judged or a required backend could not, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import cli_bench, cli_report, cli_study
from harness.cli_options import (
    INTERRUPTED,
    Document,
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

if TYPE_CHECKING:
    from harness.results import Result
    from harness.settings import Settings
    from harness.subject import Subject, Target


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

    _add_verify(commands)
    _add_bisect(commands)

    build = add_command(commands, "build", _build, "build a subject's engines and print where they are")
    add_subject(build)
    add_choice(build)
    add_engine_cache(build)
    add_computing(build)

    reference = add_command(commands, "reference", _reference, "make or update a subject's stored references")
    add_subject(reference)
    add_cases(reference)
    add_computing(reference)

    cli_bench.add(commands)
    cli_report.add(commands)
    cli_study.add(commands)

    clean = add_command(commands, "clean", _clean, "empty the engine cache")
    clean.add_argument("--engines", type=Path, metavar="DIR", help="the engine cache (PARITY_ENGINES)")
    return parser


def _add_verify(commands: Any) -> None:
    verify = add_command(commands, "verify", _verify, "build, run and judge a subject's engines")
    add_subject(verify)
    add_cases(verify)
    add_choice(verify)
    add_engine_cache(verify)
    add_computing(verify)
    verify.add_argument("--require", action="append", default=[], metavar="BACKEND", help="exit 3 unless it was judged")
    verify.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON (docs/json.md)")
    verify.add_argument("--update-references", action="store_true", help="write stored references of these cases first")
    verify.add_argument(
        "--layers", nargs="?", const="", metavar="MODE",
        help="look at every value: unfused (tensors between kernels; the default where there is one), outputs (values "
        "as outputs), or outputs:PATTERN; plots go to reports/, or beside the JSON",
    )  # fmt: skip


def _add_bisect(commands: Any) -> None:
    bisect = add_command(
        commands, "bisect", _bisect, "find whose fault a wrong engine is, and a precision plan that passes"
    )
    add_subject(bisect)
    bisect.add_argument("--case", action="append", default=[], metavar="NAME", help="default: the first")
    add_computing(bisect)
    bisect.add_argument("-b", "--backend", required=True, metavar="BACKEND", help="see `parity doctor`")
    bisect.add_argument("-p", "--precision", required=True, metavar="PRECISION", help="as for verify")
    bisect.add_argument("--max-builds", type=int, default=30, metavar="N", help="engines to try at most; default: 30")
    bisect.add_argument(
        "--limit", type=float, metavar="ERROR", help="relative error (2-norm) that outputs may have; default: as verify"
    )
    bisect.add_argument("--jobs", type=int, default=1, metavar="N", help="engines built at a time; default: 1")
    bisect.add_argument("--json", type=Path, metavar="FILE", help="write what was found as JSON (docs/json.md)")
    bisect.add_argument("-o", "--output", type=Path, metavar="PLAN.toml", help="default: reports/SUBJECT-TARGET.toml")
    bisect.add_argument(
        "--reproducer", type=Path, metavar="DIR", help="default: reports/SUBJECT-TARGET-reproducer, where it applies"
    )


def _doctor(options: argparse.Namespace) -> int:
    from harness import environment, report
    from harness.report import text

    if options.json:
        report.check_writable(options.json)
    found = environment.gather(settings_of(options))
    print(text.machine(found))
    if options.json:
        report.save_json(report.document([], environment=found, command=options.command_line), options.json)
    return 0


def _list(options: argparse.Namespace) -> int:
    from harness import discovery
    from harness.report import text

    rows = discovery.list_subjects(options.suites)
    print(text.subject_list(rows) if rows else f"no suites in {options.suites}: a suite is a file named test_*.py")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from harness.report import text
    from harness.results import exit_status, is_judged

    subject, targets, cases = request_of(options)
    settings = settings_of(options)
    results: list[Result] = []
    missing: list[str] = []
    status = 0
    document = Document(options, settings)

    def write(**how: Any) -> None:
        document.write(results=[result.to_json() for result in results], **how)

    try:
        for result in _results(subject, targets, cases, settings, options):
            results.append(result)
            write()
        missing = [
            f"required backend {name} was not judged" for name in options.require if not is_judged(results, name)
        ]
        write(complete=not missing, error="; ".join(missing))
        status = exit_status(results, options.require)
    except KeyboardInterrupt:
        write(error="interrupted")
        status = INTERRUPTED
    except Exception as error:
        write(error=str(error))
        if results:
            print(text.table([result.to_json() for result in results]))
        raise
    print(text.table([result.to_json() for result in results]))
    _show_layers(results, options.json)
    for sentence in missing:
        print(f"parity: {sentence}", file=sys.stderr)
    if status == INTERRUPTED:
        print("parity: interrupted; the results above are those found so far", file=sys.stderr)
    return status


def _results(
    subject: Subject, targets: Sequence[Target], cases: Sequence[str], settings: Settings, options: argparse.Namespace
) -> Iterator[Result]:
    """Yield results and say on standard error how each came out; a failed ONNX file gets its Polygraphy line."""
    from harness import layers, verify

    judge = None if options.layers is None else partial(layers.judge_and_look, mode=options.layers)
    for result in verify.verify(subject, targets=targets, cases=cases, settings=settings, judge=judge):
        settings.progress(f"{result.subject}/{result.case} [{result.target}]: {result.verdict.replace('_', ' ')}")
        if (
            result.verdict == "fail"
            and subject.onnx is not None
            and (line := _polygraphy(subject, result, options.json))
        ):
            yield replace(result, next_step=f"{result.next_step}\n{line}")
        else:
            yield result


def _show_layers(results: Sequence[Result], json: Path | None) -> None:
    """Print the layer tables and draw the plots, beside the JSON or in reports/."""
    from harness.report import layers, plot

    for result in results:
        if result.layers is None:
            continue
        report = result.layers.to_json()
        print(f"\n{layers.table(report)}")
        stem = (json.parent if json else Path("reports")) / f"{result.subject}-{result.target}-{result.case}-layers"
        try:
            print(f"plot: {', '.join(str(path) for path in plot.save_layers(report, stem))}")
        except ParityError as error:  # the figures are above; the picture is an extra
            print(f"no plot: {error}")


def _bisect(options: argparse.Namespace) -> int:
    from concurrent.futures import ThreadPoolExecutor

    from harness import bisection
    from harness.report import bisection as words

    options.backend, options.precision = [options.backend], [options.precision]
    if options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs} builds nothing; give at least 1")
    subject, targets, cases = request_of(options)
    if len(options.case) > 1:
        raise UsageError(f"bisect is about one case; choose one of --case {', --case '.join(cases)}")
    settings, target = settings_of(options), targets[0]
    document = Document(options, settings)
    folder = Path("reports")
    plan = options.output or folder / f"{subject.name}-{target}.toml"
    with ThreadPoolExecutor(options.jobs) as executor:
        found = bisection.bisect(
            subject, target, cases[0], settings, max_builds=options.max_builds, limit=options.limit, plan_file=plan,
            reproducer=options.reproducer or folder / f"{subject.name}-{target}-reproducer", executor=executor,
            width=options.jobs,
        )  # fmt: skip
    print(words.text(found.to_json()))
    document.write(complete=found.complete, bisect=found.to_json())
    return INTERRUPTED if found.interrupted else {"none": 0, "not_judged": 3}.get(found.kind, 1)


def _polygraphy(subject: Subject, result: Result, json: Path | None) -> str:
    """Return the line that shows the failure in Polygraphy; write its inputs beside the JSON or in reports/."""
    from harness.prepare import case_inputs
    from harness.report import polygraphy

    assert subject.onnx is not None
    folder = json.parent if json else Path("reports")
    inputs = folder / f"{subject.name}-{result.case}-inputs.json"
    line = polygraphy.run_line(subject.onnx, backend=result.backend, precision=result.precision, inputs=inputs)
    if not line:
        return ""
    try:
        polygraphy.save_inputs(case_inputs(subject, result.case), inputs)
    except ParityError as error:  # the verdict matters more than this file
        return f"{line}  ({error})"
    return line


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
    from harness.engines import EngineCache
    from harness.reference import OutputCache

    settings = settings_of(options)
    cache = EngineCache(settings.engines, limit_bytes=settings.engine_cache_bytes)
    before = len(cache.entries())
    freed = cache.clear() + OutputCache(settings.engines / "outputs", enabled=True).clear()
    print(f"{settings.engines}: removed {before - len(cache.entries())} engines, freed {freed / 2**20:.3g} MiB")
    return 0
