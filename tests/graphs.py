"""Graphs written as ONNX text, and run as a plan rounds them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from harness.graph import Plan
from harness.reference.onnx_run import Run, run_emulated


def parse(body: str, *, opset: int = 18) -> ir.Model:
    """Return the model of ONNX text, with initializers where it has them."""
    return ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{body}')


def emulated(model: ir.Model, plan: Plan, dtypes: Mapping[str, str]) -> Run:
    """Return a function that runs a model in FP32 arithmetic rounded like a plan."""
    return run_emulated(model, default=plan.compute_dtype, dtypes=dtypes, tf32=plan.tf32)
