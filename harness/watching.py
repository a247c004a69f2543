"""The accuracy of a run goes into the history, and is held against the runs before it: pytest and ``parity verify``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ParityError, UsageError
from harness.shards import seconds_of

Json = dict[str, Any]
VARIABLE = "PARITY_NO_ACCURACY_RECORD"
"""Environment variable that keeps runs out of the history."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What the history says of the outputs of a run."""

    trends: tuple[Json, ...] = ()
    """``AccuracyTrend.to_json()`` of each output."""
    creeps: tuple[str, ...] = ()
    """A sentence for each output whose ratio rises."""
    problem: str = ""
    """Why nothing was recorded, or no trend seen; empty where both were, or were not to be."""
    notes: tuple[str, ...] = ()
    """What the history had to do."""

    @property
    def said(self) -> list[str]:
        """Every rise, and why there is nothing to see: remarks, or problems where a rise is to fail."""
        return [*(f"warning: {sentence}" for sentence in self.creeps), *([self.problem] if self.problem else [])]


def is_recorded(*, off: bool, fail_on_creep: bool) -> bool:
    """Return whether a run goes into the history: unless an option turned it ``off``, or VARIABLE did.

    Raises UsageError where a rise is to fail and none could be seen.
    """
    recorded = not off and os.environ.get(VARIABLE, "") in ("", "0")
    if fail_on_creep and not recorded:
        raise UsageError(f"--fail-on-creep needs the history; let the run be recorded (an option or {VARIABLE} is set)")
    return recorded


def watch(record: Json, environment: Callable[[], Json], *, folder: Path, url: str | None = None) -> Watched:
    """Record what a run found and return the trends; where that is impossible, a sentence says so.

    ``record`` has ``results`` and ``expected``, as the run's JSON.
    """
    from harness.history import record_accuracy
    from harness.report.text import creep_lines

    if not record["results"]:
        return Watched()
    try:
        trends, notes = record_accuracy(
            record["results"], environment(), seconds=seconds_of(record), url=url, folder=folder
        )
    except ParityError as error:
        return Watched(problem=f"accuracy was not recorded: {error}")
    found = tuple(trend.to_json() for trend in trends or ())
    return Watched(
        trends=found, creeps=tuple(creep_lines(found)), notes=tuple(f"history: {note}" for note in notes),
        problem="no trend of accuracy can be seen while the history cannot be read" if trends is None else "",
    )  # fmt: skip
