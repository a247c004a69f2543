"""The time of one run of a loaded engine or PyTorch module, measured in this process.

A session and inputs go in; a :class:`harness.records.ProcessRun` comes out. ``python -m harness.timing.worker`` does it
in a fresh process, so importing this package loads PyTorch, but no module that only exports or judges.
"""

from __future__ import annotations

from harness.timing.measure import TimingOptions, measure_engine, measure_module
from harness.timing.median import between_events_ms, host_ms, kernel_times, median_ms

__all__ = [
    "TimingOptions",
    "between_events_ms",
    "host_ms",
    "kernel_times",
    "measure_engine",
    "measure_module",
    "median_ms",
]
