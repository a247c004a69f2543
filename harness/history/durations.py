"""How long tests of engines take, for a split into shards: of an earlier record, or of the history."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from harness.errors import NotJudged
from harness.history.history import History, open_history
from harness.records import run_id
from harness.shards import Durations, read_durations

HISTORY = Path("history")
"""What ``--durations-from`` takes for the history in the place of a file; ``./history`` is a file."""
_RUNS = 8
"""Records of each series that are looked at: shards of this run that were run again may have added some."""


def durations_from(source: Path | None, *, folder: Path, url: str | None = None) -> Durations:
    """Return the durations of an option: of a record, of the history, or none.

    Raises UsageError for a file that is no record, and for a history that is none.
    """
    if source != HISTORY:
        return read_durations(source)
    try:
        with open_history(url, folder=folder) as history:
            history.check_readable("tests are counted")
            seconds = recorded_seconds(history)
    except NotJudged as error:
        return Durations(words=f"by count: {error}")
    if not seconds:
        return Durations(words="by count: the history holds no durations")
    digest = hashlib.sha256(json.dumps(sorted(seconds.items())).encode()).hexdigest()
    return Durations(seconds=seconds, sha256=digest, words=f"by {len(seconds)} durations of the history")


def recorded_seconds(history: History) -> Mapping[tuple[str, ...], float]:
    """Return what each engine and case took in its newest run, by subject, case, backend and precision.

    What the shards of this run have recorded already is left out, and what came after it, so that all find the same.
    """
    runs = history.accuracies(_RUNS)
    own = [run.recorded_at for run in runs if run.run == run_id()]
    before = [run for run in runs if not own or run.recorded_at < min(own)]
    return {
        (run.subject, run.case, run.backend, run.precision): run.seconds
        for run in sorted(before, key=lambda run: (run.recorded_at, run.id))
        if run.seconds is not None
    }
