"""The history of latencies: sessions and what was accepted as a baseline, in SQLite or PostgreSQL.

Sessions go in; the sessions of a series, its baseline, its trend and its change points come out.
"""

from __future__ import annotations

from harness.history.formats import ONE_MACHINE
from harness.history.history import History, open_history
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
    "ChangePoint",
    "History",
    "Trend",
    "age_of",
    "age_words",
    "change_points",
    "has_moved",
    "open_history",
    "trend_of",
]
