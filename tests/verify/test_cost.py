"""What quantisation costs: held against the unquantised model, by a limit that somebody set, beside parity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from harness import Subject, Tolerance, targets
from harness.cli import main
from harness.errors import UsageError
from harness.metrics import Metric
from harness.records import Records, exit_status, load, settled_result
from harness.report import all_verdicts, badge, junit_xml, summary
from harness.report.text import results_table
from harness.settings import Settings
from harness.verify import verify

QUANTISED = Path(__file__).parents[1] / "data" / "quantised"
"""A small network of convolutions, and what onnxruntime's quantiser made of it in FP8; random weights."""
QUIET = {"progress": lambda message: None}
WEIGHT = np.random.default_rng(0).standard_normal((8, 4), dtype=np.float32)
X = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 8), dtype=np.float32))


def save(path, *, scale=None, name="x", width=8, output="y"):
    """Write ``y = x @ w``, with ``w`` and ``x`` in INT8 of one scale where one is given."""
    nodes, weights = [], []
    if scale is None:
        weights.append(numpy_helper.from_array(WEIGHT[:width], "w"))
        nodes.append(helper.make_node("MatMul", [name, "w"], [output], name="matmul"))
    else:
        codes = np.clip(np.round(WEIGHT[:width] / scale), -128, 127).astype(np.int8)
        weights += [numpy_helper.from_array(codes, "w_codes"), numpy_helper.from_array(np.float32(scale), "scale")]
        weights.append(numpy_helper.from_array(np.int8(0), "zero"))
        nodes += [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], ["x_codes"], name="q"),
            helper.make_node("DequantizeLinear", ["x_codes", "scale", "zero"], ["x_values"], name="dq"),
            helper.make_node("DequantizeLinear", ["w_codes", "scale", "zero"], ["w"], name="dq_w"),
            helper.make_node("MatMul", ["x_values", "w"], [output], name="matmul"),
        ]
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ((name, [2, width]), (output, [2, 4]))]
    graph = helper.make_graph(nodes, "net", shapes[:1], shapes[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


@pytest.fixture
def files(tmp_path):
    return {
        "fp32": save(tmp_path / "fp32.onnx"),
        "fine": save(tmp_path / "fine.onnx", scale=0.03),
        "coarse": save(tmp_path / "coarse.onnx", scale=1.5),
    }


def subject(path, unquantised, **given):
    plain = {"cases": {"one": lambda: {"x": X}}, "targets": targets("torch", precisions=("fp32",)), "weights": "file"}
    other = Subject(name="plain", onnx=unquantised, **plain)
    return Subject(name="net", onnx=path, **plain | {"against": other} | given)


def judged(it, tmp_path):
    settings = Settings(engines=tmp_path / "engines", **QUIET)
    [result] = verify(it, targets=it.targets, cases=["one"], settings=settings)
    return result


def test_without_a_limit_it_is_not_judged_and_the_figure_is_shown(files, tmp_path):
    result = judged(subject(files["fine"], files["fp32"]), tmp_path)
    assert (result.verdict, result.cost.verdict) == ("not_judged", "not_judged")
    assert "no limit for the cost of quantisation" in result.reason
    assert 1e-3 < result.cost.outputs[0].stats.relative_l2 < 0.1
    assert [output.verdict for output in result.outputs] == ["pass"]
    assert exit_status([result]) == 3


@pytest.mark.parametrize(("limit", "verdict"), [(0.1, "fail"), (0.9, "pass")])
def test_a_limit_decides_and_parity_stands_beside_it(files, tmp_path, limit, verdict):
    it = subject(files["coarse"], files["fp32"], cost=Tolerance(why="wanted", relative_l2=limit))
    result = judged(it, tmp_path)
    assert (result.verdict, result.cost.verdict) == (verdict, verdict)
    assert [output.verdict for output in result.outputs] == ["pass"]
    assert result.failure == ("wrong_answer" if verdict == "fail" else "")
    assert ("bisect" in result.next_step and "--quant" in result.next_step) == (verdict == "fail")
    assert exit_status([result]) == (1 if verdict == "fail" else 0)


def test_a_limit_of_the_precision_is_one_of_parity_alone(files, tmp_path):
    it = subject(files["coarse"], files["fp32"], tolerances={"fp32": Tolerance(why="wide", relative_l2=0.99)})
    assert judged(it, tmp_path).cost.verdict == "not_judged"


def largest(actual, expected):
    return float((actual["y"] - expected["y"]).abs().max())


@pytest.mark.parametrize(("at_most", "verdict"), [(0.5, "pass"), (1e-6, "fail")])
def test_a_task_metric_decides_in_place_of_a_limit(files, tmp_path, at_most, verdict):
    metric = Metric("largest", largest, at_most=at_most, why="wanted")
    result = judged(subject(files["fine"], files["fp32"], cost_metrics=(metric,)), tmp_path)
    assert (result.verdict, result.cost.metrics[0].verdict) == (verdict, verdict)
    assert result.cost.outputs[0].verdict == "not_judged"  # the metric decides, and the figure is shown
    table = results_table([result.to_json()])
    assert "cost: y" in table
    assert "cost: largest" in table


def test_labels_that_differ_need_a_limit_in_codes(tmp_path):
    from harness.verify.cost import judge_cost

    found = {"label": torch.tensor([0, 1, 2])}
    wanted = {"label": torch.tensor([0, 1, 3])}
    it = subject(tmp_path / "none.onnx", tmp_path / "none.onnx")
    assert judge_cost(it, found, wanted).verdict == "not_judged"
    assert judge_cost(replace(it, cost=Tolerance(why="w", max_absolute=0)), found, wanted).verdict == "fail"
    assert judge_cost(replace(it, cost=Tolerance(why="w", max_absolute=1)), found, wanted).verdict == "pass"
    assert judge_cost(replace(it, cost=Tolerance(why="w", relative_l2=0.9)), found, wanted).verdict == "not_judged"
    assert judge_cost(replace(it, cost=Tolerance(why="w", relative_l2=0.9)), wanted, wanted).verdict == "pass"


def test_an_output_that_no_limit_names_keeps_the_cost_from_passing(tmp_path):
    from harness.verify.cost import judge_cost

    both = {"a": X, "b": X}
    it = subject(tmp_path / "none.onnx", tmp_path / "none.onnx", cost={"a": Tolerance(why="w", relative_l2=0.1)})
    assert judge_cost(it, both, both).verdict == "not_judged"
    assert judge_cost(it, {"a": X}, {"a": X}).verdict == "pass"


def test_a_quantised_file_that_is_held_against_nothing_says_so(files, tmp_path):
    result = judged(subject(files["fine"], files["fp32"], against=None), tmp_path)
    assert any("--against" in note for note in result.notes)
    plain = judged(subject(files["fp32"], files["fp32"], against=None), tmp_path)
    assert not any("--against" in note for note in plain.notes)


@pytest.mark.parametrize("wrong", [float("nan"), 0.0])
def test_what_is_wrong_at_any_limit_fails_without_one(tmp_path, wrong):
    from harness.verify.cost import judge_cost

    it = subject(tmp_path / "none.onnx", tmp_path / "none.onnx")
    assert judge_cost(it, {"y": torch.full((2, 4), wrong)}, {"y": X[:, :4]}).verdict == "fail"


@pytest.mark.parametrize("other", [{"name": "image"}, {"width": 6}])
def test_inputs_are_matched_by_name_and_shape_in_one_sentence(files, tmp_path, other):
    against = save(tmp_path / "other.onnx", **other)
    with pytest.raises(UsageError, match="the same inputs, by name and shape"):
        judged(subject(files["fine"], against), tmp_path)


def test_a_single_output_needs_no_name(files, tmp_path):
    result = judged(subject(files["fine"], save(tmp_path / "other.onnx", output="z")), tmp_path)
    assert [output.name for output in result.cost.outputs] == ["z"]


def test_the_quantised_model_takes_the_place_of_the_subject_that_declares_it(files, tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("w", torch.from_numpy(WEIGHT))

        def forward(self, x):
            return {"y": x @ self.w}

    it = Subject(
        name="net", build=lambda: Net().eval(), quantised=files["fine"], cases={"one": lambda: {"x": X}},
        weights="random", targets=targets("torch", precisions=("fp32",)), cost=Tolerance(why="wanted", relative_l2=0.1),
        dynamic={"x": {0: "batch"}}, ranges={"batch": (1, 4)},
    )  # fmt: skip
    assert (it.onnx, it.build) == (files["fine"], None)
    result = judged(it, tmp_path)
    assert result.cost.verdict == "pass", result.reason
    assert (result.verdict, result.cost.verdict, result.cost.against) == ("pass", "pass", "net-unquantised")


@pytest.mark.parametrize("given", [
    {"cost": Tolerance(why="w", relative_l2=0.1), "against": None},
    {"cost": 0.1}, {"cost_metrics": ("psnr",)}, {"quantised": "q.onnx"}, {"against": "conv"},
])  # fmt: skip
def test_a_request_that_says_nothing_is_refused(tmp_path, given):
    with pytest.raises(UsageError):
        subject(tmp_path / "q.onnx", tmp_path / "p.onnx", **given)


def test_the_command_line_holds_a_file_against_another(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["verify", "coarse.onnx", "--against", "fp32.onnx", "-b", "torch", "-p", "fp32", "--no-record"]
    assert main([*command, "--json", "a.json"]) == 3
    assert main([*command, "--json", "b.json", "--cost-limit", "0.1"]) == 1
    assert "cost: y" in capsys.readouterr().out
    assert main([*command, "--cost-limit", "0.9"]) == 0
    assert main([*command[:2], "--cost-limit", "0.9", "-b", "torch"]) == 2
    [result] = json.loads((tmp_path / "b.json").read_text())["results"]
    assert result["cost"]["outputs"][0]["allowed"] == {"relative_l2": 0.1}
    records = load([tmp_path / "b.json"])
    assert not records.contradictory
    assert {(one.kind, one.verdict) for one in all_verdicts(records)} == {("accuracy", "pass"), ("cost", "fail")}
    assert badge(records)["color"] == "red"
    assert 'classname="parity.cost"' in junit_xml(records)
    assert "cost: " in summary(records)
    assert isinstance(records, Records)


def test_a_record_whose_cost_is_worse_than_its_verdict_contradicts_itself(files, tmp_path):
    it = subject(files["coarse"], files["fp32"], cost=Tolerance(why="wanted", relative_l2=0.1))
    data = judged(it, tmp_path).to_json()
    assert settled_result({**data, "verdict": "pass"})["verdict"] == "fail"
    data["cost"] |= {"verdict": "pass"}
    assert settled_result({**data, "verdict": "pass"})["verdict"] == "fail"


def seeded(seed):
    return lambda: {
        "x": torch.from_numpy(np.random.default_rng(seed).standard_normal((2, 3, 32, 32), dtype=np.float32))
    }


def test_a_network_in_fp8_that_is_off_by_four_fifths_fails_at_every_limit_below(tmp_path):
    plain = {"cases": {str(seed): seeded(seed) for seed in range(20)}, "weights": "file"}
    plain["targets"] = targets("ort-cpu", precisions=("fp32",))
    other = Subject(name="conv", onnx=QUANTISED / "conv.onnx", **plain)
    limit = Tolerance(why="the largest that has to fail", relative_l2=0.8)
    it = Subject(name="conv_ort_fp8", onnx=QUANTISED / "conv_ort_fp8.onnx", against=other, cost=limit, **plain)
    settings = Settings(engines=tmp_path / "engines", **QUIET)
    found = list(verify(it, targets=it.targets, cases=list(it.cases), settings=settings))
    assert {result.verdict for result in found} == {"fail"}
    assert {result.cost.verdict for result in found} == {"fail"}
    assert min(result.cost.outputs[0].stats.relative_l2 for result in found) > 0.8
