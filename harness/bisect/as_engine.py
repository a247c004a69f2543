"""Tensors judged as if an engine had given them."""

from __future__ import annotations

from harness.records import OutputResult
from harness.tensors import Tensors
from harness.verify import OpenTarget, compare_outputs, floor_of, judge_outputs, settle


def judge_as_engine(opened: OpenTarget, case: str, outputs: Tensors) -> tuple[OutputResult, ...]:
    """Return the verdicts on these outputs as if the target's engine had given them; nothing is built."""
    prepared, plan = opened.run.prepared, opened.plan
    expected = prepared.references.expected(case, plan)
    floor, _ = floor_of(prepared.references, case, plan)
    settled = settle(prepared, case, plan, outputs, expected, floor)
    compared = compare_outputs(
        outputs, settled.expected, settled.floor, precision=plan.computes_in, decisions=settled.decisions
    )
    return judge_outputs(opened, case, compared)
