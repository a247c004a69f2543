"""Accuracy over time as plain text: the trend of every output, and what is said of one that rises.

Everything here takes the JSON of an ``AccuracyTrend``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.facts import Json, target_name
from harness.report.text.tables import WORDS, aligned, ascii_safe, number, wrapped
from harness.report.words import Words

LEVELS = "_.:-=+*#"
"""Marks of a sparkline, from the lowest ratio of a row to its highest."""
SPARK = 30
"""Runs of a sparkline: the newest."""
LEAST = 1.25
"""Highest over lowest ratio of a sparkline, at least: a smaller change is none (harness/history/ratio_changes.py)."""
SHORT = 12
"""Letters that are shown of a commit, a run and a hash."""
SHOWN = 10
"""Rises that a run names; ``parity history --accuracy`` has all."""
_SHORTENED = ("commit", "engine")


def creep_lines(trends: Sequence[Json], t: Words = WORDS) -> list[str]:
    """Return one sentence for each output whose ratio rises, at most SHOWN, and how many there are beyond them."""
    rising = [trend for trend in trends if trend["creeps"]]
    more = [t("creep_more", count=len(rising) - SHOWN)] if len(rising) > SHOWN else []
    return [*(f"{trend_name(one)}: {change_words(one, -1, t)}" for one in rising[:SHOWN]), *more]


def trend_name(trend: Json) -> str:
    """Return ``clip/short [rtx-fp16]``."""
    return f"{trend['subject']}/{trend['case']} [{target_name(trend)}]"


def change_words(trend: Json, place: int, t: Words = WORDS) -> str:
    """Return one change point in a sentence: from what to what, since when, and what changed there."""
    change = trend["change_points"][place]
    rose = change["after"] > change["before"]
    said = t(
        "ratio_rose" if rose else "ratio_fell", output=trend["output"], before=f"{change['before']:.3g}",
        after=f"{change['after']:.3g}", date=change["recorded_at"][:10], run=change["run"][:SHORT],
    )  # fmt: skip
    limit = t("ratio_limit", limit=f"{trend['limit']:.3g}") if rose and trend["limit"] is not None else ""
    return f"{said}{limit}; {_what_changed(change, t)}"


def _what_changed(change: Json, t: Words) -> str:
    if not change["changed"]:
        return t("nothing_changed_then")
    what = ", ".join(_changed(one, t) for one in change["changed"])
    away = change["runs_away"]
    if not away:
        return t("changed_then", what=what)
    return t("changed_before" if away < 0 else "changed_after", what=what, runs=abs(away))


def _changed(one: Json, t: Words) -> str:
    before, after = (
        (one[key][:SHORT] if one["name"] in _SHORTENED else one[key]) or t("not_known") for key in ("before", "after")
    )
    return t("from_to", name=one["name"], before=before, after=after)


def accuracy_text(trends: Sequence[Json], *, hidden: int = 0) -> str:
    """Return a table of trends and a sentence per change point; ``hidden`` series are only counted."""
    headings = ["subject", "case", "target", "output", "device", "runs", "first", "median", "last", "limit", "newest"]
    rows = [
        [
            one["subject"], one["case"], target_name(one), one["output"] or "-", one["device"], _runs(one),
            *(number(one[key]) for key in ("first", "median", "last", "limit")), sparkline(one["points"]),
        ]
        for one in trends
    ]  # fmt: skip
    widest = max(len(row[-1]) for row in [headings, *rows])
    lines = aligned([[*map(ascii_safe, row[:-1]), row[-1].ljust(widest)] for row in [headings, *rows]], words=5)
    said = [
        line
        for one in trends
        for place, change in enumerate(one["change_points"])
        for line in wrapped(_lead(one, change), change_words(one, place))
    ]
    said += [
        line for one in trends if one["accepted"]
        for line in wrapped(f"{trend_name(one)} {one['output']}: ", WORDS("level_accepted", why=one["accepted"]))
    ]  # fmt: skip
    legend = (
        f"Ratios of the error (2-norm) to the floor of what passed. newest: up to {SPARK} runs, from the row's lowest "
        f"ratio {LEVELS[0]} to its highest {LEVELS[-1]}; x failed, ? not judged. Each kind of device has its own."
    )
    older = f"not shown, of earlier weights, inputs or plans: {hidden}; --json has them"
    return "\n".join([*lines, *wrapped("", legend, indent=""), *([older] if hidden else []), *said])


def _lead(trend: Json, change: Json) -> str:
    is_newest = change["index"] == trend["change_points"][-1]["index"]
    return f"{'warning: ' if trend['creeps'] and is_newest else ''}{trend_name(trend)}: "


def _runs(trend: Json) -> str:
    """Return ``40, 2 failed``."""
    counts = [f"{trend[key]} {key.replace('_', ' ')}" for key in ("failed", "not_judged") if trend[key]]
    return ", ".join([str(len(trend["points"])), *counts])


def sparkline(points: Sequence[Json]) -> str:
    """Return the newest points as marks: heights of ratios that passed, ``x`` for failures, ``?`` without a figure."""
    shown = points[-SPARK:]
    known = [point["ratio"] for point in shown if point["verdict"] == "pass" and point["ratio"] is not None]
    low = min(known, default=0.0)
    high = max([*known, LEAST * low])  # what is no change at all shall not look like one
    return "".join(_mark(point, low, high) for point in shown)


def _mark(point: dict[str, Any] | Json, low: float, high: float) -> str:
    if point["verdict"] == "fail":
        return "x"
    if point["verdict"] != "pass" or point["ratio"] is None:
        return "?"
    share = (point["ratio"] - low) / (high - low) if high > low else 0.0
    return LEVELS[min(int(share * len(LEVELS)), len(LEVELS) - 1)]
