"""How long engines take, and whether they got slower.

A subject and targets go in; fresh processes (:mod:`harness.timing`) time every engine in turns with PyTorch; sessions
come out, each compared with the accepted ones of its series.
"""

from __future__ import annotations

from harness.latency.accepting import Accepted, Selection, accept, recorded_series
from harness.latency.benchmark import bench, bench_opened, exit_status, lacking
from harness.latency.estimate import FEWEST_SESSIONS
from harness.latency.noise import measure_noise, noise_of, noise_report
from harness.latency.options import BASELINES, Options
from harness.latency.second_look import ACCEPTED, ROUNDS, Control, is_suspicious, judged_again
from harness.latency.sizes import combinations
from harness.latency.verdict import compare_in_turns, compare_sessions

__all__ = [
    "ACCEPTED",
    "BASELINES",
    "FEWEST_SESSIONS",
    "ROUNDS",
    "Accepted",
    "Control",
    "Options",
    "Selection",
    "accept",
    "bench",
    "bench_opened",
    "combinations",
    "compare_in_turns",
    "compare_sessions",
    "exit_status",
    "is_suspicious",
    "judged_again",
    "lacking",
    "measure_noise",
    "noise_of",
    "noise_report",
    "recorded_series",
]
