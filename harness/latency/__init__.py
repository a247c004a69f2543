"""How long engines take, and whether they got slower.

A subject and targets go in; fresh processes time every engine in turns with PyTorch; sessions come out, each with a
verdict against the accepted ones.
"""

from __future__ import annotations

from harness.latency.benchmark import adjusted, bench, bench_opened, exit_status, lacking, repeat
from harness.latency.contestants import BASELINES, Options
from harness.latency.estimate import FEWEST_SESSIONS
from harness.latency.measure import Surroundings, measure_engine, median_ms
from harness.latency.sizes import batch_symbol, check_sizes
from harness.latency.spread import smallest_change
from harness.latency.verdict import compare_in_turns, compare_sessions, holm

__all__ = [
    "BASELINES",
    "FEWEST_SESSIONS",
    "Options",
    "Surroundings",
    "adjusted",
    "batch_symbol",
    "bench",
    "bench_opened",
    "check_sizes",
    "compare_in_turns",
    "compare_sessions",
    "exit_status",
    "holm",
    "lacking",
    "measure_engine",
    "median_ms",
    "repeat",
    "smallest_change",
]
