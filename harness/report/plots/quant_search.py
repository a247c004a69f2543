"""``parity bisect --quant`` as a chart: how many operators are in floats against what quantisation costs, and the time.

Takes the dict of ``QuantSearch.to_json()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.report.facts import Json
from harness.report.plots.file import GREEN, GREY, RED, SLATE, save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (9.0, 5.5)
DEEPEST = 1000.0
"""Errors that are so many times smaller than the largest are below the chart."""


def save_quant_search(found: Json, stem: Path) -> list[Path]:
    """Write the chart as PNG and return its path. Raises UsageError when it cannot be written."""
    path = stem.with_name(f"{stem.name}.png")
    title = f"{found['subject']} [{found['backend']} {found['precision']}]: operators in floats, cost and time"
    save_figure([path], INCHES, partial(draw_quant_search, found=found), title=title)
    return [path]


def draw_quant_search(figure: Figure, found: Json) -> None:
    """Draw the sets that were tried with their front, engines as large marks, and the engines' times below."""
    from matplotlib.ticker import MaxNLocator

    trials, units = found["trials"], f"operators in floats (of {len(found['units'])})"
    times = {trial["units"]: trial["ms"] for trial in trials if trial["ms"] is not None}
    panels = figure.subplots(2, 1, sharex=True) if times else [figure.add_subplot()]
    points = sorted((one["units"], one["error"]) for one in trials if one["on"] != "engine" and one["error"])
    front = [point for i, point in enumerate(points) if all(point[1] < other[1] for other in points[:i])]
    axes = panels[0]
    _plot(axes, points, "o", color=GREY, ms=4, label="fake-quantisation")
    _plot(axes, front, "-", color=SLATE, lw=1, drawstyle="steps-post", label="front")
    for verdict, colour in (("pass", GREEN), ("fail", RED)):
        engines = [(one["units"], one["error"]) for one in trials if one["on"] == "engine" and one["error"]
                   and one["verdict"] == verdict]  # fmt: skip
        _plot(axes, engines, "D", color=colour, ms=7, label=f"engine, {verdict}")
    if found["allowed"] is not None:
        axes.axhline(found["allowed"], color=RED, ls="--", lw=1, label="cost limit")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.0e}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    largest = max((error for _, error in points), default=1.0)
    if points and points[-1][1] < largest / DEEPEST:  # in floats nothing is left but rounding
        axes.set_ylim(bottom=largest / DEEPEST)
    style_axes(axes, x="" if times else units, y="error from unquantised FP32")
    if times:
        _plot(panels[1], sorted(times.items()), "D-", color=SLATE, ms=6)
        panels[1].set_ylim(bottom=0)
        style_axes(panels[1], x=units, y=f"ms a run ({found['device']})")


def _plot(axes: Axes, points: Sequence[tuple[int, float]], form: str, **how: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), form, **how)
