"""From a subject and a target to a verdict: prepare, build, load, run, compare, judge.

A :class:`harness.Subject` and targets go in; one :class:`harness.Result` per target and case comes out.
"""

from __future__ import annotations

from harness.verify.cost import engine_cost, judge_cost, unquantised
from harness.verify.engine import OpenEngine, open_engine
from harness.verify.inputs import case_inputs, structured_inputs
from harness.verify.judging import compare_outputs, floor_of, has_tf32, judge_outputs, judge_tensors, tolerance_for
from harness.verify.margins import Deciding
from harness.verify.parts import FACTOR, MAX_FACTOR, judge_parts
from harness.verify.prepare import Prepared
from harness.verify.quantised import quantised_case
from harness.verify.result import next_step, worst_reason
from harness.verify.settling import settle
from harness.verify.subject_graph import compute_device, value_dtypes
from harness.verify.target import OpenTarget, Outcome, Run, plan_of, typed_graph, write_graph
from harness.verify.tolerance import HOLDS, cannot_hold, confidence_factor, is_tf32, judge_output
from harness.verify.valid import MaskOfCase
from harness.verify.verify import build_engines, judged_by, update_references, verify, verify_case

__all__ = [
    "FACTOR",
    "HOLDS",
    "MAX_FACTOR",
    "Deciding",
    "MaskOfCase",
    "OpenEngine",
    "OpenTarget",
    "Outcome",
    "Prepared",
    "Run",
    "build_engines",
    "cannot_hold",
    "case_inputs",
    "compare_outputs",
    "compute_device",
    "confidence_factor",
    "engine_cost",
    "floor_of",
    "has_tf32",
    "is_tf32",
    "judge_cost",
    "judge_output",
    "judge_outputs",
    "judge_parts",
    "judge_tensors",
    "judged_by",
    "next_step",
    "open_engine",
    "plan_of",
    "quantised_case",
    "settle",
    "structured_inputs",
    "tolerance_for",
    "typed_graph",
    "unquantised",
    "update_references",
    "value_dtypes",
    "verify",
    "verify_case",
    "worst_reason",
    "write_graph",
]
