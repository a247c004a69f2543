"""The verdict on an output that is no float: indices, labels, booleans and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.verify.tolerance import judge_output

if TYPE_CHECKING:
    from harness.records import ErrorStats, OutputResult
    from harness.subject import Tolerance


def judge_decisions(
    name: str,
    stats: ErrorStats,
    *,
    precision: str,
    floor: ErrorStats | None,
    tolerance: Tolerance | None,
    is_floor: bool,
) -> OutputResult:
    """Return the verdict on one output of integers or booleans."""
    return judge_output(name, stats, precision=precision, floor=floor, tolerance=tolerance, is_floor=is_floor)
