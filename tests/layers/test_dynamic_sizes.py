"""Sizes that are known at run time and feed arange, reshape and slices: every value is seen, in few engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
import torch
from fake import quiet

from harness import Result, Subject, Target
from harness.graph import save_model
from harness.layers import judge_with_layers
from harness.layers.observation import Unobserved, _bytes_of
from harness.verify import Run, verify_case
from harness.verify.prepare import prepare

MOST_ENGINES = 3


class Rotary(torch.nn.Module):
    """Attention with rotary positions: the length feeds arange, heads are split by reshape, the mask is triangular."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(32, 96)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, length, _ = x.shape
        angles = torch.outer(torch.arange(length, dtype=x.dtype), 10000.0 ** (-torch.arange(0, 4, dtype=x.dtype) / 4))
        turns = torch.stack([angles.cos(), angles.sin()], -1)
        q, k, v = (it.reshape(batch, length, 4, 8).transpose(1, 2) for it in self.project(x).chunk(3, -1))
        q, k = (self.turned(it.unflatten(-1, (4, 2)), turns) for it in (q, k))
        later = torch.arange(length).unsqueeze(0) > torch.arange(length).unsqueeze(1)
        weights = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(later, -1e4).softmax(-1)
        return {"y": (weights @ v).transpose(1, 2).reshape(batch, length, 32)}

    @staticmethod
    def turned(pairs: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        (a, b), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


class Grid(torch.nn.Module):
    """A head of a detector: height and width feed the coordinates of every cell, added to what a convolution gives."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        made = self.head(image)
        height, width = made.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = torch.stack([columns, rows], -1).reshape(1, height * width, 2).to(made.dtype)
        flat = made.flatten(2).transpose(1, 2)
        return {"boxes": torch.cat([flat[..., :2].sigmoid() + cells, flat[..., 2:].exp()], -1) / width}


class Windows(torch.nn.Module):
    """A speech front end: frames are gathered by positions that come of the length, and padded to whole blocks."""

    def forward(self, wave: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = wave.shape[1] // 4 - 1
        places = torch.arange(frames).unsqueeze(1) * 4 + torch.arange(8)
        cut = wave[:, places] * torch.hann_window(8, periodic=False)
        energy = cut.square().sum(-1).clamp(min=1e-6).log()
        return {"energy": energy - energy.mean(1, keepdim=True), "last": energy[:, -1:]}


CASES: dict[type[torch.nn.Module], tuple[dict[str, tuple[int, ...]], dict[str, Any]]] = {
    Rotary: ({"x": (2, 6, 32)}, {"dynamic": {"x": {0: "batch", 1: "tokens"}},
                                 "ranges": {"batch": (1, 8), "tokens": (2, 512)}}),
    Grid: ({"image": (1, 3, 20, 28)}, {"dynamic": {"image": {2: "height", 3: "width"}},
                                       "ranges": {"height": (8, 512), "width": (8, 512)}}),
    Windows: ({"wave": (2, 64)}, {"dynamic": {"wave": {1: "samples"}}, "ranges": {"samples": (16, 4096)}}),
}  # fmt: skip


def looked_at(subject: Subject, folder: Path, said: list[str]) -> Result:
    with Run(subject, quiet(folder, progress=said.append)).target(Target("ort-cpu", "fp32")) as opened:
        return judge_with_layers(opened, "one")


@pytest.mark.parametrize("module", CASES)
def test_sizes_known_at_run_time_take_few_engines(module: type[torch.nn.Module], tmp_path: Path) -> None:
    shapes, sizes = CASES[module]
    drawn = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(*shape, generator=drawn) for name, shape in shapes.items()}
    given: dict[str, Any] = {
        "cases": {"one": lambda: inputs}, "targets": (Target("ort-cpu", "fp32"),), "weights": "random",
    }  # fmt: skip
    made = Subject(name="dynamic", build=lambda: module().eval(), **given, **sizes)
    file = tmp_path / "dynamic.onnx"
    save_model(prepare(made, quiet(tmp_path)).program.model, file)
    for subject in (made, Subject(name="dynamic-file", onnx=file, **given)):
        said: list[str] = []
        result = looked_at(subject, tmp_path, said)
        assert result.verdict == "pass", result.reason
        assert result.layers is not None, result.notes
        assert [it for it in result.layers.values if it.status == "compared"], result.notes
        assert not [it for it in result.layers.values if it.mark in ("suspect", "nonfinite", "flip")]
        engines = [line for line in said if "observing" in line]
        assert 1 <= len(engines) <= MOST_ENGINES, engines


PADDLE = """
<ir_version: 9, opset_import: ["": 17]>
agraph (float["DynamicDimension.0", 3, "DynamicDimension.1", "DynamicDimension.2"] x)
    => (float["DynamicDimension.9", "DynamicDimension.10"] y)
<float[8, 3, 3, 3] w, int64[3] flat = {0, 8, -1},
 float["DynamicDimension.3", 8, "DynamicDimension.4", "DynamicDimension.5"] made,
 float["DynamicDimension.6", 8, "DynamicDimension.7", "DynamicDimension.8"] kept>
{
    made = Conv <strides = [4, 4]> (x, w)
    kept = Relu (made)
    row = Reshape (kept, flat)
    places = NonZero (row)
    counted = Cast <to = 1> (places)
    y = ReduceMean <axes = [0]> (counted)
}
"""
"""A file as Paddle writes it: every size has a name of its own, and what follows from data has none."""


def test_sizes_that_no_input_names_are_those_of_the_case(tmp_path: Path) -> None:
    file = tmp_path / "paddle.onnx"
    model = onnx.parser.parse_model(PADDLE)
    weights = onnx.numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    model.graph.initializer.append(weights)
    onnx.save(model, file)
    inputs = {"x": torch.rand(1, 3, 24, 40)}
    subject = Subject(
        name="paddle", onnx=file, cases={"one": lambda: inputs}, targets=(Target("ort-cpu", "fp32"),), weights="random"
    )
    with Run(subject, quiet(tmp_path)).target(Target("ort-cpu", "fp32")) as opened:
        outcome = verify_case(opened, "one")
        assert outcome.repeats is not None, outcome.result.reason
        outputs = outcome.repeats.worst
        before = Unobserved(opened=opened, case="one", result=outcome.result, outputs=outputs)
        names = ["made", "kept", "row", "places", "counted"]
        values = before.prepared.values("one", names)
        assert _bytes_of(names, before) == {name: 4 * values[name].numel() for name in names}
