"""The fewest operators to leave in floats: ranked and searched in fake-quantisation, confirmed on the engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from harness import Subject, Target, Tolerance, targets
from harness.bisect import search_quantised
from harness.cli import main
from harness.errors import UsageError
from harness.graph import load_plan
from harness.metrics import Metric
from harness.report.plots import save_quant_search
from harness.report.text import quant_search_text
from harness.settings import Settings
from harness.verify import verify

STEPS = 4
BAD = "step_2"
"""The operator whose scale is much too large."""


def chain(path, *, quantised):
    """Write four products in a row; each reads its input in INT8, one of them with a scale that is much too large."""
    rng, nodes, weights, value = np.random.default_rng(0), [], [], "x"
    for step in range(STEPS):
        turn = np.linalg.qr(rng.standard_normal((8, 8)))[0].astype(np.float32)
        weights.append(numpy_helper.from_array(turn, f"w{step}"))
        read = value
        if quantised:
            scale = np.float32(1.0 if f"step_{step}" == BAD else 0.04)
            weights += [numpy_helper.from_array(scale, f"s{step}"), numpy_helper.from_array(np.int8(0), f"z{step}")]
            nodes.append(helper.make_node("QuantizeLinear", [value, f"s{step}", f"z{step}"], [f"c{step}"]))
            read = f"d{step}"
            nodes.append(helper.make_node("DequantizeLinear", [f"c{step}", f"s{step}", f"z{step}"], [read]))
        value = "y" if step == STEPS - 1 else f"v{step}"
        nodes.append(helper.make_node("MatMul", [read, f"w{step}"], [value], name=f"step_{step}"))
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "net", shapes[:1], shapes[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chain(tmp_path / "q.onnx", quantised=True)
    chain(tmp_path / "plain.onnx", quantised=False)
    return tmp_path


def subject(folder, **given):
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((4, 8), dtype=np.float32))
    plain = {"cases": {"one": lambda: {"x": x}}, "weights": "file", "targets": targets("ort-cpu", precisions=("fp32",))}
    other = Subject(name="plain", onnx=folder / "plain.onnx", **plain)
    return Subject(name="q", **plain | {"onnx": folder / "q.onnx", "against": other} | given)


def search(it, folder, precision="file"):
    settings = Settings(engines=folder / "engines", progress=lambda message: None)
    return search_quantised(
        it, Target("ort-cpu", precision), ["one"], settings, plan_file=folder / "plan.toml", max_builds=3
    )


def test_the_operator_that_costs_is_found_and_the_plan_that_leaves_it_passes(files):
    it = subject(files, cost=Tolerance(why="wanted", relative_l2=0.05))
    found = search(it, files)
    assert (found.verdict, found.exclude) == ("pass", (BAD,))
    assert [unit.name for unit in found.units if unit.left] == [BAD] == [found.units[0].name]
    assert found.units[0].alone > 0.05 > found.units[0].without
    assert [(one.units, one.verdict) for one in found.trials if one.on == "engine"] == [
        (1, "pass"), (0, "fail"), (STEPS, "pass"),
    ]  # fmt: skip
    assert all(one.ms for one in found.trials if one.on == "engine")
    assert load_plan("plan.toml").quant_exclude == (BAD,)
    settings = Settings(engines=files / "engines", progress=lambda message: None)
    for precision, verdict in (("plan.toml", "pass"), ("file", "fail")):
        [result] = verify(it, targets=[Target("ort-cpu", precision)], cases=["one"], settings=settings)
        assert result.cost.verdict == verdict
    text = quant_search_text(found.to_json())
    assert BAD in text
    assert "plan.toml" in text
    assert [path.stat().st_size > 1000 for path in save_quant_search(found.to_json(), files / "chart")] == [True]


def test_a_metric_is_a_limit_too(files):
    metric = Metric("largest", lambda a, e: float((a["y"] - e["y"]).abs().max()), at_most=0.1, why="wanted")
    assert search(subject(files, cost_metrics=(metric,)), files, "fp32").exclude == (BAD,)


def test_a_single_output_of_another_name_is_found(files):
    renamed = onnx.load(files / "plain.onnx")
    renamed.graph.node[-1].output[0] = renamed.graph.output[0].name = "z"
    onnx.save(renamed, files / "plain.onnx")
    assert search(subject(files, cost=Tolerance(why="wanted", relative_l2=0.05)), files).exclude == (BAD,)


def test_a_cost_that_all_meet_leaves_nothing(files):
    assert search(subject(files, cost=Tolerance(why="wide", relative_l2=0.9)), files).exclude == ()


def test_what_quantisation_does_not_cost_is_said(files):
    onnx_file = onnx.load(files / "plain.onnx")
    wrong = numpy_helper.to_array(onnx_file.graph.initializer[0]) * np.float32(1.5)
    onnx_file.graph.initializer[0].CopyFrom(numpy_helper.from_array(wrong, "w0"))
    onnx.save(onnx_file, files / "plain.onnx")
    found = search(subject(files, cost=Tolerance(why="wanted", relative_l2=0.05)), files)
    assert (found.verdict, found.exclude) == ("fail", ())
    assert "quantisation is not what costs it" in found.finding


def test_without_a_limit_or_a_quantised_file_there_is_nothing_to_search(files):
    with pytest.raises(UsageError, match="--cost-limit"):
        search(subject(files), files)
    limit = Tolerance(why="wanted", relative_l2=0.05)
    with pytest.raises(UsageError, match="no operator that reads quantised inputs"):
        search(subject(files, cost=limit, onnx=files / "plain.onnx"), files)


@pytest.mark.parametrize("lines", ["quant_exclude = 3", 'quant_exclude = ["nothing"]'])
def test_a_plan_that_leaves_nothing_is_refused(files, lines):
    Path("wrong.toml").write_text(f'precision = "file"\n{lines}\n')
    assert main(["verify", "q.onnx", "-b", "ort-cpu", "-p", "wrong.toml", "--no-record"]) == 2


def test_the_command_line_writes_plan_and_record(files, capsys):
    command = ["bisect", "q.onnx", "--quant", "--against", "plain.onnx", "-b", "ort-cpu", "-p", "file", "-o", "p.toml"]
    assert main([*command, "--cost-limit", "0.1", "--json", "q.json"]) == 0
    assert "--cost-limit 0.1 -b ort-cpu -p p.toml" in capsys.readouterr().out
    record = json.loads(Path("q.json").read_text())
    assert (record["complete"], record["quant"]["exclude"]) == (True, [BAD])
    assert main(command) == 2
