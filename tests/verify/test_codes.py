"""The verdict on quantised engines of ONNX Runtime, and of an engine with a fault in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fake import quiet
from onnx import TensorProto, helper, numpy_helper

from harness import Target, Tolerance
from harness.bisect import bisect
from harness.discovery import onnx_subject
from harness.graph import load_plan
from harness.quantised import judging
from harness.records import settled_result
from harness.records.accuracy import verdict_of
from harness.report.text import codes_text, failure_text, results_table
from harness.verify import codes, quantised
from harness.verify.target import Run
from harness.verify.verify import verify

FILES = Path(__file__).parents[1] / "data" / "quantised"


@pytest.fixture(autouse=True)
def _few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "RUNS", 16)


def verified(name: str, tmp_path: Path, precision: str = "file", **changes):
    subject = onnx_subject(FILES / f"{name}.onnx", inputs=None, shapes={})
    for key, value in changes.items():
        object.__setattr__(subject, key, value)
    [result] = verify(subject, targets=[Target("ort-cpu", precision)], cases=["default"], settings=quiet(tmp_path))
    return result


@pytest.mark.parametrize("name", ["conv_mo_int8_fp16", "conv_mo_int8_fp32", "conv_ort_fp8", "conv_sym21"])
def test_onnx_runtime_is_right(name: str, tmp_path: Path):
    result = verified(name, tmp_path)
    assert result.verdict == "pass", result.reason
    assert result.codes.same_bits
    assert {one.verdict for one in result.codes.quantisers} == {"pass"}
    assert result.provenance.reference.startswith("computed in FP64")
    text = codes_text(result.to_json())
    assert all(one.name in text for one in result.codes.quantisers)
    assert "flip floor" in results_table([result.to_json()])


@pytest.mark.parametrize("kind", ["UINT16", "FLOAT8E5M2"])
def test_codes_of_other_types_are_seen(kind: str, tmp_path: Path):
    zero = helper.make_tensor("z", getattr(TensorProto, kind), [], [0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "s", "z"], ["read"]),
        helper.make_node("MatMul", ["read", "w"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"), zero]
    weights.append(numpy_helper.from_array(np.float32(0.1), "s"))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "q.onnx")
    subject = onnx_subject(tmp_path / "q.onnx", inputs=None, shapes={})
    [result] = verify(subject, targets=[Target("ort-cpu", "file")], cases=["default"], settings=quiet(tmp_path))
    assert (result.verdict, result.codes.same_bits) == ("pass", True), result.reason
    assert [(one.kind, one.verdict) for one in result.codes.quantisers] == [(kind, "pass")]


def test_the_file_typed_anew_is_judged_by_codes_too(tmp_path: Path):
    result = verified("conv_sym21", tmp_path, "fp32")
    assert (result.verdict, result.codes.verdict) == ("pass", "pass"), result.reason


def wrong_engine(monkeypatch: pytest.MonkeyPatch, name: str):
    """Let the exact graph have another scale, so that the engine's is off by 1 %."""
    real = judging.Quantised.run

    def run(self, given=None, **options):
        weights = dict(self.options["weights"])
        weights[name] = weights[name] * 1.01
        self.options["weights"] = weights
        try:
            return real(self, given, **options)
        finally:
            weights[name] = weights[name] / 1.01

    monkeypatch.setattr(judging.Quantised, "run", run)


def test_a_scale_off_by_one_percent_fails_and_bisect_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wrong_engine(monkeypatch, "relu_1_scale")
    result = verified("conv_ort_fp8", tmp_path)
    assert (result.verdict, result.failure) == ("fail", "wrong_answer")
    wrong = [one.name for one in result.codes.quantisers if one.verdict == "fail"]
    assert wrong[0] == "relu_1_QuantizeLinear_Output"
    assert "relu_1_QuantizeLinear_Output" in result.reason
    assert "relu_1_QuantizeLinear_Output" in failure_text(result.to_json())
    assert result.next_step.splitlines()[0].endswith("-p file")
    subject = onnx_subject(FILES / "conv_ort_fp8.onnx", inputs=None, shapes={})
    found = bisect(subject, Target("ort-cpu", "file"), "default", quiet(tmp_path))
    assert found.kind == "engine"
    assert "relu_1_QuantizeLinear_Output" in found.finding


def test_a_record_whose_codes_are_wrong_is_no_pass(tmp_path: Path):
    record = verified("conv_ort_fp8", tmp_path).to_json()
    record["codes"]["quantisers"][2]["two_apart"] = 3
    assert settled_result(record)["verdict"] == "fail"


def test_codes_beside_a_tolerance_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wrong_engine(monkeypatch, "relu_1_scale")
    wide = Tolerance(why="a test", relative_l2=0.5)
    result = verified("conv_ort_fp8", tmp_path, tolerances={"y": wide})
    assert (result.verdict, result.codes.verdict, result.codes.decides) == ("pass", "fail", False)
    assert verdict_of(result) == "pass"


def test_elements_that_do_not_count_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = codes._see

    def wrong_in_the_first_row(opened, case, actual):
        seen = real(opened, case, actual)
        seen.outputs["y"][0] += 1
        actual["y"][0] += 1
        return seen

    monkeypatch.setattr(codes, "_see", wrong_in_the_first_row)
    assert verified("conv_ort_fp8", tmp_path).verdict == "fail"
    mask = torch.tensor([[False], [True]])
    assert verified("conv_ort_fp8", tmp_path, valid={"y": lambda inputs: mask}).verdict == "pass"


def test_an_engine_whose_codes_cannot_be_seen_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    unseen = codes.Seen(codes={}, outputs={}, inside={}, unseen={})
    monkeypatch.setattr(codes, "_see", lambda *_: unseen)
    result = verified("conv_ort_fp8", tmp_path)
    assert (result.verdict, result.codes.verdict) == ("not_judged", "not_judged")
    assert not result.codes.same_bits


def test_two_references_may_differ_by_flips(tmp_path: Path):
    run = Run(onnx_subject(FILES / "conv_sym21.onnx", inputs=None, shapes={}), quiet(tmp_path))
    graph, inputs = run.prepared.graph, run.prepared.inputs["default"]
    exact = quantised.quantised_case(graph, inputs, load_plan("fp32")).run()
    near = {"y": exact["y"] + 0.0002 * exact["y"].std()}
    far = {"y": exact["y"] + 0.5 * exact["y"].std()}
    assert quantised.flips_explain(graph, inputs, exact, near)
    assert not quantised.flips_explain(graph, inputs, exact, far)
    assert graph.is_quantised
