"""Graphs for tests: written as ONNX text and run as a plan rounds them, or exported from a small network."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch

from harness import Subject, Target
from harness.graph import Plan
from harness.graph.export import to_onnx, trace
from harness.reference.onnx_run import Run, run_emulated


def parse(body: str, *, opset: int = 18) -> ir.Model:
    """Return the model of ONNX text, with initializers where it has them."""
    return ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{body}')


def emulated(model: ir.Model, plan: Plan, dtypes: Mapping[str, str]) -> Run:
    """Return a function that runs a model in FP32 arithmetic rounded like a plan."""
    return run_emulated(model, default=plan.compute_dtype, dtypes=dtypes, tf32=plan.tf32)


class Net(torch.nn.Module):
    """Calls one layer twice, masks with FP32's lowest number and returns floats and indices."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)

    def forward(self, x, mask):
        hidden = self.norm(self.layer(self.layer(x)).relu())
        masked = hidden.masked_fill(mask.bool()[:, None], torch.finfo(hidden.dtype).min)
        return {"hidden": hidden, "scores": masked.softmax(-1), "best": hidden.argmax(-1)}


INPUTS = {"x": torch.ones(3, 4), "mask": torch.tensor([0, 0, 1])}


def subject(**changes):
    fields = {
        "name": "net",
        "build": lambda: Net().eval(),
        "cases": {"one": lambda: INPUTS},
        "targets": (Target("torch", "fp16"),),
        "weights": "random",
        "dynamic": {"x": {0: "batch"}, "mask": {0: "batch"}},
        "ranges": {"batch": (1, 8)},
    }
    return Subject(**{**fields, **changes})


def export(subject, module, inputs, names):
    """Trace and translate in one step."""
    return to_onnx(subject, trace(subject, module, inputs), inputs, names)
