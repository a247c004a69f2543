"""From a subject and a target to a verdict: prepare, build, load, run, compare, judge.

A :class:`harness.Subject` and targets go in; one :class:`harness.Result` per target and case comes out.
"""

from __future__ import annotations

from harness.verify.judging import has_tf32, judge_outputs, next_step, tolerance_for, worst_reason
from harness.verify.prepared import Prepared, case_inputs, compute_device
from harness.verify.run import Run, TargetRun, like, write_graph
from harness.verify.tolerance import FACTOR, MAX_FACTOR, UNIT_ROUNDOFF, confidence_factor, is_tf32, judge
from harness.verify.verify import update_references, verify

__all__ = [
    "FACTOR",
    "MAX_FACTOR",
    "UNIT_ROUNDOFF",
    "Prepared",
    "Run",
    "TargetRun",
    "case_inputs",
    "compute_device",
    "confidence_factor",
    "has_tf32",
    "is_tf32",
    "judge",
    "judge_outputs",
    "like",
    "next_step",
    "tolerance_for",
    "update_references",
    "verify",
    "worst_reason",
    "write_graph",
]
