"""ONNX files that were once judged wrong, each with its right verdict, in FP32 and FP16 on the CPU."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from fake import quiet
from graphs import parse

from harness import NotJudged, targets
from harness.discovery import onnx_subject
from harness.graph import open_onnx, promote
from harness.reference import onnx_run_graph, run_graph, run_onnxruntime
from harness.verify.verify import verify

FILES = Path(__file__).parents[1] / "data" / "onnx"
INPUTS: dict[str, str | dict[str, tuple[int, ...]]] = {
    "convtranspose_grouped/ct": {"x": (2, 4, 5, 6)},
    "dynamic/reshape_baked": {"x": (2, 2, 3)},
    "dynamic/wrong_declared": {"x": (2, 3)},
    "empty/empty_dim": "past0.npz",
    "exp_overflow/chain": "x.npz",
    "lstm_lengths/bilstm": "x.npz",
    "qdq_opset17/qdq_conv": {"x": (2, 4, 12, 12)},
    "range_shape/model": "in.npz",
    "rmsnorm_overflow/rms": {"x": (2, 8, 64)},
}
PASSES = [
    *("batchnorm/bn_op11", "batchnorm/bn_op15", "contrib/ms_contrib", "convtranspose_grouped/ct"),
    *("cumsum_reverse/flip", "detection/det", "dynamic/reshape_baked", "dynamic/wrong_declared", "empty/empty_dim"),
    *("exp_overflow/chain", "gridsample16/gs16_bilinear", "lstm_lengths/bilstm", "masked_rows/finfo_min"),
    *("qdq_opset17/qdq_conv", "range_shape/model", "resize/r_cubic_align_corners", "resize/torch_up_align"),
    *("rmsnorm_overflow/rms", "scatternd_fp16/scatternd", "wiring/dup_out", "wiring/out_is_input"),
]
NOT_JUDGED = {
    "empty/empty_out": {"fp32", "fp16"},  # no element of its only output: no fault, and nothing is proved
    "masked_rows/minf": {"fp32", "fp16"},  # its own reference is NaN on the masked row
    "random/randn": {"fp32", "fp16"},
    "scatternd_fp16/scatternd": {"fp16"},  # ONNX Runtime refuses the operator
}


def subject_of(name: str):
    given = INPUTS.get(name, {})
    folder = (FILES / name).parent
    file = folder / given if isinstance(given, str) else None
    shapes = {} if isinstance(given, str) else given
    return onnx_subject(FILES / f"{name}.onnx", inputs=file, shapes=shapes)


def results_of(name: str, tmp_path: Path, **options):
    settings = quiet(tmp_path, **options)
    return list(
        verify(subject_of(name), targets=targets("ort-cpu", precisions=("fp32", "fp16")), cases=["default"],
               settings=settings)
    )  # fmt: skip


def test_every_file_is_tried():
    files = {str(path.relative_to(FILES).with_suffix("")) for path in FILES.rglob("*.onnx")}
    assert files == set(PASSES) | set(NOT_JUDGED)


@pytest.mark.parametrize("name", sorted(set(PASSES) | set(NOT_JUDGED)))
def test_the_right_verdict(tmp_path, name):
    expected = {it: "not_judged" if it in NOT_JUDGED.get(name, ()) else "pass" for it in ("fp32", "fp16")}
    results = results_of(name, tmp_path)
    assert {result.precision: result.verdict for result in results} == expected, [it.reason for it in results]


@pytest.mark.parametrize("name", sorted({*PASSES, "empty/empty_out"} - {"range_shape/model"}))
def test_two_witnesses_agree(name):
    subject = subject_of(name)
    model = promote(open_onnx(subject.onnx))
    inputs = subject.cases["default"]()
    (witness,) = run_onnxruntime(model, inputs)
    for dtype in (torch.float32, torch.float64):
        found = run_graph(onnx_run_graph(model), inputs, dtype=dtype)
        for output, tensor in witness.items():
            torch.testing.assert_close(found[output].to(tensor.dtype), tensor, rtol=1e-4, atol=1e-5)


def test_a_random_operator_is_named_and_can_be_replaced_by_stored_noise(tmp_path):
    assert "RandomNormalLike (value 'r')" in results_of("random/randn", tmp_path)[0].reason
    first, second = (results_of("random/randn", tmp_path, seed_random=seed) for seed in (0, 1))
    assert Counter(result.verdict for result in (*first, *second)) == {"pass": 4}
    assert first[0].outputs[0].stats != second[0].outputs[0].stats
    assert any("seed 1" in note for note in second[0].notes)


def test_open_ranks_and_nodes_of_one_name_are_no_obstacle(tmp_path):
    nodes = [onnx.helper.make_node("Exp", ["x"], ["e"], name="n"), onnx.helper.make_node("Neg", ["e"], ["y"], name="n")]
    declared = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", declared[:1], declared[1:]), ir_version=9)
    onnx.save(model, tmp_path / "open.onnx")
    subject = onnx_subject(tmp_path / "open.onnx", inputs=None, shapes={"x": (2, 3)})
    given = targets("ort-cpu", precisions=("fp32", "fp16"))
    results = verify(subject, targets=given, cases=["default"], settings=quiet(tmp_path))
    assert [result.verdict for result in results] == ["pass", "pass"]


def test_a_shape_that_is_not_the_declared_one_is_said(tmp_path):
    notes = [note for result in results_of("dynamic/reshape_baked", tmp_path) for note in result.notes]
    assert "output 'y' is declared [batch, 6], batch = 2, and the model gives [1, 12]" in notes


def test_a_mask_that_a_format_cannot_hold_keeps_its_softmax_in_fp32(tmp_path):
    fp32, fp16 = results_of("masked_rows/finfo_min", tmp_path)
    assert fp16.outputs[0].stats.relative_l2 < 1e-3
    assert any("p, sm" in note for note in fp16.notes)
    assert not any("kept" in note for note in fp32.notes)


@pytest.mark.parametrize(
    ("name", "words"), [("rmsnorm_overflow/rms", "overflows"), ("exp_overflow/chain", "overflows")]
)
def test_what_fp16_cannot_hold_is_said_of_an_engine_that_is_right(tmp_path, name, words):
    _, result = results_of(name, tmp_path)
    reasons = [output.reason for output in result.outputs if "cannot hold" in output.reason]
    assert result.verdict == "pass"
    assert reasons
    assert all(words in reason for reason in reasons)


def test_a_file_without_inputs_and_one_with_open_dimensions(tmp_path):
    from onnx import TensorProto, helper, save

    def write(nodes, inputs, shape):
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (*inputs, "y")]
        graph = helper.make_graph(nodes, "g", values[:-1], values[-1:])
        path = tmp_path / f"{len(inputs)}.onnx"
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    constant = helper.make_tensor("c", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    alone = write(
        [helper.make_node("Constant", [], ["c"], value=constant), helper.make_node("Exp", ["c"], ["y"])], [], [3]
    )
    negative = write([helper.make_node("Relu", ["x"], ["y"])], ["x"], [-1, 3])
    for path, shapes in ((alone, {}), (negative, {"x": (2, 3)})):
        subject = onnx_subject(path, inputs=None, shapes=shapes)
        chosen = targets("ort-cpu", "torch", precisions=("fp16",))
        found = verify(subject, targets=chosen, cases=["default"], settings=quiet(tmp_path))
        assert [result.verdict for result in found] == ["pass", "pass"]


def test_a_witness_that_computes_something_else_is_named_with_the_value(tmp_path, monkeypatch):
    """Here PyTorch's BatchNormalization of old opsets takes another variance, as onnx.reference does in another way."""
    from harness.operators import registry

    right = registry.find("BatchNormalization", opset=11)
    table = registry._TABLE["", "BatchNormalization"]
    since = max(it for it in table if it <= 11)

    @functools.wraps(right)  # it shows the same parameters
    def wrong(x, scale, bias, mean, var, **options):
        return right(x, scale, bias, mean, 2 * var, **options)

    monkeypatch.setitem(table, since, wrong)
    (first, _) = results_of("batchnorm/bn_op11", tmp_path)
    assert first.verdict == "not_judged"
    assert "two references disagree from value" in first.reason


def test_an_operator_that_the_witness_alone_computes_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.reference.onnx_calls.bind", lambda *args, **options: None)
    (result, _) = results_of("batchnorm/bn_op15", tmp_path)
    assert any("BatchNormalization" in note and "ONNX Runtime" in note for note in result.notes)


@pytest.mark.parametrize(("flips", "verdict"), [(1, "pass"), (10, "not_judged")])
def test_a_few_indices_may_be_decided_otherwise_where_the_values_agree(tmp_path, monkeypatch, flips, verdict):
    from harness.verify import onnx_graph

    path = tmp_path / "best.onnx"
    body = "g (float[256, 8] x) => (int64[256] y) { a = Neg(x)  y = ArgMax <axis = 1, keepdims = 0> (a) }"
    ir.save(parse(body), path)

    def other(model, inputs, **options):
        runs = run_onnxruntime(model, inputs, **options)
        return [{**run, "y": torch.cat([(run["y"][:flips] + 1) % 8, run["y"][flips:]])} for run in runs]

    monkeypatch.setattr(onnx_graph, "run_onnxruntime", other)
    subject = onnx_subject(path, inputs=None, shapes={})
    (result,) = verify(
        subject, targets=targets("ort-cpu", precisions=("fp16",)), cases=["default"], settings=quiet(tmp_path)
    )
    assert result.verdict == verdict
    assert any("otherwise" in note for note in result.notes) == (verdict == "pass")


def test_where_only_one_witness_runs_that_is_said(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise NotJudged("ONNX Runtime refuses the graph: no kernel")

    monkeypatch.setattr("harness.verify.onnx_graph.run_onnxruntime", refuse)
    (result, _) = results_of("batchnorm/bn_op15", tmp_path)
    assert result.verdict == "pass"
    assert any("one witness only" in note for note in result.notes)
