"""Plans, their assignment, and the graphs made from them, on tiny graphs built here and run in ONNX Runtime."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from graphs import parse

from harness.errors import NotJudged, UsageError
from harness.graph import constants
from harness.graph.onnx_file import onnx_values
from harness.graph.plan import Plan, assign, load_plan, matching
from harness.graph.typed import apply
from harness.graph.types import promote, to_float64
from harness.graph.values import Value
from harness.reference.interpreter import run_graph
from harness.reference.onnx_calls import onnx_run_graph

HALF_ULP = {"float16": 2**-11, "bfloat16": 2**-8}


def run(model: ir.Model, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Check a model fully and run it in ONNX Runtime, without graph optimisation."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def fp16(model: ir.Model, **inputs: np.ndarray) -> ir.Model:
    """Return the float16 graph after holding its outputs, names and IO dtypes against the FP32 graph's."""
    typed = apply(model, {}, default="float16").model
    expected, actual = run(model, **inputs), run(typed, **inputs)
    assert list(actual) == list(expected)
    for name in expected:
        assert actual[name].dtype == expected[name].dtype
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-2, atol=1e-2)
    return typed


def dtypes_of(model: ir.Model) -> dict[str, str]:
    """Return the dtype of every value of the main graph."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [value for node in model.graph for value in node.outputs]
    return {str(value.name): str(value.dtype) for value in values}


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def value(name: str, **fields: object) -> Value:
    return Value(**{"name": name, "origin": name, "op": "onnx.Add", "dtype": "float32", **fields})


VALUES = {
    row.name: row
    for row in (
        value("linear", module="encoder.layer.3.mlp", op="aten.linear.default"),
        value("val_1", origin="linear", module="encoder.layer.3.mlp", op="onnx.MatMul"),
        value("norm", module="encoder.layer.3", op="aten.layer_norm.default"),
        value("norm_1", module="encoder.layer.30", op="aten.layer_norm.default"),
        value("head", module="head#2", op="aten.linear.default"),
        value("ids", module="encoder.layer.3", dtype="int64"),
        value("scale", dtype="", module=""),
    )
}


def plan(*keep: str, dtype: str = "fp16") -> Plan:
    return Plan(name="mixed", dtype=dtype, keep_fp32=keep, source="mixed.toml")


# Plans


@pytest.mark.parametrize(
    ("name", "dtype", "tf32"),
    [("fp32", "fp32", False), ("tf32", "fp32", True), ("fp16", "fp16", False), ("bf16", "bf16", False)],
)
def test_plain_precisions_are_plans(name: str, dtype: str, tf32: bool) -> None:
    assert load_plan(name) == Plan(name=name, dtype=dtype, tf32=tf32, keep_fp32=(), source="")


def test_plan_file(tmp_path: Path) -> None:
    path = tmp_path / "mixed.toml"
    path.write_text('precision = "bf16"\nkeep_fp32 = ["encoder.layer.3", "op:aten.layer_norm"]\n')
    loaded = load_plan(str(path))
    assert loaded == Plan(
        name="mixed", dtype="bf16", keep_fp32=("encoder.layer.3", "op:aten.layer_norm"), source=str(path)
    )
    assert loaded.compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precision = ", "is not valid TOML"),
        ('precision = "fp61"', "unknown precision 'fp61'; did you mean fp16"),
        ('precision = "fp16"\nkeep = []', "unknown key 'keep'; did you mean keep_fp32?"),
        ("precision = 16", "precision must be one of fp32, tf32, fp16, bf16"),
        ("", "precision must be one of"),
        ('precision = "fp16"\nkeep_fp32 = "norm"', "keep_fp32 must be a list of patterns"),
        ('precision = "fp16"\nkeep_fp32 = [1]', "keep_fp32 must be a list of patterns"),
        ('precision = "tf32"\nkeep_fp32 = ["norm"]', "keep_fp32 has nothing to keep when precision is 'tf32'"),
    ],
)
def test_bad_plan_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"plan\.toml") as error:
        load_plan(str(path))
    assert message in str(error.value)


def test_unknown_precision_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown precision 'f16'; did you mean fp16"):
        load_plan("f16")
    with pytest.raises(UsageError, match=r"missing\.toml cannot be read"):
        load_plan(str(tmp_path / "missing.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UsageError, match=r"folder\.toml cannot be read"):
        load_plan(str(tmp_path / "folder.toml"))


# Assignment


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("encoder.layer.3", {"linear", "val_1", "norm"}),
        ("encoder.layer.3.*", {"linear", "val_1"}),
        ("encoder.*", {"linear", "val_1", "norm", "norm_1"}),
        ("encoder.layer.?", {"linear", "val_1", "norm"}),
        ("head", {"head"}),
        ("head#2", {"head"}),
        ("op:aten.layer_norm", {"norm", "norm_1"}),
        ("op:aten.layer_norm.default", {"norm", "norm_1"}),
        ("op:onnx.MatMul", {"linear", "val_1"}),
        ("value:val_1", {"linear", "val_1"}),
        ("value:norm*", {"norm", "norm_1"}),
    ],
)
def test_patterns_keep_whole_origins(pattern: str, kept: set[str]) -> None:
    dtypes = assign(plan(pattern), VALUES)
    assert {name for name, dtype in dtypes.items() if dtype == "float32"} == kept
    assert set(dtypes) == set(VALUES) - {"ids"}
    assert set(dtypes.values()) == {"float16", "float32"}


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("value:m[0]", {"m[0]"}),
        ("value:m[01]", {"m0", "m1"}),
        ("value:m*", {"m[0]", "m0", "m1", "m?"}),
        ("value:m?", {"m?"}),
        ("value:m[[]0]", {"m[0]"}),
    ],
)
def test_a_value_whose_name_looks_like_a_pattern_can_be_named(pattern: str, kept: set[str]) -> None:
    names = ("m[0]", "m0", "m1", "m?")
    known = [Value(name=n, origin=n, op="onnx.Add", module="", source="", dtype="float32", shape=(2,)) for n in names]
    table = {value.name: value for value in known}
    dtypes = assign(plan(pattern), table)
    assert {name for name, dtype in dtypes.items() if dtype == "float32"} == kept
    assert matching(pattern, table) == kept


@pytest.mark.parametrize("pattern", ["head#1", "Encoder.layer.3", "op:aten", "op:onnx", "value:ids", "layer.3"])
def test_patterns_that_match_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"mixed\.toml: keep_fp32 matches no float value"):
        assign(plan(pattern), VALUES)


def test_nearest_names_are_offered() -> None:
    with pytest.raises(UsageError) as error:
        assign(plan("encoder.layer.4", "op:aten.layernorm", "value:lineal"), VALUES)
    assert "'encoder.layer.4' (nearest: encoder.layer.3" in str(error.value)
    assert "'op:aten.layernorm' (nearest: op:aten.layer_norm" in str(error.value)
    assert "'value:lineal' (nearest: value:linear" in str(error.value)


# The typed graph

LINEAR = """
g (float[2, 4] x) => (float[2, 3] y)
<float[4, 3] w = {1, -2, 3, 0.5, 0.25, -1, 2, 1, 0.1, 1, 1, 1}, float[3] b = {1, 2, 3}>
{ h = MatMul(x, w)  s = Add(h, b)  y = Relu(s) }
"""


def test_every_value_is_typed_and_the_boundary_stays() -> None:
    typed = fp16(parse(LINEAR), x=normal(2, 4))
    assert dtypes_of(typed) == {
        "x": "FLOAT",
        "x_as_fp16": "FLOAT16",
        "w_fp16": "FLOAT16",
        "b_fp16": "FLOAT16",
        "h": "FLOAT16",
        "s": "FLOAT16",
        "y_fp16": "FLOAT16",
        "y": "FLOAT",
    }
    assert ops(typed) == ["Cast", "MatMul", "Add", "Relu", "Cast"]


def test_the_model_itself_is_unchanged() -> None:
    model = parse(LINEAR)
    before = ir.to_proto(model).SerializeToString()
    for change in (lambda: apply(model, {}, default="float16"),):
        change()
        assert ir.to_proto(model).SerializeToString() == before
    to_float64(model), promote(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_fp32_is_a_graph_without_casts() -> None:
    applied = apply(parse(LINEAR), {}, default="float32")
    assert ops(applied.model) == ["MatMul", "Add", "Relu"]
    assert (applied.notes, applied.counts) == ((), {"float32": 3})


def test_a_mixed_plan_keeps_exactly_what_it_names() -> None:
    model = parse(LINEAR)
    applied = apply(model, assign(plan("value:s"), onnx_values(model)), default="float16")
    types = dtypes_of(applied.model)
    assert {name: types[name] for name in ("h", "h_as_fp32", "b", "s", "s_as_fp16", "y_fp16")} == {
        "h": "FLOAT16",
        "h_as_fp32": "FLOAT",
        "b": "FLOAT",
        "s": "FLOAT",
        "s_as_fp16": "FLOAT16",
        "y_fp16": "FLOAT16",
    }
    assert applied.counts == {"float16": 2, "float32": 1}
    assert run(applied.model, x=normal(2, 4))["y"].dtype == np.float32


def test_one_cast_serves_all_readers() -> None:
    model = parse("g (float[4] x) => (float[4] y) { a = Add(x, x)  b = Exp(x)  c = Mul(a, b)  y = Add(c, x) }")
    assert ops(fp16(model, x=normal(4))) == ["Cast", "Add", "Exp", "Mul", "Add", "Cast"]


def test_a_kept_value_that_is_an_output_needs_no_cast() -> None:
    model = parse("g (float[4] x) => (float[4] a, float[4] y) { a = Exp(x)  y = Add(a, x) }")
    typed = apply(model, {"a": "float32"}, default="float16").model
    assert ops(typed) == ["Cast", "Exp", "Cast", "Add", "Cast"]
    assert [str(output.name) for output in typed.graph.outputs] == ["a", "y"]
    run(typed, x=normal(4))


def test_names_already_taken_are_left_alone() -> None:
    model = parse("g (float[4] x) => (float[4] x_as_fp16) { x_as_fp16_2 = Exp(x)  x_as_fp16 = Exp(x_as_fp16_2) }")
    typed = fp16(model, x=normal(4) / 4)
    assert "x_as_fp16_3" in dtypes_of(typed)


SPECIAL_CASES = {
    "cast": "g (int64[4] n, float[4] x) => (float[4] y) { f = Cast <to = 1> (n)  y = Add(f, x) }",
    "cast_to_int": "g (float[4] x, float[4] z) => (int64[4] n) { a = Add(x, z)  n = Cast <to = 7> (a) }",
    "cast_like": "g (int64[4] n, float[4] x) => (float[4] y) { f = CastLike(n, x)  y = Add(f, x) }",
    "cast_like_int": "g (float[4] x, int64[1] n) => (int64[4] y) { a = Add(x, x)  y = CastLike(a, n) }",
    "constant": "g (float[4] x) => (float[4] y) { c = Constant <value_float = 0.5> ()  y = Mul(x, c) }",
    "constant_tensor": "g (float[2] x) => (float[2] y) { c = Constant <value = float[2] {0.5, 2}> ()  y = Mul(x, c) }",
    "constant_output": "g (float[1] x) => (float[1] y, float[1] c)"
    "{ c = Constant <value = float[1] {0.1}> ()  y = Mul(x, c) }",
    "constant_of_shape": "g (float[4] x) => (float[4] y)"
    "{ s = Shape(x)  c = ConstantOfShape <value = float[1] {2.5}> (s)  y = Mul(x, c) }",
    "constant_of_shape_default": "g (float[4] x) => (float[4] y)"
    "{ s = Shape(x)  c = ConstantOfShape (s)  y = Add(x, c) }",
    "constant_of_shape_int": "g (float[4] x) => (int64[4] c)"
    "{ s = Shape(x)  c = ConstantOfShape <value = int64[1] {7}> (s) }",
    "range": "g (float x) => (float[n] y) <float zero = {0}, float one = {1}> { r = Range(zero, x, one)  y = Exp(r) }",
    "resize": "g (float[1, 1, 4, 4] x) => (float[1, 1, 8, 8] y) <float[0] roi = {}, float[4] scales = {1, 1, 2, 2}>"
    '{ r = Resize <mode = "linear"> (x, roi, scales)  y = Add(r, r) }',
    "pow": "g (float[4] x) => (float[4] y) <float two = {2}> { y = Pow(x, two) }",
    "pow_int": "g (float[4] x) => (float[4] y) <int64 two = {2}> { y = Pow(x, two) }",
    "batch_norm": "g (float[2, 2, 3] x) => (float[2, 2, 3] y)"
    "<float[2] s = {1, 2}, float[2] b = {0, 1}, float[2] m = {0.1, 0.2}, float[2] v = {1, 0.5}>"
    "{ y = BatchNormalization(x, s, b, m, v) }",
    "layer_norm": "g (float[2, 4] x) => (float[2, 4] y, float[2, 1] m)"
    "<float[4] s = {1, 2, 1, 1}, float[4] b = {0, 1, 0, 0}> { y, m = LayerNormalization(x, s, b) }",
    "shape": "g (float[2, 3] x) => (int64[2] s, int64 n) { e = Exp(x)  s = Shape(e)  n = Size(e) }",
    "where": "g (bool[4] c, float[4] x) => (float[4] y) <float m = {-10}> { y = Where(c, x, m) }",
    "compare": "g (float[4] x) => (bool[4] y) <float zero = {0}> { e = Neg(x)  y = Greater(e, zero) }",
    "compare_mixed": "g (float[4] x) => (bool[4] y) { e = Neg(x)  y = Less(e, x) }",
    "arg_max": "g (float[2, 4] x) => (int64[2, 1] y) { e = Neg(x)  y = ArgMax <axis = 1> (e) }",
    "top_k": "g (float[4] x) => (float[2] y, int64[2] i) <int64[1] k = {2}> { y, i = TopK(x, k) }",
    "split_concat": "g (float[4] x) => (float[4] y) { a, b = Split <num_outputs = 2> (x)  y = Concat<axis = 0>(b, a) }",
    "gather": "g (int64[3] i) => (float[3, 2] y) <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> { y = Gather(w, i) }",
    "one_hot": "g (int64[3] i) => (float[3, 4] y) <float depth = {4}, float[2] v = {0, 1}> { y = OneHot(i, depth, v) }",
    "clip_optional_input": "g (float[4] x) => (float[4] y) <float top = {0.5}> { y = Clip(x, , top) }",
    "non_max_suppression": "g (float[1, 2, 4] b, float[1, 1, 2] s) => (int64[n, 3] y)"
    "{ c = Exp(b)  y = NonMaxSuppression(c, s) }",
    "initializer_output": "g (float[2] x) => (float[2] y, float[2] w) <float[2] w = {0.5, 2}> { y = Mul(x, w) }",
    "input_output": "g (float[2] x) => (float[2] y, float[2] x) { y = Mul(x, x) }",
    "double": "g (float[2] x) => (double[2] y) { e = Exp(x)  d = Cast <to = 11> (e)  y = Add(d, d) }",
    "dropout": "g (float[2] x) => (float[2] y) <float r = {0.5}> { y = Dropout(x, r) }",
    "quantize": "g (float[4] x) => (float[4] y) <float s = {0.05}, int8 z = {0}>"
    "{ e = Neg(x)  q = QuantizeLinear(e, s, z)  d = DequantizeLinear(q, s, z)  y = Neg(d) }",
    "dynamic_quantize": "g (float[4] x) => (uint8[4] q, float s) { e = Neg(x)  q, s, z = DynamicQuantizeLinear(e) }",
    "sequence": "g (float[4] x) => (float[4] y) <int64 zero = {0}>"
    "{ e = Neg(x)  s = SequenceConstruct(e, x)  a = SequenceAt(s, zero)  y = Neg(a) }",
    "if": "g (bool c, float[2] x) => (float[2] y) <float[2] w = {0.5, 2}> { e = Neg(x)  t = If (c) <"
    "then_branch = a () => (float[2] p) { p = Mul(e, w) }, else_branch = b () => (float[2] q) { q = Add(e, x) }>"
    "y = Neg(t) }",
    "loop": "g (float[2] x) => (float[2] y) <int64 n = {3}, bool c = {1}> { e = Neg(x)  z = Neg(e)  t = Loop(n, c, e) <"
    "body = b (int64 i, bool go, float[2] p) => (bool going, float[2] r) { going = Identity(go)  r = Add(p, z) }>"
    "y = Neg(t) }",
    "nested_if": "g (bool c, float[2] x) => (float[2] y) { e = Neg(x)  t = If (c) <"
    "then_branch = a () => (float[2] p) { p = If (c) <then_branch = d () => (float[2] u) { u = Exp(e) },"
    "else_branch = f () => (float[2] v) { v = Neg(e) }> }, else_branch = b () => (float[2] q) { q = Add(e, x) }>"
    "y = Neg(t) }",
}
INPUTS = {
    "bool": lambda shape: np.ones(shape, bool),
    "int64": lambda shape: np.arange(np.prod(shape)).reshape(shape) % 3,
    "float": lambda shape: normal(*shape) if shape else np.array(3, np.float32),
}


def inputs_of(model: ir.Model) -> dict[str, np.ndarray]:
    makers = {ir.DataType.BOOL: "bool", ir.DataType.INT64: "int64", ir.DataType.FLOAT: "float"}
    return {str(item.name): np.asarray(INPUTS[makers[item.dtype]](item.shape.numpy())) for item in model.graph.inputs}


@pytest.mark.parametrize("case", SPECIAL_CASES)
def test_special_cases_run_in_float16_as_in_float32(case: str) -> None:
    model = parse(SPECIAL_CASES[case])
    fp16(model, **inputs_of(model))


def computed(
    model: ir.Model, dtype: str, dtypes: dict[str, str] | None = None, **inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the outputs that PyTorch computes in a precision: the floor of what an engine of the typed graph gives."""
    tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in inputs.items()}
    by_value = {name: getattr(torch, kind) for name, kind in (dtypes or {}).items()}
    outputs = run_graph(onnx_run_graph(model), tensors, dtype=getattr(torch, dtype), dtypes=by_value)
    return {name: tensor.float().numpy() for name, tensor in outputs.items()}


@pytest.mark.parametrize("case", SPECIAL_CASES)
def test_pytorch_computes_the_special_cases_in_every_precision(case: str) -> None:
    model = parse(SPECIAL_CASES[case])
    inputs = inputs_of(model)
    expected = run(model, **inputs)
    for dtype in ("float16", "bfloat16"):
        actual = computed(model, dtype, **inputs)
        assert list(actual) == list(expected)
        for name in expected:
            np.testing.assert_allclose(
                actual[name], expected[name], rtol=16 * HALF_ULP[dtype], atol=16 * HALF_ULP[dtype]
            )


@pytest.mark.parametrize("case", sorted(set(SPECIAL_CASES) - {"quantize", "dynamic_quantize", "range"}))
def test_float16_round_trip(case: str) -> None:
    """A graph typed in float16 promotes to a float32 graph with the same IO."""
    model = parse(SPECIAL_CASES[case])
    half = promote(apply(model, {}, default="float16").model)
    assert "FLOAT16" not in dtypes_of(half).values()
    actual, expected = run(half, **inputs_of(model)), run(model, **inputs_of(model))
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-2, atol=1e-2)


def typed_case(case: str) -> ir.Model:
    return apply(parse(SPECIAL_CASES[case]), {}, default="float16").model


def test_shape_and_comparison_force_no_cast() -> None:
    assert ops(typed_case("shape")) == ["Cast", "Exp", "Shape", "Size"]
    assert ops(typed_case("compare")) == ["Cast", "Neg", "Greater"]
    assert ops(typed_case("arg_max")) == ["Cast", "Neg", "ArgMax"]
    assert ops(parse("g (float[2] x) => (int64[1] s) { s = Shape(x) }")) == ["Shape"]


def test_comparison_takes_the_widest_of_its_inputs() -> None:
    typed = typed_case("compare_mixed")
    assert ops(typed) == ["Cast", "Neg", "Cast", "Less"]
    assert dtypes_of(typed)["e_as_fp32"] == "FLOAT"


def test_scales_of_resize_stay_float32() -> None:
    types = dtypes_of(typed_case("resize"))
    assert (types["scales"], types["roi"], types["r"]) == ("FLOAT", "FLOAT", "FLOAT16")


def test_cast_follows_the_assignment_without_another_cast() -> None:
    typed = typed_case("cast")
    assert dtypes_of(typed)["f"] == "FLOAT16"
    assert ops(typed) == ["Cast", "Cast", "Add", "Cast"]
    assert ops(typed_case("cast_like")) == ["Cast", "Cast", "Add", "Cast"]


def test_ops_with_a_dtype_attribute_state_it() -> None:
    # ONNX Runtime has no float16 kernel for these, so the types are checked and nothing is run.
    model = parse(
        "g (float[3, 3] x) => (float[3, 3] y) { e = EyeLike(x)  r = RandomNormal <shape = [3, 3]> ()"
        "l = RandomUniformLike(x)  a = Add(r, l)  y = MatMul(e, a) }"
    )
    typed = apply(model, {}, default="float16").model
    onnx.checker.check_model(ir.to_proto(typed), full_check=True)
    assert ops(typed) == ["EyeLike", "RandomNormal", "RandomUniformLike", "Add", "MatMul", "Cast"]
    assert [node.attributes["dtype"].as_int() for node in list(typed.graph)[:3]] == [10, 10, 10]


@pytest.mark.parametrize(
    ("case", "note"),
    [
        ("range", "1 Range node kept in FP32: ONNX defines no float16 for it"),
        ("quantize", "1 DequantizeLinear node kept in FP32: a scale must not be rounded"),
        ("sequence", "1 SequenceAt node kept in FP32: it works on sequences"),
    ],
)
def test_nodes_kept_in_fp32_are_noted(case: str, note: str) -> None:
    assert apply(parse(SPECIAL_CASES[case]), {}, default="float16").notes == (note,)


def test_bodies_are_typed_inside_and_keep_their_declared_outputs() -> None:
    typed = typed_case("if")
    body = next(node for node in typed.graph if node.op_type == "If").attributes["then_branch"].as_graph()
    first = body[0]
    assert [str(item.name) for item in first.inputs] == ["e", "w_fp16"]
    assert first.outputs[0].dtype == ir.DataType.FLOAT16
    assert [value.dtype for value in body.outputs] == [ir.DataType.FLOAT]


def test_constants_of_a_body_are_converted() -> None:
    model = parse("""g (float[2] x, bool c) => (float[2] y) { y = If (c) <
        then_branch = a () => (float[2] p) <float[2] w = {0.5, 2}> { p = Mul(x, w) },
        else_branch = b () => (float[2] q) { k = Constant <value = float[2] {1, 2}> ()  q = Add(x, k) }
    > }""")
    typed = apply(model, {}, default="float16").model
    kept = {name for graph in typed.graphs() for name in graph.initializers}
    assert kept == {"w_fp16", "k_fp16"}
    assert "Constant" not in {node.op_type for node in typed.graph.all_nodes()}
    for c in (True, False):
        inputs = {"x": normal(2), "c": np.array(c)}
        np.testing.assert_allclose(run(typed, **inputs)["y"], run(model, **inputs)["y"], rtol=2e-3)


def test_functions_are_inlined() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18, "local" : 1]>'
        "g (float[2] x) => (float[2] y) { y = local.twice(x) }"
        '<domain: "local", opset_import: ["" : 18]> twice (a) => (b) { b = Add(a, a) }'
    )
    typed = fp16(model, x=normal(2))
    assert ops(typed) == ["Cast", "Add", "Cast"]


def test_weights_listed_as_inputs_are_weights() -> None:
    model = parse("g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {0.5, 2}> { y = Mul(x, w) }")
    typed = apply(model, {}, default="float16").model
    assert [str(item.name) for item in typed.graph.inputs] == ["x"]
    assert "w" not in typed.graph.initializers


def test_custom_ops_keep_their_dtypes() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18, "plugin" : 1]>'
        "g (float[2] x) => (float[2] y) <float[2] p> { e = Neg(x)  p = plugin.Foo(e)  y = Neg(p) }"
    )
    applied = apply(model, {}, default="float16")
    assert ops(applied.model) == ["Cast", "Neg", "Cast", "Foo", "Cast", "Neg", "Cast"]
    assert applied.notes == ("1 Foo node kept in FP32: ONNX does not define it (domain plugin)",)


def test_a_value_of_unknown_dtype_is_not_guessed() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18, "plugin" : 1]>'
        "g (float[2] x) => (float[2] y) { p = plugin.Foo(x)  y = Neg(p) }"
    )
    with pytest.raises(NotJudged, match=r"the dtype of value 'p' is not known: .*plugin\.Foo"):
        apply(model, {}, default="float16")
    assert ops(apply(model, {}, default="float32").model) == ["Foo", "Neg"]


# Constants outside the range of float16


def mask_model(value: float, *, count: int = 1) -> ir.Model:
    model = parse("g (bool[4] c, float[4] x) => (float[4] y) <float m = {0}> { y = Where(c, x, m) }")
    data = np.full((), value, np.float32) if count == 1 else np.array([value] * count + [0] * (4 - count), np.float32)
    model.graph.initializers["m"].const_value = ir.Tensor(data, name="m")
    model.graph.initializers["m"].shape = ir.Shape(data.shape)
    return model


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_finite_constants_saturate_as_finfo_min_of_pytorch(dtype: str) -> None:
    lowest = float(torch.finfo(torch.float32).min)
    applied = apply(mask_model(lowest), {}, default=dtype)
    name = {"float16": "m_fp16", "bfloat16": "m_bf16"}[dtype]
    stored = float(applied.model.graph.initializers[name].const_value.numpy())
    assert stored == torch.finfo(getattr(torch, dtype)).min
    limit = {"float16": "65504", "bfloat16": "3.3895e+38"}[dtype]
    assert applied.notes == (f"1 constant saturated to +-{limit}: m (-3.4e+38)",)


def test_weights_that_saturate_are_counted() -> None:
    assert apply(mask_model(1e5, count=3), {}, default="float16").notes == (
        "1 constant saturated to +-65504: m (3 elements)",
    )


def test_a_constant_is_counted_once_for_each_format(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[float] = []
    count = constants._count
    monkeypatch.setattr(constants, "_count", lambda array, limit: counted.append(limit) or count(array, limit))
    model = mask_model(1e5, count=3)
    for _ in range(2):
        assert apply(model, {}, default="float16").notes == ("1 constant saturated to +-65504: m (3 elements)",)
        assert apply(model, {}, default="bfloat16").notes == ()
    assert len(counted) == 2


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
def test_infinities_and_nan_stay_what_they_are(special: float) -> None:
    applied = apply(mask_model(special), {}, default="float16")
    np.testing.assert_equal(float(applied.model.graph.initializers["m_fp16"].const_value.numpy()), special)
    assert applied.notes == ()


def test_the_floor_saturates_alike() -> None:
    actual = computed(mask_model(-1e38), "float16", c=np.zeros(4, bool), x=normal(4))
    assert actual["y"].tolist() == [-65504.0] * 4


def test_large_weights_are_converted_when_read(tmp_path: Path) -> None:
    weight = normal(512, 512)
    weight[0, 0] = 1e6
    model = parse("g (float[1, 512] x) => (float[1, 512] y) <float[1] w = {0}> { y = MatMul(x, w) }")
    model.graph.initializers["w"].const_value = ir.Tensor(weight, name="w")
    model.graph.initializers["w"].shape = ir.Shape(weight.shape)
    ir.save(model, tmp_path / "m.onnx", external_data="m.bin")
    applied = apply(ir.load(tmp_path / "m.onnx"), {}, default="float16")
    tensor = applied.model.graph.initializers["w_fp16"].const_value
    assert isinstance(tensor, ir.LazyTensor)
    np.testing.assert_array_equal(tensor.numpy(), np.clip(weight, -65504, 65504).astype(np.float16))
    ir.save(applied.model, tmp_path / "typed.onnx", external_data="typed.bin")
    assert (tmp_path / "typed.bin").stat().st_size == 2 * weight.size
    assert applied.notes == ("1 constant saturated to +-65504: w (1 elements)",)


# The floor, promotion, float64


def test_the_floor_rounds_after_every_operation() -> None:
    model = parse("g (float[1] x) => (float[1] y) <float one = {1}> { a = Add(x, one)  y = Add(a, one) }")
    x = np.array([2048], np.float32)
    assert computed(model, "float16", x=x)["y"].item() == 2048
    assert computed(model, "float16", {"a": "float32"}, x=x)["y"].item() == 2048
    assert computed(model, "float16", {"a": "float32", "y": "float32"}, x=x)["y"].item() == 2050
    assert computed(model, "float32", x=x)["y"].item() == 2050


def test_the_floor_overflows_as_float16() -> None:
    model = parse("g (float[1] x) => (float[1] y) { a = Mul(x, x)  y = Sqrt(a) }")
    x = np.array([300], np.float32)
    assert np.isinf(computed(model, "float16", x=x)["y"]).all()
    assert computed(model, "bfloat16", x=x)["y"].item() == pytest.approx(300, rel=2**-8)


def native_half() -> ir.Model:
    """Return a file written in float16: (x @ w) * 0.5 + shape(x) + 1."""
    model = parse(
        "g (float16[2, 2] x) => (float16[2, 2] y) { s = Shape(x)  c = ConstantOfShape (s)  k = Constant ()"
        "w = Constant ()  f = Cast <to = 10> (s)  a = MatMul(x, w)  b = Mul(a, k)  d = Add(b, f)  y = Add(d, c) }"
    )
    tensors = {"ConstantOfShape": [[1]], "Constant": [[0.5], [[1, 2], [3, 4]]]}
    for node in model.graph:
        if node.op_type in tensors:
            data = np.array(tensors[node.op_type].pop(0), np.float16)
            node.attributes.add(ir.AttrTensor("value", ir.Tensor(data)))
    return model


def test_a_half_file_is_promoted_whole() -> None:
    promoted = promote(native_half())
    assert set(dtypes_of(promoted).values()) == {"FLOAT", "None"}
    x = np.array([[1, 2], [3, 4]], np.float32)
    np.testing.assert_array_equal(run(promoted, x=x)["y"], x @ [[1, 2], [3, 4]] * 0.5 + 2 + 1)


def test_a_half_file_keeps_its_half_io_whatever_the_plan() -> None:
    model = native_half()
    x = np.array([[1, 2], [3, 4]], np.float16)
    expected = run(model, x=x)["y"]
    for default in ("float32", "float16"):
        typed = apply(model, {}, default=default).model
        actual = run(typed, x=x)["y"]
        assert actual.dtype == np.float16
        np.testing.assert_array_equal(actual, expected)
    assert dtypes_of(apply(model, {}, default="float32").model)["a"] == "FLOAT"


def test_to_float64_reaches_every_value() -> None:
    doubled = to_float64(native_half())
    assert set(dtypes_of(doubled).values()) == {"DOUBLE", "None"}
    x = np.array([[1, 2], [3, 4]], np.float64)
    np.testing.assert_array_equal(run(doubled, x=x)["y"], x @ [[1, 2], [3, 4]] * 0.5 + 2 + 1)
    assert set(dtypes_of(to_float64(parse(SPECIAL_CASES["if"]))).values()) == {"DOUBLE", "BOOL", "None"}


# Graphs of the size and kind that people have


class Block(torch.nn.Module):
    """A transformer block with a mask, in miniature."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        scores = (h @ h.transpose(1, 2)).masked_fill(mask[:, None] == 0, torch.finfo(torch.float32).min)
        return x + self.mlp(self.attention(h, h, h)[0] + scores.softmax(-1) @ h)


class Convolutions(torch.nn.Module):
    """Convolution, group norm, upsampling and pooling, as in a UNet."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(2, 4, 3, padding=1)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.up = torch.nn.ConvTranspose2d(4, 4, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.nn.functional.silu(self.norm(self.down(x)))
        wide = torch.nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
        return torch.nn.functional.max_pool2d(self.up(h) + wide, 2)


def exported(module: torch.nn.Module, inputs: dict[str, torch.Tensor], dynamic: dict[str, dict[int, str]]) -> ir.Model:
    torch.manual_seed(0)
    shapes = {
        name: {dim: torch.export.Dim(symbol, min=2) for dim, symbol in dims.items()} for name, dims in dynamic.items()
    }
    program = torch.onnx.export(module.eval(), (), kwargs=inputs, dynamo=True, verbose=False, dynamic_shapes=shapes)
    assert program is not None
    return program.model


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def exported_block() -> tuple[ir.Model, dict[str, np.ndarray]]:
    torch.manual_seed(0)
    inputs = {"x": torch.randn(2, 5, 8), "mask": torch.tensor([[1, 1, 1, 0, 0], [1] * 5])}
    model = exported(Block(), inputs, {"x": {0: "batch"}, "mask": {0: "batch"}})
    return model, {name: tensor.numpy() for name, tensor in inputs.items()}


def exported_convolutions() -> tuple[ir.Model, dict[str, np.ndarray]]:
    torch.manual_seed(0)
    inputs = {"x": torch.randn(2, 2, 6, 6)}
    return exported(Convolutions(), inputs, {"x": {0: "batch"}}), {"x": inputs["x"].numpy()}


@pytest.mark.parametrize("make", [exported_block, exported_convolutions])
def test_exported_graphs_in_every_precision(make) -> None:  # type: ignore[no-untyped-def]
    model, inputs = make()
    ((name, expected),) = run(model, **inputs).items()
    errors = {"fp16": relative(run(apply(model, {}, default="float16").model, **inputs)[name], expected)}
    floors = {dtype: relative(computed(model, dtype, **inputs)[name], expected) for dtype in ("float16", "bfloat16")}
    assert 1e-5 < errors["fp16"] < 4 * floors["float16"] < 1e-2
    assert 4 * floors["float16"] < floors["bfloat16"] < 0.1
    onnx.checker.check_model(ir.to_proto(apply(model, {}, default="bfloat16").model))


def test_a_module_pattern_keeps_an_exported_module() -> None:
    model, inputs = exported_block()
    table = onnx_values(model)
    dtypes = assign(plan("mlp"), table)
    typed = apply(model, dtypes, default="float16").model
    types = dtypes_of(typed)
    for name, row in table.items():
        if row.dtype == "float32" and name in types and name not in {str(item.name) for item in model.graph.outputs}:
            assert types[name] == ("FLOAT" if row.module.startswith("mlp") else "FLOAT16"), name
    assert {row.module for row in table.values()} >= {"mlp.0", "mlp.1", "norm"}
    run(typed, **inputs)


def test_four_times_the_nodes_take_about_four_times_as_long() -> None:
    def seconds(count: int) -> float:
        nodes = "\n".join(f"v{i + 1} = Add(v{i}, c)" for i in range(count))
        model = parse(f"g (float[2] v0) => (float[2] v{count}) <float[2] c = {{1, 2}}> {{ {nodes} }}")
        gc.collect()
        gc.disable()  # a collection in the midst of it takes as long as everything else
        try:
            started = time.process_time()  # what other processes take is not in it
            applied = apply(model, {}, default="float16")
            taken = time.process_time() - started
        finally:
            gc.enable()
        assert applied.counts == {"float16": count}
        return taken

    seconds(10)
    assert seconds(8000) < 10 * seconds(2000)
