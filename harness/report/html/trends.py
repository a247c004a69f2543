"""Accuracy over time as parts of the page: one small plot per output, a table, and what is said of changes."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.facts import Json, target_name
from harness.report.html.parts import (
    Cell,
    Group,
    Line,
    Lines,
    Part,
    Row,
    Table,
    TrendPlot,
    TrendPlots,
    columns,
    distinct,
    number,
    warnings,
    word,
)
from harness.report.text import change_words
from harness.report.words import Words

LEFT, RIGHT, TOP, BOTTOM = 6.0, 262.0, 14.0, 104.0
"""Where a plot's runs and ratios lie in its drawing of 290 by 116 units."""
ROOM = 1.08
"""The largest ratio or limit, times this, is the top."""


def trend_group(trends: Sequence[Json], id: str, t: Words) -> Group:
    """Return the trends of one subject: what changed, the plots, and a table; those that rise come first."""
    ordered = sorted(trends, key=lambda trend: not trend["creeps"])
    labels = tuple(distinct(label for trend in trends for label in warnings(trend, t)))
    parts: list[Part] = []
    if lines := [line for trend in ordered for line in _lines(trend, t)]:
        parts.append(Lines(items=tuple(lines)))
    drawn = [trend for trend in ordered if len(_known(trend)) > 1]
    if drawn:
        plots = tuple(_plot(trend, t) for trend in drawn)
        parts.append(TrendPlots(items=plots, caption=t("trend_plots_note"), labels=labels))
    rows = tuple(_row(trend, t) for trend in ordered)
    keys = ("output", "target", "case", "runs", "first_ratio", "median_ratio", "last_ratio", "limit_ratio")
    extra = ("first_ratio", "device")
    shape = columns(t, *keys, "changed_since", "device", extra=extra, runs="word", changed_since="word")
    caption = t("trends_caption", count=len(rows))
    parts.append(
        Table(id=f"{id}-table", caption=caption, columns=shape, rows=rows, filters=len(rows) > 8, labels=labels)
    )
    return Group(id=id, heading=t("accuracy_over_time"), parts=tuple(parts), labels=labels)


def _lines(trend: Json, t: Words) -> list[Line]:
    """Return a sentence per change; the newest is a warning where it is a rise."""
    found = []
    for place in reversed(range(len(trend["change_points"]))):
        warns = trend["creeps"] and place == len(trend["change_points"]) - 1
        lead = f"{t('warning')}: {_name(trend)}:" if warns else f"{_name(trend)}:"
        found.append(Line(text=change_words(trend, place, t), tone="warn" if warns else "muted", lead=lead))
    if trend["accepted"]:
        found.append(Line(text=t("level_accepted", why=trend["accepted"]), tone="muted", lead=f"{_name(trend)}:"))
    return found


def _name(trend: Json) -> str:
    return f"{target_name(trend)} {trend['case']}"


def _row(trend: Json, t: Words) -> Row:
    changes = trend["change_points"]
    newest = changes[-1] if changes else None
    change = word("")
    if newest:
        text = f"{_change(newest, t)}, {newest['recorded_at'][:10]}"
        change = Cell(text=text, tone="warn" if trend["creeps"] else "")
    figures = [number(trend[key]) for key in ("first", "median", "last", "limit")]
    names = [word(trend["output"]), word(target_name(trend)), word(trend["case"])]
    runs = Cell(text=_runs(trend, t), order=len(trend["points"]))
    return Row(cells=(*names, runs, *figures, change, word(trend["device"])))


def _change(change: Json, t: Words) -> str:
    return t("before_to_after", before=f"{change['before']:.3g}", after=f"{change['after']:.3g}")


def _runs(trend: Json, t: Words) -> str:
    counts = [f"{trend[key]} {t('verdict_' + name)}" for key, name in (("failed", "fail"), ("not_judged", "not_judged"))
              if trend[key]]  # fmt: skip
    return ", ".join([str(len(trend["points"])), *counts])


def _known(trend: Json) -> list[float]:
    return [point["ratio"] for point in trend["points"] if point["ratio"] is not None]


def _plot(trend: Json, t: Words) -> TrendPlot:
    """Return one output as a drawing: its runs from the left to the right, ratios from 0 up."""
    points = trend["points"]
    passing = [point["ratio"] for point in points if point["ratio"] is not None and point["verdict"] == "pass"]
    top: float = ROOM * max([*passing, trend["limit"] or 0.0, 1.0])
    step = (RIGHT - LEFT) / max(len(points) - 1, 1)

    def x(place: float) -> float:
        return round(LEFT + step * place, 1)

    def y(ratio: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * min(ratio / top, 1.0), 1)

    places = [(x(i), y(p["ratio"])) for i, p in enumerate(points) if p["verdict"] == "pass" and p["ratio"] is not None]
    failed = [(x(i), y(top if p["ratio"] is None else p["ratio"])) for i, p in enumerate(points)
              if p["verdict"] == "fail"]  # fmt: skip
    changes = trend["change_points"]
    return TrendPlot(
        heading=trend["output"],
        words=f"{_name(trend)}, {trend['device']}",
        line="M" + "L".join(f"{across} {up}" for across, up in places) if places else "",
        dots="".join(f"M{across} {up}h0" for across, up in places),
        failed="".join(f"M{across - 3} {up - 3}l6 6m0 -6l-6 6" for across, up in failed),
        not_judged="".join(f"M{x(i)} {BOTTOM}v-5" for i, p in enumerate(points) if p["verdict"] == "not_judged"),
        floor=y(1.0),
        limit=y(trend["limit"]) if trend["limit"] is not None else None,
        limit_words=number(trend["limit"]).text,
        changes=tuple(x(change["index"] - 0.5) for change in changes),
        change_words=_change(changes[-1], t) if changes else "",
        first=points[0]["recorded_at"][:10],
        last=points[-1]["recorded_at"][:10],
        rises=trend["creeps"],
        summary=f"{trend['output']}: {t('last_ratio')} {number(trend['last']).text}",
    )
