"""Two tensors to figures.

``compare(actual, expected)`` gives every figure that a verdict, a table or a plot needs; the norms give one number.
"""

from __future__ import annotations

from harness.compare.decisions import count_differences
from harness.compare.error_shape import error_shape
from harness.compare.formats import SMALLEST_STEP, UNIT_ROUNDOFF
from harness.compare.norms import FAITHFUL, distance, finite_error, ratio, relative_l2, require_close, total_error
from harness.compare.parts import Octaves, Slices, measure_octaves, measure_slices
from harness.compare.tensors import bitwise_equal, compare
from harness.compare.totals import Array

__all__ = [
    "FAITHFUL",
    "SMALLEST_STEP",
    "UNIT_ROUNDOFF",
    "Array",
    "Octaves",
    "Slices",
    "bitwise_equal",
    "compare",
    "count_differences",
    "distance",
    "error_shape",
    "finite_error",
    "measure_octaves",
    "measure_slices",
    "ratio",
    "relative_l2",
    "require_close",
    "total_error",
]
