"""A small network, its subject, and its export in one step."""

from __future__ import annotations

import torch

from harness import Subject, Target
from harness.graph.export import to_onnx, trace


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
