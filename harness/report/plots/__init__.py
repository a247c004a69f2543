"""Records as charts: PNG and SVG files, and SVG inside a page, drawn by the same functions."""

from __future__ import annotations

from harness.report.plots.bisection import draw_by_values
from harness.report.plots.embedded import Drawing, embedded
from harness.report.plots.file import Draw
from harness.report.plots.image_sheet import amplified, save_picture, save_sheet
from harness.report.plots.latency import (
    Series,
    bench_charts,
    draw_history,
    draw_over_size,
    over_size,
    save_bench,
    save_history,
    swept,
)
from harness.report.plots.layers import draw_depth, save_layers
from harness.report.plots.quant_search import draw_quant_search, save_quant_search
from harness.report.plots.study import draw_steps, draw_tradeoff, quality_words, save_study, stepped

__all__ = [
    "Draw",
    "Drawing",
    "Series",
    "amplified",
    "bench_charts",
    "draw_by_values",
    "draw_depth",
    "draw_history",
    "draw_over_size",
    "draw_quant_search",
    "draw_steps",
    "draw_tradeoff",
    "embedded",
    "over_size",
    "quality_words",
    "save_bench",
    "save_history",
    "save_layers",
    "save_picture",
    "save_quant_search",
    "save_sheet",
    "save_study",
    "stepped",
    "swept",
]
