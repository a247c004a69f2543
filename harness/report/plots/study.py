"""A study as charts: quality against latency with the Pareto front, and the error over the sampler's steps.

Takes the dict of ``StudyResult.to_json()``. matplotlib is imported when a chart is drawn, without pyplot and so without
a display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.report.facts import Json, Point, pareto_front, tradeoff_points
from harness.report.plots.file import BLUE, DPI, GREY, PALE, RED, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INCHES = (10.0, 5.5)
_LINES = ("#1f5fa8", "#d97706", "#2f855a", "#b91c1c", "#6b46c1", "#0e7490", "#a16207", "#be185d", "#475569", "#65a30d")


def save_study(study: Json, stem: Path) -> dict[str, Path]:
    """Write the charts that the study has figures for, as PNG, and return them by what they show.

    Raises NotJudged when matplotlib is missing, UsageError when a file cannot be written.
    """
    charts = {}
    points, lower = tradeoff_points(study)
    if points:
        what = "pd against latency" if lower else "psnr against latency"
        charts[what] = stem.with_name(f"{stem.name}-tradeoff.png")
        save_figure([charts[what]], INCHES, lambda figure: _tradeoff(figure, study, points, lower=lower))
    stepped = [variant for variant in study["variants"] if _curve(variant, "free")]
    if stepped:
        charts["error over steps"] = stem.with_name(f"{stem.name}-steps.png")
        save_figure([charts["error over steps"]], INCHES, lambda figure: _steps(figure, study, stepped))
    return charts


def _tradeoff(figure: Figure, study: Json, points: Sequence[Point], *, lower: bool) -> None:
    axes = figure.add_subplot()
    front = pareto_front(points, lower=lower)
    axes.plot(
        [p.latency_ms for p in front], [p.quality for p in front], drawstyle="steps-post", color=BLUE, linewidth=1.2,
        label="Pareto front", zorder=2,
    )  # fmt: skip
    for failed, colour, label in ((False, BLUE, "variant"), (True, RED, "failed")):
        shown = [point for point in points if (point.verdict == "fail") == failed]
        if shown:
            axes.plot(
                [p.latency_ms for p in shown], [p.quality for p in shown], "x" if failed else "o", color=colour,
                label=label, zorder=3,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    _plain_ticks(axes)
    reference = study["variants"][0]
    if reference["latency_ms"] is not None:
        words = f"{reference['name']}: {reference['latency_ms']:.4g} ms"
        axes.axvline(reference["latency_ms"], color=GREY, linewidth=0.8, linestyle="--", label=words)
    _name_points(figure, axes, points)
    axes.set_xlabel("mean latency, ms (log)")
    axes.set_ylabel("mean PD (lower is better)" if lower else "mean PSNR, dB (higher is better)")
    axes.grid(color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    _legend(figure, axes)
    figure.suptitle(_title(study, "" if lower else "PSNR against latency: PD was not judged"), fontsize=10)


def _plain_ticks(axes: Axes) -> None:
    """Show milliseconds as they are read, and more than the one power of ten that a narrow range holds."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name_points(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Write each name beside its point, moved up or down until it lies on no other name."""
    figure.canvas.draw()
    taken: list[tuple[float, float, float]] = []
    middle = sum(axes.get_xlim()) / 2 if axes.get_xscale() == "linear" else math.sqrt(math.prod(axes.get_xlim()))
    for point in sorted(points, key=lambda p: p.quality):
        x, y = axes.transData.transform((point.latency_ms, point.quality))
        right = point.latency_ms > middle
        width = len(point.name) * 7.5 * DPI / 100
        start = x - width if right else x
        shift = 0.0
        while any(start < end and begin < start + width and abs(y + shift - at) < 24 for begin, end, at in taken):
            shift += 6
        taken.append((start, start + width, y + shift))
        axes.annotate(
            point.name, (point.latency_ms, point.quality), xytext=(-7 if right else 7, shift * 72 / DPI),
            textcoords="offset points", ha="right" if right else "left", va="center", fontsize=7.5,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}, zorder=4,
        )  # fmt: skip


def _steps(figure: Figure, study: Json, variants: Sequence[Json]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, title in (
        (left, "free", "free-running: from the same start"),
        (right, "forced", "teacher-forced: each step from the reference's latents"),
    ):
        for number, variant in enumerate(variants):
            curve = [(step, error) for step, error in _curve(variant, key) if error]  # 0 has no logarithm
            axes.plot(
                [step for step, _ in curve], [error for _, error in curve], marker=".", markersize=4, linewidth=1.1,
                color=_LINES[number % len(_LINES)], linestyle="-" if number < len(_LINES) else "--",
                label=variant["name"],
            )  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:.0e}")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step of the sampler")
        axes.grid(color=PALE, linewidth=0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylabel("relative L2 error of the latents")
    _legend(figure, left)
    figure.suptitle(_title(study, "error over steps, first picture"), fontsize=10)


def _curve(variant: Json, key: str) -> list[tuple[int, float]]:
    return [(step["step"], step[key]) for step in variant["steps"] if step[key] is not None]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False, fontsize=7.5)


def _title(study: Json, words: str) -> str:
    parts = [study["name"], study["device"], f"{study['weights']} weights", *([words] if words else [])]
    return ", ".join(parts)
