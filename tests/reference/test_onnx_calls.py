"""ONNX graphs in PyTorch: against ONNX Runtime, value by value, with values observed, and with little kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir
import pytest
import torch
from fake import normal
from graphs import BLOCK_INPUTS, exported_block, parse
from onnx.reference import ReferenceEvaluator

from harness.errors import EngineFailed, NotJudged
from harness.graph.export import Program
from harness.graph.plan import Plan, assign
from harness.graph.subgraph import order
from harness.graph.typed import apply
from harness.graph.types import promote
from harness.reference.interpreter import RunNotes, run_graph
from harness.reference.onnx_calls import onnx_run_graph
from harness.reference.replay import ProgramEvaluator
from harness.reference.witness import run_onnxruntime

Tensors = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def block() -> Program:
    return exported_block()


CONTROL = """
g (float[2] x, bool flag, float[2] z) => (float[2] y)
{
    s = Exp(x)
    t = Neg(z)
    c = If (flag) <
        then_branch = then_graph () => (float[2] p) { p = Add(s, s) },
        else_branch = else_graph () => (float[2] q) { q = Mul(t, s) }
    >
    y = Sub(c, s)
}
"""
LOOP = """
g (float[2] x, int64 count) => (float[2] y, float[n, 2] steps)
<float[2] factor = {0.5, 1.5}>
{
    start = Exp(x)
    on = Constant <value = bool {1}> ()
    end, steps = Loop (count, on, start) <
        body = step (int64 i, bool go, float[2] before) => (bool again, float[2] after, float[2] seen) {
            again = Identity(go)  scaled = Mul(before, factor)  after = Add(scaled, x)  seen = Identity(after)
        }
    >
    y = Neg(end)
}
"""
TOP = """
g (float[3, 5] x, int64[1] k) => (float[3, m] y)
<int64 one = {1}>
{
    v, i = TopK (x, k)
    shape = Shape(v)
    last = Gather <axis = 0> (shape, one)
    f = Cast <to = 1> (i)
    g = Cast <to = 1> (last)
    p = Add(v, f)
    y = Mul(p, g)
}
"""
EMPTY = """
g (float[n, 4] x) => (float[n, 2] y)
<float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}>
{ a = Exp(x)  h = MatMul(a, w)  y = Relu(h) }
"""
SEQUENCE = """
g (float[4] x) => (float[2] y)
<int64 one = {1}, int64 two = {2}>
{ a = Exp(x)  s = SplitToSequence <axis = 0> (a, two)  b = SequenceAt(s, one)  y = Neg(b) }
"""
GRAPHS: dict[str, tuple[str, Tensors]] = {
    "if_then": (CONTROL, {"x": normal(2), "flag": torch.tensor(True), "z": normal(2, seed=1)}),
    "if_else": (CONTROL, {"x": normal(2), "flag": torch.tensor(False), "z": normal(2, seed=1)}),
    "loop": (LOOP, {"x": normal(2), "count": torch.tensor(3)}),
    "top_k": (TOP, {"x": normal(3, 5), "k": torch.tensor([2])}),
    "empty": (EMPTY, {"x": torch.zeros(0, 4)}),
}


def evaluator_of(
    model: ir.Model, inputs: Tensors, *, dtype: str = "float32", keep: Collection[str] = (), **options: object
) -> ProgramEvaluator:
    graph = onnx_run_graph(promote(model))
    return ProgramEvaluator(graph, inputs, dtype=getattr(torch, dtype), asked=keep, **options)


def assert_same_values(evaluator: ProgramEvaluator, expected: Tensors, *, rtol: float) -> None:
    """Hold every value against a run of the whole graph, to ``rtol`` of its largest magnitude."""
    assert expected
    for name, tensor in expected.items():
        found = evaluator.value(name)
        assert found is not None, name
        assert found.shape == tensor.shape, name
        assert found.is_floating_point() == tensor.is_floating_point(), name
        scale = tensor.double().abs().max().item() if tensor.numel() else 0.0
        torch.testing.assert_close(
            found.double(), tensor.double(), rtol=0, atol=rtol * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


# Against ONNX Runtime


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_value_is_that_of_onnxruntime(name: str, dtype: str) -> None:
    body, inputs = GRAPHS[name]
    model = parse(body)
    evaluator = evaluator_of(model, inputs, dtype=dtype, keep=order(model))
    expected = run_onnxruntime(model, inputs, also=order(model))[0]
    rtol = {"float32": 1e-6, "float64": 1e-6, "float16": 2**-9, "bfloat16": 2**-6}[dtype]
    assert_same_values(evaluator, expected, rtol=rtol)
    outputs = evaluator.outputs()
    assert list(outputs) == [str(value.name) for value in model.graph.outputs]


def test_an_exported_model_in_every_precision(block: Program) -> None:
    names = order(block.model)
    expected = run_onnxruntime(block.model, BLOCK_INPUTS, also=names)[0]
    for dtype, rtol in (("float32", 2e-6), ("float64", 2e-6)):
        assert_same_values(evaluator_of(block.model, BLOCK_INPUTS, dtype=dtype, keep=names), expected, rtol=rtol)
    floats = {name: tensor for name, tensor in expected.items() if tensor.is_floating_point()}
    for dtype, rtol in (("float16", 2**-7), ("bfloat16", 2**-4)):
        # A saturated mask is another number, and no fault.
        shared = {name: tensor for name, tensor in floats.items() if tensor.abs().max() < 1e4}
        assert_same_values(evaluator_of(block.model, BLOCK_INPUTS, dtype=dtype, keep=names), shared, rtol=rtol)


@pytest.mark.parametrize(("dtype", "keep"), [("fp16", ()), ("fp16", ("first", "op:aten.layer_norm")), ("bf16", ())])
def test_every_value_has_the_dtype_of_its_plan(block: Program, dtype: str, keep: tuple[str, ...]) -> None:
    plan = Plan(name="mixed", dtype=dtype, keep_fp32=keep, source="mixed.toml")
    dtypes = {name: getattr(torch, kind) for name, kind in assign(plan, block.values).items()}
    low, seen = getattr(torch, plan.compute_dtype), {}
    run_graph(
        onnx_run_graph(block.model), BLOCK_INPUTS, dtype=low, dtypes=dtypes,
        on_value=lambda name, tensor: seen.update({name: tensor.dtype}),
    )  # fmt: skip
    floats = {name for name, kind in seen.items() if kind.is_floating_point}
    kept = {name for name in floats if seen[name] == torch.float32}
    assert {seen[name] for name in floats - kept} == {low}
    assert kept == {name for name in floats if dtypes.get(name) == torch.float32}
    assert bool(kept) == bool(keep)


LSTM = """g (float[3, 1, 2] x, float[1, 8, 2] w, float[1, 8, 2] r) => (float[3, 1, 1, 2] y)
          { y = LSTM <hidden_size = 2> (x, w, r) }"""


def test_float64_is_float64_inside() -> None:
    inputs = {"x": normal(3, 1, 2), "w": normal(1, 8, 2), "r": 2 * normal(1, 8, 2)}
    exact, usual = (evaluator_of(parse(LSTM), inputs, dtype=dtype).outputs()["y"] for dtype in ("float64", "float32"))
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), usual)
    assert not torch.equal(exact.float().double(), exact)


def test_group_normalisation_stays_in_float64() -> None:
    body = "g (float[1, 4, 9] x) => (float[1, 4, 9] y) <float[4] s = {1, 2, 3, 4}, float[4] b = {0, 0, 0, 1}>" \
           "{ y = GroupNormalization <num_groups = 2> (x, s, b) }"  # fmt: skip
    x = normal(1, 4, 9) + 30
    evaluator = evaluator_of(parse(body, opset=21), {"x": x}, dtype="float64")
    scale, bias = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([0.0, 0, 0, 1]).double()
    expected = torch.nn.functional.group_norm(x.double(), 2, scale, bias)
    torch.testing.assert_close(evaluator.outputs()["y"], expected, rtol=1e-12, atol=1e-12)


def test_a_float16_file_has_a_reference_in_float32() -> None:
    model = parse("g (float16[4] x) => (float16[4] y) { a = Exp(x)  b = Mul(a, a)  y = Neg(b) }")
    x = normal(4).half()
    evaluator = evaluator_of(model, {"x": x.float()}, keep=["b"])
    assert evaluator.value("b").dtype == torch.float32
    torch.testing.assert_close(evaluator.outputs()["y"], -(2 * x.float()).exp())


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_sequences_are_passed_on_and_are_no_tensors(dtype: str) -> None:
    model = parse(SEQUENCE)
    x = normal(4)
    evaluator = evaluator_of(model, {"x": x}, dtype=dtype, keep=order(model))
    assert evaluator.value("s") is None
    torch.testing.assert_close(evaluator.outputs()["y"].float(), -x.exp()[2:], rtol=1e-3, atol=0)


def test_an_output_may_be_an_input_or_a_constant() -> None:
    model = parse("g (float[2] x) => (float[2] x, float[1] c, float[2] y)"
                  "{ c = Constant <value = float[1] {0.5}> ()  y = Mul(x, c) }")  # fmt: skip
    x = normal(2)
    outputs = evaluator_of(model, {"x": x}).outputs()
    assert torch.equal(outputs["x"], x)
    assert outputs["c"].tolist() == [0.5]
    assert torch.equal(outputs["y"], x * 0.5)


def test_a_body_is_rounded_inside() -> None:
    """2048 + 1 is 2048 in FP16, and the graph that an engine gets says so too."""
    body = """g (float[1] x, bool flag) => (float[1] y) <float[1] one = {1}> {
        y = If (flag) <
            then_branch = a () => (float[1] p) { s = Add(x, one)  p = Sub(s, x) },
            else_branch = b () => (float[1] q) { q = Identity(x) }
        > }"""
    inputs = {"x": torch.tensor([2048.0]), "flag": torch.tensor(True)}
    found = {dtype: evaluator_of(parse(body), inputs, dtype=dtype).outputs()["y"].item() for dtype in
             ("float32", "float16", "bfloat16")}  # fmt: skip
    assert found == {"float32": 1.0, "float16": 0.0, "bfloat16": 0.0}
    # ONNX Runtime takes pairs of casts out, so that its FP16 on the CPU is FP32.
    evaluator = ReferenceEvaluator(ir.to_proto(apply(parse(body), {}, default="float16").model))
    assert evaluator.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0].item() == 0.0


# Observed values

CHAIN = "g (float[3] x) => (float[3] y) { a = Exp(x)  b = Mul(a, a)  c = Neg(b)  y = Add(c, a) }"


def test_what_follows_reads_the_observed_value() -> None:
    evaluator = evaluator_of(parse(CHAIN), {"x": normal(3)}, keep=["a", "b", "c"])
    seen = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(evaluator.value("a"), normal(3).exp())
    evaluator.observe("a", seen.half())
    assert torch.equal(evaluator.value("a"), seen)
    assert torch.equal(evaluator.value("b"), seen * seen)
    evaluator.observe("b", seen)
    before = seen.clone()
    seen.zero_()  # a tap's buffer is used again
    assert torch.equal(evaluator.value("c"), -before)
    assert torch.equal(evaluator.outputs()["y"], torch.zeros(3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_observed_value_is_rounded_like_the_plan(dtype: str) -> None:
    evaluator = evaluator_of(parse(CHAIN), {"x": normal(3)}, dtype=dtype, keep=["a", "b", "y"])
    exact = torch.tensor([1 + 2**-20, 1 / 3, 3.0])
    low = exact.to(getattr(torch, dtype))
    evaluator.observe("a", exact)
    assert torch.equal(evaluator.value("a"), low)
    assert torch.equal(evaluator.value("b"), low * low)


def test_an_observed_output_is_the_output_and_is_read() -> None:
    model = parse("g (float[3] x) => (float[3] a, float[3] y) { a = Exp(x)  y = Neg(a) }")
    for dtype in ("float32", "float16"):
        evaluator = evaluator_of(model, {"x": normal(3)}, dtype=dtype)
        evaluator.observe("a", torch.ones(3))
        outputs = evaluator.outputs()
        assert torch.equal(outputs["a"].float(), torch.ones(3))
        assert torch.equal(outputs["y"].float(), -torch.ones(3))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_forks_in_dataflow_order_give_what_fresh_evaluators_give(block: Program, dtype: str) -> None:
    trunk = evaluator_of(block.model, BLOCK_INPUTS, dtype=dtype)
    before, tried = evaluator_of(block.model, BLOCK_INPUTS, dtype=dtype).outputs(), 0
    for name in order(block.model):
        value = trunk.value(name)
        if value is None or not value.is_floating_point():
            continue
        fork, fresh = trunk.fork(), evaluator_of(block.model, BLOCK_INPUTS, dtype=dtype)
        fork.observe(name, 1.5 * value + 1)
        fresh.observe(name, 1.5 * value + 1)
        expected, tried = fresh.outputs(), tried + 1
        assert all(torch.equal(tensor, expected[output]) for output, tensor in fork.outputs().items()), name
    assert tried > 5
    assert all(torch.equal(tensor, before[output]) for output, tensor in trunk.outputs().items())


def test_an_index_can_be_observed() -> None:
    body, inputs = GRAPHS["top_k"]
    evaluator = evaluator_of(parse(body), inputs, keep=["v", "i", "p"])
    values = evaluator.value("v")
    evaluator.observe("i", torch.full((3, 2), 4, dtype=torch.int32))
    assert torch.equal(evaluator.value("p"), values + 4)
    with pytest.raises(EngineFailed, match=r"value 'i' is torch\.float32, where the graph gives torch\.int64"):
        evaluator.observe("i", torch.zeros(3, 2))


def test_what_a_body_captures_can_be_observed() -> None:
    body, inputs = GRAPHS["if_then"]
    evaluator = evaluator_of(parse(body), inputs, keep=["s", "c"])
    evaluator.observe("s", torch.full((2,), 5.0))
    assert evaluator.value("c").tolist() == [10.0, 10.0]


def test_a_value_that_does_not_fit_is_refused() -> None:
    evaluator = evaluator_of(parse(CHAIN), {"x": normal(3)}, keep=["a"])
    with pytest.raises(EngineFailed, match=r"value 'a' has shape \[4\], where the graph gives \[3\]"):
        evaluator.observe("a", torch.zeros(4))


def test_nan_passes_through() -> None:
    evaluator = evaluator_of(parse(CHAIN), {"x": normal(3)}, dtype="float16", keep=["a"])
    evaluator.observe("a", torch.tensor([float("nan"), float("inf"), 1e6]))
    assert evaluator.value("a").isnan().tolist() == [True, False, False]
    assert evaluator.value("b").isinf().tolist() == [False, True, True]


# Memory


def long_chain(length: int) -> ir.Model:
    steps = "  ".join(f"v{index + 1} = Neg(v{index})" for index in range(length))
    return parse(f"g (float[4] x) => (float[4] y) {{ v0 = Exp(x)  {steps}  y = Identity(v{length}) }}")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_few_values_of_a_long_chain_are_held(dtype: str) -> None:
    model = long_chain(300)
    names = order(model)
    evaluator = evaluator_of(model, {"x": normal(4)}, dtype=dtype, keep=names)
    most = 0
    for name in names:
        tensor = evaluator.value(name)
        evaluator.observe(name, tensor)
        evaluator.done(name)
        most = max(most, evaluator.held)
    assert most <= 4
    assert evaluator.held <= 2


# Nodes that nobody runs


def test_the_model_is_unchanged(block: Program) -> None:
    before = ir.to_proto(block.model).SerializeToString()
    for dtype in ("float32", "float64", "bfloat16"):
        evaluator_of(block.model, BLOCK_INPUTS, dtype=dtype).outputs()
    assert ir.to_proto(block.model).SerializeToString() == before


def test_a_node_nobody_can_run_is_named() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Exp(x)  y = Neg(a) }")
    model.graph[1].domain, model.opset_imports["custom"] = "custom", 1
    for dtype in ("float32", "float64", "float16"):
        evaluator = evaluator_of(model, {"x": normal(2)}, dtype=dtype)
        with pytest.raises(NotJudged, match=r"custom\.Neg \(value 'y'\)"):
            evaluator.value("y")


def test_a_node_that_pytorch_has_not_runs_elsewhere() -> None:
    model = parse("g (float[2] x) => (float[2] y) { s = Neg(x)  y = TfIdfVectorizer <max_gram_length = 1,"
                  "max_skip_count = 0, min_gram_length = 1, mode = \"TF\", ngram_counts = [0], ngram_indexes = [0, 1],"
                  "pool_int64s = [2, 3]> (k) k = Cast <to = 7> (s) }")  # fmt: skip
    nodes = {node.op_type: node for node in model.graph}
    model.graph.remove(nodes["Cast"])
    model.graph.insert_before(nodes["TfIdfVectorizer"], nodes["Cast"])
    found = evaluator_of(model, {"x": torch.tensor([-2.0, -2.0])}, keep=["y"]).value("y")
    assert found.tolist() == [2.0, 0.0]
    notes = RunNotes()
    run_graph(onnx_run_graph(model), {"x": torch.tensor([-2.0, -2.0])}, dtype=torch.float32, notes=notes)
    assert notes.elsewhere == {"onnx.TfIdfVectorizer"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_doubles_of_a_file_stay_doubles_in_a_foreign_operator(dtype: torch.dtype) -> None:
    model = parse("g (double[3] x) => (double[3] y) { y = Neg(x) }")
    node = model.graph[0]
    node.op_type, node.domain, model.opset_imports["com.microsoft"] = "Gelu", "com.microsoft", 1
    x = normal(3).double()
    found = run_graph(onnx_run_graph(model), {"x": x}, dtype=dtype)["y"]
    assert torch.equal(found, torch.nn.functional.gelu(x))
