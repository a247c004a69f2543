"""Graphs for tests: written as ONNX text and run as a plan rounds them, or exported from a small network."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir
import torch

from harness import Subject, Target
from harness.graph.export import to_onnx, trace


def parse(body: str, *, opset: int = 18) -> ir.Model:
    """Return the model of ONNX text, with initializers where it has them."""
    return ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{body}')


def parse_proto(body: str, *, opset: int = 18) -> onnx.ModelProto:
    """Return the same as a message to save."""
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]>\n{body}')


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


class Block(torch.nn.Module):
    """An embedding, a convolution, normalisations, attention and an MLP with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(11, 8)
        self.conv = torch.nn.Conv1d(8, 8, 3, padding=1)
        self.norm, self.group = torch.nn.LayerNorm(8), torch.nn.GroupNorm(2, 8)
        self.qkv, self.first, self.second = torch.nn.Linear(8, 24), torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.words(ids)
        hidden = hidden + self.group(self.conv(hidden.transpose(1, 2))).transpose(1, 2)
        query, key, value = self.qkv(self.norm(hidden)).chunk(3, dim=-1)
        scores = query @ key.transpose(1, 2) / 8**0.5
        scores = scores.masked_fill(mask[:, None] == 0, torch.finfo(scores.dtype).min)
        hidden = hidden + scores.softmax(-1) @ value
        hidden = hidden + self.second(torch.nn.functional.gelu(self.first(hidden)))
        return {"hidden": hidden, "best": hidden.argmax(-1)}


BLOCK_INPUTS = {"ids": torch.arange(10).reshape(2, 5), "mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])}


def export_module(module: torch.nn.Module, inputs: dict[str, torch.Tensor], names: list[str]):
    """Trace and translate a module with inputs of fixed sizes."""
    fixed = subject(build=lambda: module, cases={"one": lambda: dict(inputs)}, dynamic={}, ranges={})
    return export(fixed, module, dict(inputs), names)


def exported_block():
    """Return the program of a :class:`Block` with seeded weights."""
    torch.manual_seed(0)
    return export_module(Block().eval(), BLOCK_INPUTS, ["hidden", "best"])
