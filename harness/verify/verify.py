"""From a subject and its targets to verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.records import Result
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.verify.run import Run, TargetRun


def verify(
    subject: Subject,
    *,
    targets: Sequence[Target],
    cases: Sequence[str],
    settings: Settings,
    judge: Callable[[TargetRun, str], Result] | None = None,
) -> Iterator[Result]:
    """Yield one result per target and case; an engine is freed before the next one is built.

    ``judge`` gives the result of an opened target and a case, by default its verdict. Trouble with a backend or a
    subject is a result (``fail`` or ``not_judged``). UsageError is raised.
    """
    run = Run(subject, settings)
    for target in targets:
        with run.target(target) as opened:
            for case in cases:
                yield opened.judge(case) if judge is None else judge(opened, case)


def update_references(subject: Subject, cases: Sequence[str], settings: Settings) -> list[Path]:
    """Compute and store the FP32 reference and the FP64 truth of these cases; return the files written."""
    run = Run(subject, dataclasses.replace(settings, update_references=True))
    return [run.save_reference(case) for case in cases]
