"""How long one run of a loaded engine or PyTorch module takes, measured in this process.

A session and inputs go in; a :class:`harness.records.ProcessRun` comes out. ``python -m harness.timing.worker`` does it
once in a fresh process, which is why importing this loads PyTorch and nothing that only exporting or judging needs.
"""

from __future__ import annotations

from harness.timing.kernels import kernel_times
from harness.timing.measure import TimingOptions, measure_engine, measure_module
from harness.timing.median import between_events_ms, host_ms, median_ms

__all__ = [
    "TimingOptions",
    "between_events_ms",
    "host_ms",
    "kernel_times",
    "measure_engine",
    "measure_module",
    "median_ms",
]
