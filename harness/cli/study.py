"""``parity study``: variants of a system of several engines, their quality and latency, and what each gained."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import stopping
from harness.arguments import as_path, at_least, names
from harness.cli.options import Document, add_command, add_computing, add_shared, settings_of
from harness.errors import NotJudged, UsageError, suite_code

if TYPE_CHECKING:
    from harness.records import StudyResult
    from harness.systems import System


def add(commands: Any) -> None:
    """Add the command."""
    study = add_command(
        commands, "study", run, "try variants of a system of engines: quality, latency, what each gained"
    )
    study.add_argument("folder", type=as_path, metavar="DIR", help="a suite folder with study.py: suites/canny2image")
    study.add_argument("--variants", type=names, default=(), metavar="A,B", help="only these, in this order")
    study.add_argument(
        "--cases",
        "--pictures",
        dest="cases",
        type=at_least(1),
        default=4,
        metavar="N",
        help="pictures or texts; default: 4",
    )
    study.add_argument(
        "--steps", type=at_least(1), metavar="N", help="of a sampler or decoder, where a variant sets none"
    )
    study.add_argument("-b", "--backend", default="rtx", metavar="BACKEND", help="of the engines; default: rtx")
    study.add_argument("--json", type=as_path, metavar="FILE", help="default: reports/NAME-study.json")
    study.add_argument("--list", action="store_true", help="print the variants' names and stop")
    add_computing(study, budget=False)
    add_shared(study, "--no-engine-cache")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import discovery, records
    from harness.report.text import study_text
    from harness.systems import run_study

    module = discovery.load_study(options.folder)
    system = _system(module, options.folder)
    if options.list:
        with suite_code(f"study {options.folder}: variants()"):
            names = module.variants() if system is None else [variant.name for variant in system.variants]
        print("\n".join(map(str, names)))
        return 0
    discovery.check_backends([options.backend])
    path: Path = options.json or Path("reports") / f"{options.folder.resolve().name}-study.json"
    settings = settings_of(options)
    document = Document(options, settings, path=path)
    asked = {
        "variants": options.variants, "steps": options.steps, "backend": options.backend, "settings": settings,
        "folder": path.parent / f"{path.stem}-pictures",
    }  # fmt: skip
    if system is None:
        run_it = partial(module.run, pictures=options.cases, **asked)
    else:
        run_it = partial(run_study, system, cases=options.cases, **asked)
    found, interrupted = document.collect(
        _results(run_it, f"study {options.folder}: run()"),
        _study_so_far,
        lambda found: print(study_text(found[-1].to_json())),
    )  # fmt: skip
    if found:
        study = _with_charts(found[-1], path)
        with document.written(interrupted=interrupted, **_study_so_far([study])):
            print(f"{study_text(study.to_json())}\njson: {path}")
    if interrupted:
        return stopping.exit_status()
    if not found:
        error = f"study {options.folder} gave no result; its run() must yield one"
        document.write(error=error, **_study_so_far(found))
        raise NotJudged(error)
    variants = records.settled_study(found[-1].to_json())["variants"]
    return records.status_of([variant["verdict"] for variant in variants[1:]])


def _system(module: Any, folder: Path) -> System | None:
    """Return what ``SYSTEM()`` of a study gives; None where it has ``variants()`` and ``run()``."""
    from harness.systems import System

    if not hasattr(module, "SYSTEM"):
        return None
    with suite_code(f"study {folder}: SYSTEM()"):
        system = module.SYSTEM()
    if not isinstance(system, System):
        raise UsageError(f"study {folder}: SYSTEM() gave a {type(system).__name__}; give a harness.systems.System")
    return system


def _results(run_it: Callable[[], Any], what: str) -> Iterator[StudyResult]:
    """Yield what a study's run() yields. Raises NotJudged when it raises, UsageError for what is no result."""
    from harness.records import StudyResult

    with suite_code(what):
        found = run_it()
        if not isinstance(found, Iterable):
            raise UsageError(f"{what} returned a {type(found).__name__}; it must yield a StudyResult per variant")
        for item in found:
            if not isinstance(item, StudyResult):
                raise UsageError(f"{what} gave a {type(item).__name__}; it must yield a StudyResult per variant")
            yield item


def _study_so_far(found: Sequence[StudyResult]) -> dict[str, Any]:
    """Return what is written: a study yields its whole result after every variant."""
    return {"study": found[-1].to_json() if found else None}


def _with_charts(study: StudyResult, path: Path) -> StudyResult:
    """Return the study with its charts drawn beside the JSON."""
    from harness.report.plots import save_study

    charts = save_study(study.to_json(), path.with_suffix(""))
    return dataclasses.replace(study, charts={what: file.name for what, file in charts.items()})
