"""A bisection as a chart: what PyTorch loses with more and more values in FP32, and what a plan may lose.

Takes the dict of ``Bisection.to_json()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.facts import Json
from harness.report.plots.file import BLUE, GREEN, RED, style_axes
from harness.report.words import Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_by_values(figure: Figure, found: Json, t: Words) -> None:
    """Draw the error over the number of values in FP32; what is not finite stands as a cross at the upper edge."""
    rows, axes = found["by_values"], figure.add_subplot()
    known = [row for row in rows if row["error"]]  # 0 has no logarithm
    lost = [row["values"] for row in rows if row["error"] is None]
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.0e}")
    axes.plot([row["values"] for row in known], [row["error"] for row in known], "o-", color=BLUE, markersize=4,
              linewidth=1.2, label=t("by_values_error"))  # fmt: skip
    limits = list(found["goal"]["limits"].values()) if found["goal"] else []
    if limits:
        axes.axhline(min(limits), color=RED, linewidth=1, linestyle="--", label=t("by_values_goal"))
    if lost:
        axes.plot(lost, [0.97] * len(lost), "x", color=RED, markersize=7, markeredgewidth=1.6, clip_on=False,
                  transform=axes.get_xaxis_transform(), label=t("by_values_nonfinite"))  # fmt: skip
    if found["plan_values"] is not None:
        axes.axvline(found["plan_values"], color=GREEN, linewidth=1, linestyle=":", label=t("by_values_plan"))
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.set_xticks([row["values"] for row in rows], [str(row["values"]) for row in rows])
    axes.minorticks_off()
    style_axes(axes, t("axis_values_kept"), t("axis_error"))
