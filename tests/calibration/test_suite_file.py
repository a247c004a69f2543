"""A suite's quantised file: written on first use, and taken as it is afterwards."""

from __future__ import annotations

from pathlib import Path

import torch

from harness import Subject, targets
from harness.calibration import quantised_file
from harness.graph import open_onnx, quantised_units
from harness.settings import Settings

FILES = Path(__file__).parents[1] / "data" / "quantised"


def test_it_is_written_once_without_what_is_excluded(tmp_path):
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    it = Subject(
        name="conv", onnx=FILES / "conv.onnx", cases={"one": lambda: {"x": x}}, weights="file",
        targets=targets("ort-cpu", precisions=("fp32",)),
    )  # fmt: skip
    settings = Settings(engines=tmp_path / "engines", progress=lambda message: None)
    path = quantised_file(it, tmp_path / "new" / "q.onnx", exclude=("node_linear",), settings=settings)
    written = path.read_bytes()
    assert {unit.op for unit in quantised_units(open_onnx(path)).values()} == {"Conv"}
    assert quantised_file(it, path, settings=settings).read_bytes() == written
