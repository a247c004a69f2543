"""Latency as charts: over batch size or sequence length, and over time.

Takes the dicts of ``Measured.to_json()`` and of ``series_of()``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import NotJudged, visible
from harness.files import file_name
from harness.report.facts import BASELINE, Json, is_invalid, session_latency, session_target, speed_up_interval
from harness.report.plots.file import (
    BAND,
    BLUE,
    GREEN,
    GREY,
    INK,
    MARKERS,
    RED,
    SERIES,
    named,
    png_and_svg,
    save_figure,
    style_axes,
)
from harness.report.text import ms
from harness.report.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INCHES = (11.0, 5.0)
WIDEST = 3.0
"""The axis ends at this many times the largest figure, so that one wide interval does not flatten the others."""
DATES = 5
"""Sessions of a series that have a date below them."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure with its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


Series = Mapping[str, Sequence[Measurement]]


def bench_charts(measured: Sequence[Json]) -> dict[str, list[Json]]:
    """Return the measurements of each chart by its file name, without suffix: per subject, case and kind of time.

    GPU time, host time on a GPU and host time on the CPU are never in one chart.
    """
    charts: dict[str, list[Json]] = {}
    for item in measured:
        session = item["session"]
        place = "cpu" if session["device"] == "CPU" else "gpu" if session["metric"] == "gpu_ms" else "host"
        charts.setdefault(file_name(session["subject"], f"latency-{place}", session["case"]), []).append(item)
    return charts


def save_bench(measured: Sequence[Json], stem: Path, *, write: bool = True) -> list[Path]:
    """Write charts of one subject, device, case and figure: latency and speed-up, over a size where one was swept.

    Of several swept sizes the first is the axis, and the others make curves of their own. A session of which no process
    counts is left out, as in the tables. Returns the paths of ``stem.png`` and ``stem.svg``; without ``write`` it only
    returns them. Raises NotJudged when nothing has figures that count, UsageError when a file cannot be written.
    """
    shown = [m for m in measured if session_latency(m["session"]) is not None and not is_invalid(m["session"])]
    if not shown:
        raise NotJudged("nothing has figures that count")
    if write:
        t, symbol = Words("en"), swept(shown)
        draw = partial(_both, measured=shown, symbol=symbol, t=t) if symbol else partial(_bars, measured=shown, t=t)
        session = shown[0]["session"]
        title = f"{session['subject']} {session['case']}, {session['device']}{_random(session, t)}"
        save_figure(png_and_svg(stem), INCHES, draw, title=title)
    return png_and_svg(stem)


def save_history(series: Json, stem: Path) -> list[Path]:
    """Write the chart of one series, with what was accepted and where it changed; return the paths.

    Raises NotJudged when nothing has figures, UsageError when a file cannot be written.
    """
    if all(point["ms"] is None for point in series["points"]):
        raise NotJudged("no session has figures")
    t = Words("en")
    title = series["benchmark"] + _random(series, t)
    save_figure(png_and_svg(stem), INCHES, partial(draw_history, series=series, t=t), title=title)
    return png_and_svg(stem)


def swept(measured: Sequence[Json]) -> str:
    """Return the first size of which there are several values; empty where every size has one."""
    values: dict[str, set[int]] = {}
    for item in measured:
        for name, size in item["session"]["sizes"].items():
            values.setdefault(name, set()).add(size)
    return next((name for name, sizes in values.items() if len(sizes) > 1), "")


def _random(source: Json, t: Words) -> str:
    return f", {t('random_weights')}" if source["weights"] == "random" else ""


def over_size(measured: Sequence[Json], symbol: str, t: Words) -> tuple[Series, Series]:
    """Return latency and speed-up over one size, per contestant and value of the other sizes."""
    times: dict[str, list[Measurement]] = {}
    gains: dict[str, list[Measurement]] = {}
    for item in measured:
        session = item["session"]
        if symbol not in session["sizes"]:
            continue
        others = [f"{name}={size}" for name, size in session["sizes"].items() if name != symbol]
        graph = [t("with_graph")] if session["graph"] else []
        name = " ".join([session_target(session), *others, *graph])
        x, time = float(session["sizes"][symbol]), session_latency(session)
        if time:
            point = Measurement(x=x, y=time[0], low=time[1], high=time[2])
            times.setdefault(f"{name} ({t('metric_' + session['metric'])})", []).append(point)
        for baseline, value in item["speed_up"].items():
            low, high = speed_up_interval(item, baseline)
            if value is not None:
                gain = Measurement(x=x, y=value, low=low, high=high)
                gains.setdefault(t("speed_up_of", name=name, baseline=baseline), []).append(gain)
    return times, gains


def _both(figure: Figure, measured: Sequence[Json], symbol: str, t: Words) -> None:
    times, gains = over_size(measured, symbol, t)
    axes = figure.subplots(1, 2 if gains else 1, squeeze=False)[0]
    draw_over_size(axes[0], times, symbol, t("axis_ms"))
    if gains:
        draw_over_size(axes[1], gains, symbol, t("speed_up"), one=True)


def draw_over_size(axes: Axes, series: Series, symbol: str, words: str, *, one: bool = False) -> None:
    """Draw figures with intervals over a size, such as the batch; ``one`` draws the line of no speed-up."""
    points = [point for line in series.values() for point in line]
    most = WIDEST * max(point.y for point in points)
    for number, (name, line) in enumerate(series.items()):
        ordered = sorted(line, key=lambda point: point.x)
        colour, marker = SERIES[number % len(SERIES)], MARKERS[number // len(SERIES) % len(MARKERS)]
        across, up = [point.x for point in ordered], [point.y for point in ordered]
        axes.plot(across, up, color=colour, marker=marker, markersize=6, linewidth=1.4, label=named(name), gid="series")
        _intervals(axes, ordered, colour)
    sizes = sorted({point.x for point in points})
    if sizes[0] > 0 and sizes[-1] / sizes[0] >= 4:
        axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.set_ylim(0, 1.05 * max(min(end, most) for p in points for end in (p.y, p.high) if end is not None))
    if one:
        axes.axhline(1.0, color=RED, linewidth=1, linestyle="--", gid="limit")
    style_axes(axes, symbol, words)


def _intervals(axes: Axes, points: Sequence[Measurement], colour: str) -> None:
    known = [(p.x, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    if known:
        across, low, high = zip(*known, strict=True)
        axes.vlines(across, low, high, colour, linewidth=1.4, gid="whisker")


def _bars(figure: Figure, measured: Sequence[Json], t: Words) -> None:
    """Draw one bar per contestant, with the speed-up beside it."""
    axes = figure.subplots()
    for number, item in enumerate(measured):
        found = session_latency(item["session"])
        assert found is not None
        middle, low, high = found
        axes.barh(number, middle, color=BLUE if item["session"]["runner"] == "engine" else GREY, height=0.6)
        axes.plot([low, high], [number, number], color=INK, linewidth=1)
        factor = item["speed_up"].get(BASELINE)
        words = f"  {ms(middle)} ms" + (f", {factor:.3g}x {BASELINE}" if factor else "")
        axes.annotate(words, (high, number), va="center", fontsize=8)
    axes.set_yticks(range(len(measured)), [visible(session_target(item["session"])) for item in measured])
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    style_axes(axes, f"{t('axis_ms')}, {t('metric_' + measured[0]['session']['metric'])}", "")
    axes.yaxis.grid(False)


def draw_history(figure: Figure, series: Json, t: Words) -> None:
    """Draw a series of sessions, oldest first: accepted ones are ringed, and lines show where the level changed.

    A session in an invalid environment has no height, because its figure does not count: it is a cross at the bottom.
    """
    axes, sessions = figure.subplots(), series["points"]
    points = [
        Measurement(x=i, y=found["ms"], low=found["low"], high=found["high"])
        for i, found in enumerate(sessions)
        if found["ms"] is not None and not found["invalid"]
    ]
    edge = axes.get_xaxis_transform()
    accepted = [point for point in points if sessions[int(point.x)]["accepted"]]
    if accepted:
        axes.axhspan(min(p.y for p in accepted), max(p.y for p in accepted), color=BAND, zorder=0, gid="band")
    across, up = [point.x for point in points], [point.y for point in points]
    axes.plot(across, up, "-o", color=BLUE, markersize=5, linewidth=0.8, label=t("legend_session"), gid="session")
    _intervals(axes, points, BLUE)
    if accepted:
        axes.plot(
            [p.x for p in accepted], [p.y for p in accepted], "o", markerfacecolor="none", markeredgewidth=1.6,
            markersize=9, color=GREEN, label=t("legend_accepted"), gid="accepted",
        )  # fmt: skip
    invalid = [i for i, found in enumerate(sessions) if found["invalid"]]
    if invalid:
        axes.plot(
            invalid, [0.03] * len(invalid), "x", color=RED, markersize=6, markeredgewidth=1.6, transform=edge,
            label=t("legend_invalid"), gid="invalid",
        )  # fmt: skip
    for number, change in enumerate(series["change_points"]):
        at = change["index"] - 0.5
        axes.axvline(at, color=RED, linewidth=1, linestyle="--", label="" if number else t("legend_change"))
        axes.annotate(f"{change['change']:+.1%}", (at, 0.97), xycoords=edge, xytext=(3, 0),
                      textcoords="offset points", va="top", color=RED, fontsize=8)  # fmt: skip
    every = max(1, math.ceil(len(sessions) / DATES))
    dated = [(i, found["recorded_at"][:10]) for i, found in enumerate(sessions) if i % every == 0]
    axes.set_xticks([i for i, _ in dated], [date for _, date in dated])
    axes.set_xlim(-0.5, len(sessions) - 0.5)
    style_axes(axes, t("axis_session"), f"{t('axis_ms')}, {t('metric_' + series['metric'])}")
