"""Layer reports as charts: the error of every value along the depth of the network, and time and error by module.

Takes the dict of ``LayerReport.to_json()``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import NotJudged, visible
from harness.report.facts import Json, compared, is_nonfinite_value, value_error, worst_first
from harness.report.plots.file import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    RED,
    WHITE,
    dots,
    png_and_svg,
    save_figure,
    style_axes,
)
from harness.report.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INCHES = (11.0, 6.5)
WIDEST = 18.0
NAMED = 8
"""Suspects that are named; the others are ringed."""
LEAST_BOUNDARIES = 6
"""With fewer boundaries than these the chart does not show where in the network a value lies."""
_LABEL_GAP = 0.19  # inches between two module labels, which stand at 60 degrees
_CHARACTER = 0.078  # inches, of a name at 7.5 points, with some air
_MARGIN = 1.2  # inches beside the axes
_LEVELS = 6
_WHITE = {"boxstyle": "square,pad=0.1", "facecolor": WHITE, "edgecolor": "none"}
_SUSPECT_MARKS = ("suspect", "nonfinite", "flip")


def save_layers(report: Json, stem: Path, *, write: bool = True) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg`` and return their paths; without ``write`` only return them.

    Raises NotJudged when no value was compared, UsageError when a file cannot be written.
    """
    values = compared(report)
    if not values:
        raise NotJudged("no value was compared")
    if write:
        t, width = Words("en"), min(WIDEST, INCHES[0] + len(values) / 130)
        draw = partial(draw_depth, report=report, t=t)
        save_figure(png_and_svg(stem), (width, INCHES[1]), draw, title=_title(report, t))
    return png_and_svg(stem)


def boundaries(values: Sequence[Json]) -> list[tuple[int, str, int]]:
    """Return where modules of two levels begin, as depth, name and level (1 or 2), in order of depth.

    Where the two uppermost levels have few boundaries, they are taken inside the module that holds most values. An
    index belongs to its list: ``encoder`` and ``encoder.layers.3`` are two levels. A module entered again begins once.
    """
    paths = [(value["depth"], _parts(value["module"])) for value in values if value["module"]]
    prefix: list[str] = []
    best: list[tuple[int, str, int]] = []
    while True:
        found = _two_levels(paths, prefix)
        best = found if len(found) > len(best) else best
        inside = Counter(path[len(prefix)] for _, path in paths if len(path) > len(prefix) and _below(path, prefix))
        if len(best) >= LEAST_BOUNDARIES or not inside:
            return best
        prefix.append(inside.most_common(1)[0][0])


def _two_levels(paths: Sequence[tuple[int, list[str]]], prefix: Sequence[str]) -> list[tuple[int, str, int]]:
    """Return the boundaries of the two levels below a prefix; what is not below it goes by its full name."""
    found: dict[str, tuple[int, str, int]] = {}
    for depth, path in paths:
        parts = path[len(prefix) :] if _below(path, prefix) else path
        for level in (1, 2):
            name = ".".join(parts[:level])
            if len(parts) >= level and name not in found:
                found[name] = (depth, name, level)
    return sorted(found.values(), key=lambda boundary: (boundary[0], boundary[2]))


def _below(path: Sequence[str], prefix: Sequence[str]) -> bool:
    return list(path[: len(prefix)]) == list(prefix)


def _parts(module: str) -> list[str]:
    """Return ``encoder.layers.3.norm#2`` as ``encoder``, ``layers.3``, ``norm``."""
    return re.findall(r"[^.]+(?:\.\d+(?![^.]))*", module.partition("#")[0])


def draw_depth(figure: Figure, report: Json, t: Words) -> None:
    """Draw the error of every compared value along depth: accumulated and local, each with its floor.

    A value that is not finite has no height: it is a cross at the top. Suspects are ringed, the worst named.
    """
    values = compared(report)
    axes = figure.add_subplot()
    _curves(axes, values, report["precision"], t)
    _limits(axes, values, t)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.0e}")
    _nonfinite(axes, report, values, t)
    inches = figure.get_figwidth() - _MARGIN
    _modules(axes, values, inches)
    _suspects(axes, [value for value in values if value["name"] != report["first_nonfinite"]], inches, t)
    style_axes(axes, t("axis_depth"), t("axis_error"))
    axes.xaxis.grid(False)


def _title(report: Json, t: Words) -> str:
    parts = [f"{report['subject']} [{report['backend']} {report['precision']}] {report['case']}"]
    parts += [t("chart_mode", mode=report["mode"])]
    parts += [t("random_weights")] if report["weights"] == "random" else []
    parts += [] if report["trusted"] else [t("chart_not_trusted")]
    return ", ".join(parts)


def _curves(axes: Axes, values: Sequence[Json], precision: str, t: Words) -> None:
    """Draw the four errors; what PyTorch loses is paler than what the engine loses."""
    small = 3.0 if len(values) < 300 else 2.0
    accumulated = [(v["depth"], math.nan if is_nonfinite_value(v) else value_error(v)) for v in values]
    for name, points, style, width, alpha in (
        ("floor", _points(values, "floor"), "--", 1.1, 0.55),
        ("accumulated", accumulated, "-", 1.4, 1.0),
    ):
        shown = [(depth, figure) for depth, figure in points if figure]  # a NaN is a gap, and a 0 has no logarithm
        across, up = [depth for depth, _ in shown], [figure for _, figure in shown]
        label = t(f"legend_{name}", floor=t.floor([precision]))
        axes.plot(across, up, style, color=BLUE, linewidth=width, alpha=alpha, zorder=4, label=label, gid=name)
    for name, size, color, zorder in (("local_floor", small * 0.7, GREY, 2), ("local", small, ORANGE, 5)):
        shown = [(depth, figure) for depth, figure in _points(values, name) if figure and math.isfinite(figure)]
        dots(axes, shown, size=size, color=color, label=t(f"legend_{name}"), gid=name.replace("_", "-"), zorder=zorder)


def _points(values: Sequence[Json], key: str) -> list[tuple[int, float | None]]:
    return [(value["depth"], value[key]) for value in values]


def _limits(axes: Axes, values: Sequence[Json], t: Words) -> None:
    """Leave room for names below and for non-finite values above; mark what is exact at the lower edge."""
    figures = [f for v in values for f in (value_error(v), v["floor"], v["local"], v["local_floor"]) if f]
    low, high = (min(figures), max(figures)) if figures else (1e-8, 1.0)
    decades = max(1.0, math.log10(high / low))
    axes.set_ylim(low / 10 ** (0.35 * decades), high * 10 ** (0.12 * decades))
    axes.margins(x=0.01)
    exact = [value["depth"] for value in values if value_error(value) == 0.0 and not is_nonfinite_value(value)]
    if exact:
        axes.plot(
            exact, [0.012] * len(exact), "|", color=BLUE, markersize=4, transform=axes.get_xaxis_transform(),
            markeredgewidth=1.0, label=t("legend_exact"), gid="exact",
        )  # fmt: skip


def _nonfinite(axes: Axes, report: Json, values: Sequence[Json], t: Words) -> None:
    """Mark non-finite values at the upper edge: they are worse than anything on the axis."""
    depth = [value["depth"] for value in values if is_nonfinite_value(value)]
    if not depth:
        return
    axes.plot(
        depth, [0.975] * len(depth), "x", color=RED, markersize=5, transform=axes.get_xaxis_transform(),
        markeredgewidth=1.3, label=t("legend_nonfinite", count=len(depth)), gid="nonfinite", zorder=6,
    )  # fmt: skip
    first = report["first_nonfinite"]
    words = t("chart_nonfinite_from", name=visible(first)) if first else t("mark_nonfinite")
    start, end = axes.get_xlim()
    left = depth[0] - start > 0.15 * (end - start)  # room for the words before the first cross
    axes.annotate(
        words, (depth[0], 0.975), xycoords=axes.get_xaxis_transform(), xytext=(-6, 0) if left else (0, -14),
        textcoords="offset points", ha="right" if left else "left", va="center", color=RED, fontsize=8,
        bbox=_WHITE, zorder=7,
    )  # fmt: skip


def _modules(axes: Axes, values: Sequence[Json], inches: float) -> None:
    """Draw a line where a module begins, and its name above where there is room."""
    found = boundaries(values)
    for upper, colour, width in ((True, GREY, 0.8), (False, PALE, 0.5)):
        starts = [depth - 0.5 for depth, _, level in found if (level == 1) == upper]
        axes.vlines(starts, 0, 1, colour, linewidth=width, zorder=0, transform=axes.get_xaxis_transform())
    span = max(1, values[-1]["depth"] - values[0]["depth"])
    placed = labels(found, end=values[-1]["depth"], gap=span * _LABEL_GAP / inches)
    top = axes.secondary_xaxis("top")
    top.set_xticks(
        [depth - 0.5 for depth, _, _ in placed], [visible(name) for _, name, _ in placed], rotation=60, ha="left"
    )
    top.tick_params(length=2, labelsize=7, color=GREY, pad=1)
    for text, (_, _, level) in zip(top.get_xticklabels(), placed, strict=True):
        text.set_gid("names")
        text.set_color(INK if level == 1 else GREY)
    top.spines["top"].set_visible(False)


def labels(found: Sequence[tuple[int, str, int]], *, end: int, gap: float) -> list[tuple[int, str, int]]:
    """Return the boundaries that are named, none nearer than ``gap`` to another: long modules of the top level first.

    A boundary of both levels goes by the name of the lower one.
    """
    starts = [depth for depth, _, level in found if level == 1]
    lower = {depth: name for depth, name, level in found if level == 2}
    length = {depth: after - depth for depth, after in zip(starts, [*starts[1:], end + 1], strict=False)}
    placed: list[tuple[int, str, int]] = []
    for depth, name, level in sorted(found, key=lambda boundary: (boundary[2], -length.get(boundary[0], 0))):
        if all(abs(depth - other) >= gap for other, _, _ in placed):
            shown = lower.get(depth, name) if level == 1 else ".".join(_parts(name)[1:])
            placed.append((depth, shown, level))
    return sorted(placed)


def _suspects(axes: Axes, values: Sequence[Json], inches: float, t: Words) -> None:
    """Ring what is suspect, and name the worst in the free band below, with a line up to the point."""
    suspects = [value for value in values if value["mark"] in _SUSPECT_MARKS]
    if not suspects:
        return
    ringed = [(v["depth"], v["local"] or value_error(v)) for v in suspects if not is_nonfinite_value(v)]
    if ringed:
        axes.plot(*zip(*ringed, strict=True), "o", markerfacecolor="none", color=RED, markersize=7, markeredgewidth=1.0,
                  label=t("legend_suspect", count=len(ringed)), gid="suspect", zorder=6)  # fmt: skip
    start, end = axes.get_xlim()
    named = sorted(worst_first(suspects)[:NAMED], key=lambda value: value["depth"])
    for value, (x, level) in zip(named, _places(named, start, end, inches), strict=True):
        label_y = 0.045 + 0.045 * level
        up_to = (value["depth"], value["local"]) if value["local"] else None
        axes.annotate(
            visible(value["name"]), up_to or (value["depth"], 0.975),
            xycoords="data" if up_to else axes.get_xaxis_transform(),
            xytext=(x, label_y), textcoords=axes.get_xaxis_transform(), ha="left", va="center", color=RED,
            fontsize=7.5, bbox=_WHITE, zorder=7, gid="names",
            arrowprops={"arrowstyle": "-", "color": RED, "linewidth": 0.4, "relpos": (0, 1), "shrinkB": 3},
        )  # fmt: skip


def _places(named: Sequence[Json], start: float, end: float, inches: float) -> Iterator[tuple[float, int]]:
    """Yield for each name a position along the axis and a level at which it overlaps no other name."""
    free = [start] * _LEVELS
    for value in named:
        length = (len(value["name"]) + 1) * _CHARACTER * (end - start) / inches
        x = max(start, min(float(value["depth"]), end - length))
        level = next((number for number, until in enumerate(free) if until <= x), free.index(min(free)))
        x = max(x, free[level])
        free[level] = x + length
        yield x, level
