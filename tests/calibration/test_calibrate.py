"""A subject as a quantised file: symmetric, bias in floats, weights per channel, and what each method costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from harness.cli import main
from harness.graph import in_floats, open_onnx, quantised_units, why_refused
from harness.reference import run_onnxruntime

FILES = Path(__file__).parents[1] / "data" / "quantised"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((2, 3, 32, 32), dtype=np.float32)
        np.savez(tmp_path / f"{seed}.npz", x=x)
    return tmp_path


def calibrate(*words):
    return main(["calibrate", str(FILES / "conv.onnx"), "-o", "q.onnx", "--cases", "*.npz", *words])


def test_the_file_is_as_tensorrt_wants_it_and_methods_are_compared(folder, capsys):
    assert calibrate() == 0
    shown = capsys.readouterr().out
    for words in ("max", "entropy", "percentile", "Relu 3", "worst of 3 inputs", "--against"):
        assert words in shown
    model = onnx.load("q.onnx")
    arrays = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node}
    quantisers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantisers) == 8  # an activation and a weight of each of three convolutions and a Gemm
    assert {arrays[node.input[2]].dtype for node in quantisers} == {np.dtype(np.int8)}
    assert not any(arrays[node.input[2]].any() for node in quantisers)
    for node in (node for node in model.graph.node if node.op_type in ("Conv", "Gemm")):
        assert arrays[node.input[2]].dtype == np.float32  # the bias
        assert arrays[made[node.input[1]].input[1]].size > 1  # a scale per channel
    assert not why_refused(open_onnx("q.onnx"), "trt")


def test_what_is_excluded_stays_in_floats_and_is_listed(folder, capsys):
    assert calibrate("--method", "max", "--exclude", "node_linear", "--types", "Gemm,Conv") == 0
    assert "node_linear (Gemm): excluded" in capsys.readouterr().out
    assert {unit.op for unit in quantised_units(open_onnx("q.onnx")).values()} == {"Conv"}
    assert calibrate("--method", "max", "--types", "Gemm") == 0
    assert not why_refused(open_onnx("q.onnx"), "rtx")


@pytest.mark.parametrize("words", [
    ["--method", "mean"], ["--exclude", "nothing"], ["--types", "Relu"], ["--quantiser", "mine"], ["--cases", "no*"],
])  # fmt: skip
def test_a_request_that_is_wrong_is_refused(folder, words):
    assert calibrate(*words) == 2


def test_all_units_in_floats_are_the_network_as_it_was(folder):
    assert calibrate("--method", "max") == 0
    import torch

    inputs = {"x": torch.from_numpy(np.load("0.npz")["x"])}
    model = open_onnx("q.onnx")
    [plain] = run_onnxruntime(open_onnx(FILES / "conv.onnx"), inputs)
    units = quantised_units(model)
    [same] = run_onnxruntime(in_floats(model, list(units)), inputs)
    assert torch.equal(plain["y"], same["y"])
    errors = [
        float((run_onnxruntime(in_floats(model, names), inputs)[0]["y"] - plain["y"]).norm())
        for names in (list(units)[1:], [])
    ]
    assert 0 < errors[0] < errors[1]


def test_a_weight_in_codes_alone_is_what_the_codes_stand_for():
    model = open_onnx(FILES / "conv_ort_fp8.onnx")
    units = quantised_units(model)
    assert any(unit.codes_only for unit in units.values())
    assert not quantised_units(in_floats(model, list(units)))


def test_a_node_without_a_name_is_excluded_by_its_value(folder, capsys):
    model = onnx.load(FILES / "conv.onnx")
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    gemm.name = ""
    onnx.save(model, "nameless.onnx")
    words = ["--method", "max", "--exclude", f"value:{gemm.output[0]}"]
    assert main(["calibrate", "nameless.onnx", "-o", "q.onnx", "--cases", "*.npz", *words]) == 0
    assert "(Gemm): excluded" in capsys.readouterr().out
    assert {unit.op for unit in quantised_units(open_onnx("q.onnx")).values()} == {"Conv"}
