"""The operation that the export gets wrong: the ONNX graph in FP32 against PyTorch, operation by operation."""

from __future__ import annotations

from dataclasses import dataclass

from harness.compare import relative_l2
from harness.graph import Value, order
from harness.reference import NodeRunner, OnnxEvaluator
from harness.verify import Prepared

SAME = 2.0**-14
"""Largest relative L2 error of a right operation: ONNX Runtime against PyTorch, both in FP32, with other kernels."""


@dataclass(frozen=True, kw_only=True)
class ExportFault:
    """The operation whose ONNX form differs from PyTorch, both in FP32 on the same inputs."""

    value: Value
    """Its output."""
    error: float
    """Relative L2 error of that value."""


def export_fault(prepared: Prepared, case: str) -> ExportFault | None:
    """Return the first value that ONNX Runtime and PyTorch compute differently from PyTorch's own inputs, or None."""
    program = prepared.program
    depths = program.depths()
    # Values that PyTorch has too, and not only the ONNX graph.
    known = [name for name in order(program.model) if name in program.values]
    shared = sorted((n for n in known if not program.values[n].op.startswith("onnx.")), key=depths.__getitem__)
    expected = prepared.values(case, shared)
    inputs = {name: tensor.cpu() for name, tensor in prepared.inputs[case].items()}
    evaluator = OnnxEvaluator(program.model, inputs, keep=shared, runner=NodeRunner())
    for name in shared:
        found, wanted = evaluator.value(name), expected[name].cpu()
        if found is None or not wanted.is_floating_point():
            continue
        error = relative_l2(found, wanted)
        if error > SAME:
            return ExportFault(value=program.values[name], error=error)
        evaluator.observe(name, wanted)
        evaluator.done(name)
    return None
