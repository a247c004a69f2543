"""Records as PNG and SVG files."""

from __future__ import annotations

from harness.report.plots.image_sheet import amplified, save_picture, save_sheet
from harness.report.plots.latency import save_bench, save_history, swept
from harness.report.plots.layers import boundaries, save_layers
from harness.report.plots.study import save_study

__all__ = [
    "amplified",
    "boundaries",
    "save_bench",
    "save_history",
    "save_layers",
    "save_picture",
    "save_sheet",
    "save_study",
    "swept",
]
