"""Graphs of ``QuantizeLinear`` and ``DequantizeLinear``: their exact codes, and the verdict on an engine's.

A graph, inputs and an engine's codes go in; a verdict per quantiser comes out, and the spread of right outputs.
"""

from __future__ import annotations

from harness.quantised.backends import ARITHMETIC, DIVIDES, Arithmetic
from harness.quantised.codes import Grid
from harness.quantised.evaluator import Evaluator, evaluate, last_results, quantisers
from harness.quantised.gains import Gains
from harness.quantised.judging import RUNS, Quantised, judge_codes, spread
from harness.quantised.partly import PartlyQuantised

__all__ = [
    "ARITHMETIC",
    "DIVIDES",
    "RUNS",
    "Arithmetic",
    "Evaluator",
    "Gains",
    "Grid",
    "PartlyQuantised",
    "Quantised",
    "evaluate",
    "judge_codes",
    "last_results",
    "quantisers",
    "spread",
]
