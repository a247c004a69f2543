"""The operation that the export gets wrong: the ONNX graph in FP32 against PyTorch, operation by operation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.compare import FAITHFUL, relative_l2
from harness.graph import Value, order
from harness.reference import ProgramEvaluator, onnx_run_graph
from harness.verify import Prepared


@dataclass(frozen=True, kw_only=True)
class ExportFault:
    """The operation whose ONNX form differs from PyTorch, both in FP32 on the same inputs."""

    value: Value
    """Its output."""
    error: float
    """Relative L2 error of that value."""


def export_fault(prepared: Prepared, case: str) -> ExportFault | None:
    """Return the first value that its ONNX operators compute differently from the program's own inputs, or None."""
    program = prepared.program
    depths = program.depths()
    # Values that PyTorch has too, and not only the ONNX graph.
    known = [name for name in order(program.model) if name in program.values]
    shared = sorted((n for n in known if not program.values[n].op.startswith("onnx.")), key=depths.__getitem__)
    expected = prepared.values(case, shared)
    graph = onnx_run_graph(program.model)
    evaluator = ProgramEvaluator(graph, prepared.inputs[case], dtype=torch.float32, asked=shared)
    for name in shared:
        found, wanted = evaluator.value(name), expected[name]
        if found is None or not wanted.is_floating_point():
            continue
        error = relative_l2(found, wanted)
        if error > FAITHFUL:
            return ExportFault(value=program.values[name], error=error)
        evaluator.observe(name, wanted)
        evaluator.done(name)
    return None
