"""The history: latencies, what was accepted as their baseline, and accuracies, in SQLite or PostgreSQL.

Sessions and what runs found go in; the sessions of a series, its baseline, trends and change points come out.
"""

from __future__ import annotations

from harness.history.accuracy import (
    WINDOW,
    accept_rises,
    accuracy_runs,
    accuracy_trends,
    record_accuracy,
)
from harness.history.durations import durations_from
from harness.history.formats import ONE_MACHINE
from harness.history.history import History, open_history
from harness.history.ratio_changes import RUNS_BEFORE, ratio_changes
from harness.history.trends import (
    FEWEST_POINTS,
    RECENT,
    ChangePoint,
    Trend,
    age_of,
    age_words,
    change_points,
    has_moved,
    trend_of,
)

__all__ = [
    "FEWEST_POINTS",
    "ONE_MACHINE",
    "RECENT",
    "RUNS_BEFORE",
    "WINDOW",
    "ChangePoint",
    "History",
    "Trend",
    "accept_rises",
    "accuracy_runs",
    "accuracy_trends",
    "age_of",
    "age_words",
    "change_points",
    "durations_from",
    "has_moved",
    "open_history",
    "ratio_changes",
    "record_accuracy",
    "trend_of",
]
