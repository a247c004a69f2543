"""Records as text for a terminal. One module per kind of record."""

from __future__ import annotations

from harness.report.text.accuracy import accuracy_text, change_words, creep_lines, trend_name
from harness.report.text.bisection import bisection_text, plan_snippet
from harness.report.text.codes import codes_text
from harness.report.text.diagnosis import commands_of, culprit_words, diagnosis_lines, diagnosis_text
from harness.report.text.known import known_table, known_text
from harness.report.text.latency import kernels_table, latency_advice, latency_line, latency_table, speed_up
from harness.report.text.layers import layers_text, shown_mark, values_table
from harness.report.text.machine import backend_lines, gpu_words, machine_text, subjects_table
from harness.report.text.parts import failed_part_text, part_counts, part_figures, parts_text
from harness.report.text.quant_search import quant_search_text
from harness.report.text.results import (
    failure_text,
    limit_words,
    result_line,
    results_table,
    runs_lines,
    source_words,
    verdict_counts,
    worst_error,
)
from harness.report.text.series import accepted_text, history_text, noise_text, series_of
from harness.report.text.study import study_text
from harness.report.text.tables import WORDS, aligned, ascii_safe, failure_word, latency_word, ms, number, verdict_word

__all__ = [
    "WORDS",
    "accepted_text",
    "accuracy_text",
    "aligned",
    "ascii_safe",
    "backend_lines",
    "bisection_text",
    "change_words",
    "codes_text",
    "commands_of",
    "creep_lines",
    "culprit_words",
    "diagnosis_lines",
    "diagnosis_text",
    "failed_part_text",
    "failure_text",
    "failure_word",
    "gpu_words",
    "history_text",
    "kernels_table",
    "known_table",
    "known_text",
    "latency_advice",
    "latency_line",
    "latency_table",
    "latency_word",
    "layers_text",
    "limit_words",
    "machine_text",
    "ms",
    "noise_text",
    "number",
    "part_counts",
    "part_figures",
    "parts_text",
    "plan_snippet",
    "quant_search_text",
    "result_line",
    "results_table",
    "runs_lines",
    "series_of",
    "shown_mark",
    "source_words",
    "speed_up",
    "study_text",
    "subjects_table",
    "trend_name",
    "values_table",
    "verdict_counts",
    "verdict_word",
    "worst_error",
]
