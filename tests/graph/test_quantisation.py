"""What a backend is known to refuse of a quantised graph, and an INT32 bias folded into the floats it stands for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.cli import main
from harness.graph import fold_bias, why_refused
from harness.lazy import onnx_ir as ir

X = np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)


def network(*, zero=0, codes="int8", bias="float32", kind="Conv", float_codes=""):
    """Return ``x -> Q -> DQ -> Conv or MatMul -> y`` with weights in INT8 of a scale per channel."""
    rng = np.random.default_rng(1)
    shape = (4, 3, 3, 3) if kind == "Conv" else (8, 4)
    scales = np.linspace(0.01, 0.02, 4, dtype=np.float32)
    axis = 0 if kind == "Conv" else 1
    given = {
        "w_codes": rng.integers(-127, 128, shape).astype(np.int8), "w_scale": scales,
        "scale": np.float32(0.02), "zero": np.array(zero, codes),
        "bias_codes": rng.integers(-(10**6), 10**6, 4).astype(np.int32), "bias_scale": scales * np.float32(0.02),
        "bias": rng.standard_normal(4).astype(np.float32),
    }  # fmt: skip
    weights = [numpy_helper.from_array(array, name) for name, array in given.items()]
    if float_codes:
        weights = [one for one in weights if one.name != "zero"]
        weights.append(helper.make_tensor("zero", getattr(TensorProto, float_codes), [], [0.0]))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x_codes"], name="q_of_x"),
        helper.make_node("DequantizeLinear", ["x_codes", "scale", "zero"], ["x_values"], name="dq_of_x"),
        helper.make_node("DequantizeLinear", ["w_codes", "w_scale"], ["w"], name="dq_of_w", axis=axis),
    ]
    if bias == "int32":
        nodes.append(helper.make_node("DequantizeLinear", ["bias_codes", "bias_scale"], ["b"], name="dq_of_b", axis=0))
    of_bias = "b" if bias == "int32" else "bias"
    last = ["x_values", "w", of_bias] if kind == "Conv" else ["x_values", "w"]
    nodes.append(helper.make_node(kind, last, ["y"], name="product"))
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [one for one in weights if one.name in read],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def refused(model, backend):
    return why_refused(ir.serde.deserialize_model(model), backend)


@pytest.mark.parametrize(("given", "node", "words"), [
    ({"zero": 3}, "q_of_x", "zero point 3"),
    ({"codes": "uint8"}, "q_of_x", "UINT8"),
    ({"bias": "int32"}, "dq_of_b", "--fold-bias"),
    ({"codes": "int16"}, "q_of_x", "INT16"),
    ({"float_codes": "FLOAT8E5M2"}, "q_of_x", "FLOAT8E5M2"),
    ({"float_codes": "FLOAT8E4M3FNUZ"}, "q_of_x", "FLOAT8E4M3FNUZ"),
    ({"float_codes": "FLOAT4E2M1"}, "q_of_x", "block_size=16"),
])  # fmt: skip
def test_the_sentence_names_the_node_and_what_to_do(given, node, words):
    for backend in ("trt", "rtx"):
        assert node in refused(network(kind="MatMul" if "bias" not in given else "Conv", **given), backend)
        assert words in refused(network(**given), backend)
    assert not refused(network(**given), "ort-cpu")


def test_an_int8_convolution_is_refused_where_there_is_no_kernel():
    assert "product" in refused(network(), "rtx")
    assert not refused(network(), "trt")
    assert not refused(network(kind="MatMul"), "rtx")


def test_a_quantiser_without_a_zero_point_gives_unsigned_codes():
    model = network(kind="MatMul")
    del model.graph.node[0].input[2:]
    assert "UINT8" in refused(model, "rtx")


@pytest.mark.parametrize("operator", ["QLinearConv", "QLinearMatMul", "ConvInteger", "DynamicQuantizeLinear"])
def test_operators_on_codes_are_refused(operator):
    node = helper.make_node(operator, ["x"], ["y"], name="inner")
    graph = helper.make_graph([node], "net", [], [])
    assert "QOperator" in refused(helper.make_model(graph), "trt")


def test_a_folded_bias_gives_the_same_bits():
    import onnxruntime

    model = network(bias="int32")
    folded = ir.serde.serialize_model(fold_bias(ir.serde.deserialize_model(model)))
    assert [node.op_type for node in folded.graph.node].count("DequantizeLinear") == 2
    assert not refused(folded, "trt")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = [
        onnxruntime.InferenceSession(one.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, {"x": X})[0]
        for one in (model, folded)
    ]
    assert np.array_equal(*found)


def test_the_command_line_folds_and_an_engine_says_what_it_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    onnx.save(network(bias="int32"), "net.onnx")
    command = ["verify", "net.onnx", "-b", "ort-cpu", "-p", "fp32", "--no-record", "--limit", "0.5", "--json", "a.json"]
    assert main([*command, "--fold-bias"]) == 0
    assert main(command) == 0
    assert main(["verify", "suites", "--fold-bias"]) == 2
