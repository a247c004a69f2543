"""``-p file``: an ONNX file is built and judged as it is typed."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from fake import quiet
from onnx import TensorProto, helper, numpy_helper

from harness import Target, UsageError
from harness.bisect import bisect
from harness.discovery import onnx_subject
from harness.graph import computes_in, file_dtypes, is_quantised, is_typed, load_plan, open_onnx
from harness.verify import open_engine, write_graph
from harness.verify.target import Run
from harness.verify.verify import verify


def write(path: Path, kind: int, *, ports: int | None = None) -> Path:
    """Write x @ w, then exp, in one format; inputs and outputs are in ``ports``, with Casts where that is another."""
    weight = helper.make_tensor("w", kind, [8, 8], torch.randn(64, generator=torch.manual_seed(0)).tolist())
    inside = [helper.make_node("MatMul", ["a", "w"], ["b"]), helper.make_node("Sigmoid", ["b"], ["c"])]
    nodes = [helper.make_node("Cast", ["x"], ["a"], to=kind), *inside]
    nodes.append(helper.make_node("Cast", ["c"], ["y"], to=ports or kind))
    given, made = (helper.make_tensor_value_info(name, ports or kind, [4, 8]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [given], [made], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def result_of(path: Path, tmp_path: Path, precision: str = "file"):
    subject = onnx_subject(path, inputs=None, shapes={})
    [result] = verify(subject, targets=[Target("ort-cpu", precision)], cases=["default"], settings=quiet(tmp_path))
    return result


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT], ids=["fp16", "fp32"])
def test_a_file_is_built_and_judged_as_it_is(kind: int, tmp_path: Path):
    result = result_of(write(tmp_path / "m.onnx", kind), tmp_path)
    assert (result.verdict, result.precision) == ("pass", "file"), result.reason
    assert result.provenance.plan["dtype"] == ("fp16" if kind == TensorProto.FLOAT16 else "fp32")
    assert result.outputs[0].floor.relative_l2 > (1e-5 if kind == TensorProto.FLOAT16 else 0.0)


def test_the_engine_is_given_the_file_itself(tmp_path: Path):
    path = write(tmp_path / "m.onnx", TensorProto.FLOAT16)
    subject = onnx_subject(path, inputs=None, shapes={})
    with Run(subject, quiet(tmp_path)).target(Target("ort-cpu", "file")) as opened:
        session = opened.load()
        outputs = session.run(opened.inputs("default"))
        assert opened.inputs("default")["x"].dtype == outputs["y"].dtype == torch.float16
        assert opened.declared("default") == {"y": torch.float16}
        write_graph(opened.run.prepared, opened.plan, tmp_path / "written.onnx")
    stored = onnx.load(tmp_path / "written.onnx")
    assert [node.op_type for node in stored.graph.node] == [node.op_type for node in onnx.load(path).graph.node]


def test_an_engine_that_is_run_gives_floats(tmp_path: Path):
    subject = onnx_subject(write(tmp_path / "m.onnx", TensorProto.FLOAT16), inputs=None, shapes={})
    with open_engine(subject, Target("ort-cpu", "file"), settings=quiet(tmp_path)) as engine:
        outputs, floor = engine.run(engine.inputs()), engine.run_floor(engine.inputs())
    assert outputs["y"].dtype == floor["y"].dtype == torch.float32
    torch.testing.assert_close(outputs["y"], floor["y"], rtol=1e-2, atol=1e-3)


def test_what_an_input_of_halves_cannot_hold_is_given_to_nobody(tmp_path: Path):
    subject = onnx_subject(write(tmp_path / "m.onnx", TensorProto.BFLOAT16), inputs=None, shapes={})
    with Run(subject, quiet(tmp_path)).target(Target("ort-cpu", "fp32")) as opened:
        given = opened.inputs("default")["x"]
    assert given.dtype == torch.float32
    assert torch.equal(given, given.bfloat16().float())


@pytest.mark.parametrize(
    ("kind", "ports", "name"),
    [
        (TensorProto.FLOAT16, None, "fp16"),
        (TensorProto.BFLOAT16, TensorProto.FLOAT, "bf16"),
        (TensorProto.FLOAT, None, "fp32"),
    ],
)
def test_what_a_file_computes_in(kind: int, ports: int | None, name: str, tmp_path: Path):
    path = write(tmp_path / "m.onnx", kind, ports=ports)
    model = open_onnx(path)
    assert (computes_in(model), is_typed(model), is_quantised(model)) == (name, name != "fp32", False)
    assert file_dtypes(model)["b"] == {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}[name]
    precisions = {target.precision for target in onnx_subject(path, inputs=None, shapes={}).targets}
    assert precisions == ({"fp32", "fp16"} if name == "fp32" else {"file"})


def test_a_quantised_file_is_left_as_it_is_by_default(tmp_path: Path):
    scale = numpy_helper.from_array(torch.tensor(0.1).numpy(), "s")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [given], [made], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "q.onnx")
    assert is_quantised(open_onnx(tmp_path / "q.onnx"))
    subject = onnx_subject(tmp_path / "q.onnx", inputs=None, shapes={})
    assert {target.precision for target in subject.targets} == {"file"}


def test_bisect_has_no_plan_to_look_for(tmp_path: Path):
    subject = onnx_subject(write(tmp_path / "m.onnx", TensorProto.FLOAT16), inputs=None, shapes={})
    with pytest.raises(UsageError, match="fp16"):
        bisect(subject, Target("ort-cpu", "file"), "default", quiet(tmp_path))


def test_the_name_is_taken():
    assert load_plan("file", file_computes_in="bf16").computes_in == "bf16"
    with pytest.raises(UsageError):
        load_plan("file.toml")
