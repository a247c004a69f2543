"""A study as charts: quality against latency with the Pareto front, and the error over the sampler's steps.

Takes the dict of ``StudyResult.to_json()``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import visible
from harness.report.facts import Json, Point, pareto_front, tradeoff_points
from harness.report.plots.file import DPI, GREEN, GREY, MARKERS, RED, SERIES, SLATE, named, save_figure, style_axes
from harness.report.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INCHES = (10.0, 5.5)
NAMED = 12
"""Variants; of more only the numbers stand in the chart."""
NEAR = 3.0
"""A limit above this many times the worst quality is not drawn."""


def save_study(study: Json, stem: Path) -> dict[str, Path]:
    """Write the charts that the study has figures for, as PNG, and return them by what they show.

    Raises UsageError when a file cannot be written.
    """
    t, charts = Words("en"), {}
    points, quality, _ = tradeoff_points(study)
    if points:
        what = f"{quality.removesuffix(' mean')} against latency"
        charts[what] = stem.with_name(f"{stem.name}-tradeoff.png")
        draw = partial(draw_tradeoff, study=study, t=t)
        save_figure([charts[what]], INCHES, draw, title=_title(study, what))
    if stepped(study):
        charts["error over steps"] = stem.with_name(f"{stem.name}-steps.png")
        draw = partial(draw_steps, study=study, t=t)
        save_figure([charts["error over steps"]], INCHES, draw, title=_title(study, "error over steps, first case"))
    return charts


def draw_tradeoff(figure: Figure, study: Json, t: Words) -> None:
    """Draw quality against latency with the front of variants that no other beats in both.

    Points carry the number of their row in the tables, and their name where there is room. Variants that failed are
    crosses and never on the front; the reference is a line.
    """
    points, quality, lower = tradeoff_points(study)
    front = pareto_front(points, lower=lower)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    _plain_ticks(axes)
    if front:
        axes.plot([p.latency_ms for p in front], [p.quality for p in front], drawstyle="steps-post", color=GREEN,
                  linewidth=1.4, label=t("legend_front"), gid="front", zorder=2)  # fmt: skip
    judged = [point for point in points if point.verdict != "fail"]
    failed = [point for point in points if point.verdict == "fail"]
    for name, shown, marker, colour in (
        ("on_front", front, "o", GREEN),
        ("beaten", [point for point in judged if point not in front], "o", SLATE),
        ("failed", failed, "x", RED),
    ):
        if shown:
            across, up = [p.latency_ms for p in shown], [p.quality for p in shown]
            axes.plot(across, up, marker, color=colour, markersize=7, markeredgewidth=1.6 if marker == "x" else 0,
                      label=t(f"legend_{name}"), gid=name, zorder=3)  # fmt: skip
    limits = [point.limit for point in points if point.limit is not None]
    limit = (min(limits) if lower else max(limits)) if limits else None
    if limit is not None and limit <= NEAR * max(point.quality for point in points):
        axes.axhline(limit, color=RED, linewidth=1, linestyle="--", label=t("axis_limit", limit=f"{limit:g}"))
    reference = study["variants"][0]
    if reference["latency_ms"] is not None:
        words = f"{reference['name']}: {reference['latency_ms']:.4g} ms"
        axes.axvline(reference["latency_ms"], color=GREY, linewidth=1, linestyle=":", label=named(words))
    style_axes(axes, t("axis_latency"), quality_words(quality, t))
    _name_points(figure, axes, points, full=len(study["variants"]) <= NAMED)


def quality_words(name: str, t: Words) -> str:
    """Return what a figure of quality is called on an axis."""
    words = {"pd mean": "axis_pd", "psnr": "axis_psnr"}
    return t(words[name]) if name in words else visible(name)


def _plain_ticks(axes: Axes) -> None:
    """Show milliseconds as they are read, and more than the one power of ten that a narrow range holds."""
    from matplotlib.ticker import LogLocator

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")


def _name_points(figure: Figure, axes: Axes, points: Sequence[Point], *, full: bool) -> None:
    """Write each point's number, and its name where ``full``, beside it, moved up until it lies on no other."""
    figure.draw_without_rendering() if figure.get_layout_engine() else axes.autoscale_view()
    taken: list[tuple[float, float, float]] = []
    middle = math.sqrt(math.prod(axes.get_xlim()))
    for point in sorted(points, key=lambda p: p.quality):
        words = visible(f"{point.index + 1} {point.name}" if full else str(point.index + 1))
        x, y = axes.transData.transform((point.latency_ms, point.quality))
        right = point.latency_ms > middle
        width = len(words) * 7.5 * DPI / 100
        start = x - width if right else x
        shift = 10.0  # above a line to the next point
        while any(start < end and begin < start + width and abs(y + shift - at) < 24 for begin, end, at in taken):
            shift += 6
        taken.append((start, start + width, y + shift))
        axes.annotate(
            words, (point.latency_ms, point.quality), xytext=(-7 if right else 7, shift * 72 / DPI),
            textcoords="offset points", ha="right" if right else "left", va="center", fontsize=7.5,
            gid="name", zorder=4,
        )  # fmt: skip


def draw_steps(figure: Figure, study: Json, t: Words) -> None:
    """Draw the error over the steps: running free as a line, each step from what the reference had as a dashed one."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    for number, variant in enumerate(stepped(study)):
        colour, marker = SERIES[number % len(SERIES)], MARKERS[number // len(SERIES) % len(MARKERS)]
        for key, style in (("free", "-"), ("forced", "--")):
            known = [step for step in variant["steps"] if step[key]]  # 0 has no logarithm
            label = named(f"{variant['name']}: {t('steps_' + key)}")
            axes.plot([s["step"] for s in known], [s[key] for s in known], style, marker=marker, markersize=4,
                      linewidth=1.1, color=colour, label=label)  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.0e}")
    style_axes(axes, t("axis_step"), t("axis_error"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def stepped(study: Json) -> list[Json]:
    """Return the variants whose error was recorded step by step."""
    return [variant for variant in study["variants"] if variant["steps"]]


def _title(study: Json, words: str) -> str:
    return ", ".join([study["name"], study["device"], f"{study['weights']} weights", words])
