"""ONNX graphs node by node: against whole runs of the same graph, with values observed, and with little kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import onnx_ir as ir
import pytest
import torch
from fake import normal
from graphs import emulated, parse
from torch._subclasses.fake_tensor import FakeTensorMode

from harness import Subject, Target
from harness.errors import EngineFailed, NotJudged, UsageError
from harness.graph.export import Program, to_onnx, trace
from harness.graph.ir import constant_of
from harness.graph.plan import Plan, assign
from harness.graph.subgraph import order, with_outputs
from harness.reference import onnx_operators
from harness.reference.helper_values import HelperValues
from harness.reference.node_runner import NodeRunner
from harness.reference.onnx_replay import OnnxEvaluator
from harness.reference.onnx_run import Run, run_fp32, run_fp64

Tensors = Mapping[str, torch.Tensor]


class Block(torch.nn.Module):
    """An embedding, a convolution, normalisations, attention and an MLP with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(11, 8)
        self.conv = torch.nn.Conv1d(8, 8, 3, padding=1)
        self.norm, self.group = torch.nn.LayerNorm(8), torch.nn.GroupNorm(2, 8)
        self.qkv, self.first, self.second = torch.nn.Linear(8, 24), torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.words(ids)
        hidden = hidden + self.group(self.conv(hidden.transpose(1, 2))).transpose(1, 2)
        query, key, value = self.qkv(self.norm(hidden)).chunk(3, dim=-1)
        scores = query @ key.transpose(1, 2) / 8**0.5
        scores = scores.masked_fill(mask[:, None] == 0, torch.finfo(scores.dtype).min)
        hidden = hidden + scores.softmax(-1) @ value
        hidden = hidden + self.second(torch.nn.functional.gelu(self.first(hidden)))
        return {"hidden": hidden, "best": hidden.argmax(-1)}


BLOCK_INPUTS = {"ids": torch.arange(10).reshape(2, 5), "mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])}


def export(module: torch.nn.Module, inputs: Tensors, outputs: list[str]) -> Program:
    subject = Subject(
        name="net",
        build=lambda: module,
        cases={"one": lambda: dict(inputs)},
        targets=(Target("torch", "fp16"),),
        weights="random",
    )
    return to_onnx(subject, trace(subject, module, dict(inputs)), dict(inputs), outputs)


@pytest.fixture(scope="module")
def block() -> Program:
    torch.manual_seed(0)
    return export(Block().eval(), BLOCK_INPUTS, ["hidden", "best"])


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
PLANS = {
    "fp16": ({}, "float16", False),
    "bf16": ({}, "bfloat16", False),
    "tf32": ({}, "float32", True),
}


def whole(model: ir.Model, inputs: Tensors, run: Callable[[ir.Model], Run]) -> dict[str, torch.Tensor]:
    """Return every value of one run of the whole graph."""
    return run(with_outputs(model, order(model)))(inputs)


def assert_same_values(evaluator: OnnxEvaluator, expected: Tensors, *, rtol: float) -> None:
    """Hold every value against a run of the whole graph, to ``rtol`` of its largest magnitude."""
    assert expected
    for name, tensor in expected.items():
        found = evaluator.value(name)
        assert found is not None, name
        assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype), name
        scale = tensor.double().abs().max().item() if tensor.numel() else 0.0
        torch.testing.assert_close(
            found, tensor, rtol=0, atol=rtol * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


# Against runs of the whole graph


@pytest.mark.parametrize("name", GRAPHS)
def test_every_value_equals_that_of_the_whole_run(name: str) -> None:
    body, inputs = GRAPHS[name]
    model = parse(body)
    evaluator = OnnxEvaluator(model, inputs, keep=order(model))
    assert_same_values(evaluator, whole(model, inputs, run_fp32), rtol=1e-6)
    expected = run_fp32(model)(inputs)
    outputs = evaluator.outputs()
    assert list(outputs) == list(expected)
    assert all(torch.equal(outputs[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_value_in_float64(name: str) -> None:
    body, inputs = GRAPHS[name]
    model = parse(body)
    evaluator = OnnxEvaluator(model, inputs, dtype="float64", keep=order(model))
    assert_same_values(evaluator, whole(model, inputs, run_fp64), rtol=1e-14)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_value_of_a_plan(name: str, plan: str) -> None:
    body, inputs = GRAPHS[name]
    model = parse(body)
    dtypes, default, tf32 = PLANS[plan]
    evaluator = OnnxEvaluator(model, inputs, dtypes=dtypes, default=default, tf32=tf32, keep=order(model))
    dtype = {"float16": "fp16", "bfloat16": "bf16"}.get(default, "fp32")
    expected = whole(model, inputs, lambda graph: emulated(graph, Plan(name=plan, dtype=dtype, tf32=tf32), dtypes))
    assert_same_values(evaluator, expected, rtol=0)


def test_an_exported_model_in_fp32_and_fp64(block: Program) -> None:
    names = order(block.model)
    evaluator = OnnxEvaluator(block.model, BLOCK_INPUTS, keep=names)
    assert_same_values(evaluator, whole(block.model, BLOCK_INPUTS, run_fp32), rtol=2e-6)
    evaluator = OnnxEvaluator(block.model, BLOCK_INPUTS, dtype="float64", keep=names)
    assert_same_values(evaluator, whole(block.model, BLOCK_INPUTS, run_fp64), rtol=1e-13)


@pytest.mark.parametrize(
    ("dtype", "keep", "ulp"),
    [("fp16", (), 2**-10), ("fp16", ("first", "op:aten.layer_norm"), 2**-10), ("bf16", (), 2**-7)],
)
def test_an_exported_model_in_low_precision(block: Program, dtype: str, keep: tuple[str, ...], ulp: float) -> None:
    plan = Plan(name="mixed", dtype=dtype, keep_fp32=keep, source="mixed.toml")
    dtypes = assign(plan, block.values)
    names = [name for name in order(block.model) if name != "best"]
    evaluator = OnnxEvaluator(block.model, BLOCK_INPUTS, dtypes=dtypes, default=plan.compute_dtype, keep=names)
    expected = emulated(with_outputs(block.model, names), plan, dtypes)(BLOCK_INPUTS)
    # ONNX Runtime packs weights that it knows at load into another kernel: a last bit of FP32 may round otherwise.
    assert_same_values(evaluator, {name: expected[name] for name in names}, rtol=2 * ulp)
    rounded = getattr(torch, plan.compute_dtype)
    found = {name: evaluator.value(name) for name in names}
    exact = {name for name, tensor in found.items() if torch.equal(tensor, tensor.to(rounded).to(tensor.dtype))}
    kept = {name for name in names if dtypes.get(name) == "float32"}
    floats = {name for name in names if found[name].is_floating_point()}
    assert floats - kept <= exact
    assert bool(kept - exact) == bool(keep)


def test_a_node_that_loads_and_does_not_run_in_float64_runs_elsewhere() -> None:
    """ONNX Runtime's LSTM says only when it runs that it has no kernel for FP64."""
    body = """g (float[3, 1, 2] x, float[1, 8, 2] w, float[1, 8, 2] r) => (float[3, 1, 1, 2] y)
              { y = LSTM <hidden_size = 2> (x, w, r) }"""
    inputs = {"x": normal(3, 1, 2), "w": normal(1, 8, 2), "r": 2 * normal(1, 8, 2)}
    exact, usual = (OnnxEvaluator(parse(body), inputs, dtype=dtype).outputs()["y"] for dtype in ("float64", "float32"))
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), usual)
    assert not torch.equal(exact.float().double(), exact)


def test_group_normalisation_stays_in_float64() -> None:
    body = "g (float[1, 4, 9] x) => (float[1, 4, 9] y) <float[4] s = {1, 2, 3, 4}, float[4] b = {0, 0, 0, 1}>" \
           "{ y = GroupNormalization <num_groups = 2> (x, s, b) }"  # fmt: skip
    x = normal(1, 4, 9) + 30
    evaluator = OnnxEvaluator(parse(body, opset=21), {"x": x}, dtype="float64")
    scale, bias = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([0.0, 0, 0, 1]).double()
    expected = torch.nn.functional.group_norm(x.double(), 2, scale, bias)
    torch.testing.assert_close(evaluator.outputs()["y"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("default", [None, "float16"])
def test_a_float16_file(default: str | None) -> None:
    model = parse("g (float16[4] x) => (float16[4] y) { a = Exp(x)  b = Mul(a, a)  y = Neg(b) }")
    inputs = {"x": normal(4).half()}
    evaluator = OnnxEvaluator(model, inputs, default=default, keep=["a", "b"])
    plan = Plan(name="fp16", dtype="fp16")
    expected = whole(model, inputs, (lambda graph: emulated(graph, plan, {})) if default else run_fp32)
    assert_same_values(evaluator, expected, rtol=0)
    assert evaluator.value("b").dtype == torch.float32


def test_sequences_are_passed_on_and_are_no_tensors() -> None:
    model = parse(SEQUENCE)
    x = normal(4)
    for options in ({}, {"default": "float16"}, {"dtype": "float64"}):
        evaluator = OnnxEvaluator(model, {"x": x}, keep=order(model), **options)
        assert evaluator.value("s") is None
        torch.testing.assert_close(evaluator.outputs()["y"].float(), -x.exp()[2:], rtol=1e-3, atol=0)


def test_an_output_may_be_an_input_or_a_constant() -> None:
    model = parse("g (float[2] x) => (float[2] x, float[1] c, float[2] y)"
                  "{ c = Constant <value = float[1] {0.5}> ()  y = Mul(x, c) }")  # fmt: skip
    x = normal(2)
    outputs = OnnxEvaluator(model, {"x": x}).outputs()
    assert torch.equal(outputs["x"], x)
    assert outputs["c"].tolist() == [0.5]
    assert torch.equal(outputs["y"], x * 0.5)


# Observed values

CHAIN = "g (float[3] x) => (float[3] y) { a = Exp(x)  b = Mul(a, a)  c = Neg(b)  y = Add(c, a) }"


def test_what_follows_reads_the_observed_value() -> None:
    x = normal(3)
    evaluator = OnnxEvaluator(parse(CHAIN), {"x": x}, keep=["a", "b", "c"])
    seen = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(evaluator.value("a"), run_fp32(with_outputs(parse(CHAIN), ["a"]))({"x": x})["a"])
    evaluator.observe("a", seen.half())
    seen_before = seen.clone()
    assert torch.equal(evaluator.value("a"), seen)
    assert torch.equal(evaluator.value("b"), seen * seen)
    evaluator.observe("b", seen)
    seen.zero_()  # a tap's buffer is used again
    assert torch.equal(evaluator.value("c"), -seen_before)
    assert torch.equal(evaluator.outputs()["y"], torch.zeros(3))


@pytest.mark.parametrize("default", ["float16", "bfloat16"])
def test_an_observed_value_is_rounded_like_the_plan(default: str) -> None:
    evaluator = OnnxEvaluator(parse(CHAIN), {"x": normal(3)}, default=default, keep=["a", "b", "y"])
    exact = torch.tensor([1 + 2**-20, 1 / 3, 3.0])
    low = exact.to(getattr(torch, default))
    evaluator.observe("a", exact)
    assert torch.equal(evaluator.value("a"), low.float())
    assert torch.equal(evaluator.value("b"), (low.float() * low.float()).to(low.dtype).float())


def test_an_observed_value_that_only_moves_is_rounded_too() -> None:
    model = parse("g (float[2, 2] x) => (float[2, 2] y) { a = Exp(x)  b = Transpose(a)  y = Neg(b) }")
    evaluator = OnnxEvaluator(model, {"x": normal(2, 2)}, default="float16", keep=["b"])
    evaluator.observe("b", torch.full((2, 2), 1 / 3))
    assert torch.equal(evaluator.outputs()["y"], torch.full((2, 2), -1 / 3).half().float())


def test_an_observed_output_is_the_output_and_is_read() -> None:
    model = parse("g (float[3] x) => (float[3] a, float[3] y) { a = Exp(x)  y = Neg(a) }")
    for options in ({}, {"default": "float16"}, {"tf32": True}):
        evaluator = OnnxEvaluator(model, {"x": normal(3)}, **options)
        evaluator.observe("a", torch.ones(3))
        outputs = evaluator.outputs()
        assert torch.equal(outputs["a"], torch.ones(3))
        assert torch.equal(outputs["y"], -torch.ones(3))


@pytest.mark.parametrize("options", [{}, {"default": "float16"}, {"dtype": "float64"}])
def test_forks_in_dataflow_order_give_what_fresh_evaluators_give(block: Program, options: dict[str, str]) -> None:
    runner = NodeRunner()
    trunk = OnnxEvaluator(block.model, BLOCK_INPUTS, runner=runner, **options)
    before, tried = OnnxEvaluator(block.model, BLOCK_INPUTS, runner=runner, **options).outputs(), 0
    for name in order(block.model):
        value = trunk.value(name)
        if value is None or not value.is_floating_point():
            continue
        fork, fresh = trunk.fork(), OnnxEvaluator(block.model, BLOCK_INPUTS, runner=runner, **options)
        fork.observe(name, 1.5 * value + 1)
        fresh.observe(name, 1.5 * value + 1)
        expected, tried = fresh.outputs(), tried + 1
        assert all(torch.equal(tensor, expected[output]) for output, tensor in fork.outputs().items()), name
    assert tried > 5
    assert all(torch.equal(tensor, before[output]) for output, tensor in trunk.outputs().items())


def test_an_index_can_be_observed() -> None:
    body, inputs = GRAPHS["top_k"]
    evaluator = OnnxEvaluator(parse(body), inputs, keep=["v", "i", "p"])
    values = evaluator.value("v")
    evaluator.observe("i", torch.full((3, 2), 4, dtype=torch.int32))
    assert torch.equal(evaluator.value("p"), values + 4)
    with pytest.raises(EngineFailed, match=r"value 'i' is torch\.float32, where the graph gives int64"):
        evaluator.observe("i", torch.zeros(3, 2))


def test_what_a_body_captures_can_be_observed() -> None:
    body, inputs = GRAPHS["if_then"]
    evaluator = OnnxEvaluator(parse(body), inputs, keep=["s", "c"])
    evaluator.observe("s", torch.full((2,), 5.0))
    assert evaluator.value("c").tolist() == [10.0, 10.0]


def test_a_value_that_does_not_fit_is_refused() -> None:
    evaluator = OnnxEvaluator(parse(CHAIN), {"x": normal(3)}, keep=["a"])
    with pytest.raises(EngineFailed, match=r"value 'a' has shape \[4\], where the graph gives \[3\]"):
        evaluator.observe("a", torch.zeros(4))
    with pytest.raises(UsageError, match="unknown value 'aa'; did you mean a"):
        evaluator.observe("aa", torch.zeros(3))


def test_nan_passes_through() -> None:
    evaluator = OnnxEvaluator(parse(CHAIN), {"x": normal(3)}, default="float16", keep=["a"])
    evaluator.observe("a", torch.tensor([float("nan"), float("inf"), 1e6]))
    assert evaluator.value("a").isnan().tolist() == [True, False, False]
    assert evaluator.value("b").isinf().tolist() == [False, True, True]


# Memory


def long_chain(length: int) -> ir.Model:
    steps = "  ".join(f"v{index + 1} = Neg(v{index})" for index in range(length))
    return parse(f"g (float[4] x) => (float[4] y) {{ v0 = Exp(x)  {steps}  y = Identity(v{length}) }}")


@pytest.mark.parametrize("options", [{}, {"default": "float16"}, {"dtype": "float64"}])
def test_few_values_of_a_long_chain_are_held(options: dict[str, str]) -> None:
    model = long_chain(300)
    names = order(model)
    runner = NodeRunner()
    evaluator = OnnxEvaluator(model, {"x": normal(4)}, keep=names, runner=runner, **options)
    most = 0
    for name in names:
        tensor = evaluator.value(name)
        evaluator.observe(name, tensor)
        evaluator.done(name)
        most = max(most, evaluator.held)
    assert most <= 4
    assert evaluator.held <= 2
    assert runner.sessions <= 5


def test_nothing_is_held_for_nobody() -> None:
    evaluator = OnnxEvaluator(long_chain(300), {"x": normal(4)})
    evaluator.outputs()
    assert evaluator.held == 1


def test_what_is_kept_stays_until_done() -> None:
    evaluator = OnnxEvaluator(parse(CHAIN), {"x": normal(3)}, keep=["b"])
    outputs = evaluator.outputs()
    assert evaluator.held == 2
    assert evaluator.value("b") is not None
    assert evaluator.value("a") is None, "it was freed"
    assert evaluator.value("unknown") is None
    evaluator.observe("a", torch.zeros(3))
    evaluator.done("b")
    evaluator.done("y")
    evaluator.done("unknown")
    assert evaluator.value("b") is None
    assert torch.equal(evaluator.outputs()["y"], outputs["y"])
    assert torch.equal(evaluator.value("x"), normal(3))


def test_a_value_that_nothing_reads_can_be_asked_for() -> None:
    body, inputs = GRAPHS["top_k"]
    model = parse(body.replace("p = Add(v, f)", "p = Add(v, v)"))
    evaluator = OnnxEvaluator(model, inputs)
    evaluator.value("y")
    assert evaluator.held == 2, "y, and i, which the f that nobody asked for would read"
    assert evaluator.value("f") is not None
    evaluator.done("f")
    assert evaluator.value("f") is None


# Nodes and requests that cannot be


def test_evaluators_share_sessions() -> None:
    model, x, runner = parse(CHAIN), normal(3), NodeRunner()
    OnnxEvaluator(model, {"x": x}, runner=runner).outputs()
    before = runner.sessions
    OnnxEvaluator(model, {"x": x}, runner=runner).outputs()
    assert runner.sessions == before == 4
    OnnxEvaluator(model, {"x": x}, runner=runner, default="float16").outputs()
    OnnxEvaluator(model, {"x": x}, runner=runner, dtype="float64").outputs()
    assert runner.sessions == before + 1 + 4, "one Cast, and the same nodes in float64"


def test_evaluators_share_graphs_of_one_precision_and_no_values() -> None:
    model, runner = parse(CHAIN), NodeRunner()
    options = {"dtype": "float32", "dtypes": {}, "default": None, "tf32": False}
    assert runner.view(model, **options) is runner.view(model, **options)
    for change in ({"dtype": "float64"}, {"dtypes": {"a": "float16"}}, {"default": "float16"}, {"tf32": True}):
        assert runner.view(model, **{**options, **change}) is not runner.view(model, **options), change
    assert runner.view(parse(CHAIN), **options) is not runner.view(model, **options)
    for x in (normal(3), 2 * normal(3)):
        alone = OnnxEvaluator(model, {"x": x}).outputs()["y"]
        assert torch.equal(OnnxEvaluator(model, {"x": x}, runner=runner).outputs()["y"], alone)


def test_the_model_is_unchanged(block: Program) -> None:
    before = ir.to_proto(block.model).SerializeToString()
    for options in ({}, {"dtype": "float64"}, {"default": "bfloat16"}, {"tf32": True}):
        OnnxEvaluator(block.model, BLOCK_INPUTS, **options).outputs()
    assert ir.to_proto(block.model).SerializeToString() == before
    assert not any(key.startswith("parity") for node in block.model.graph for key in node.meta)


def test_a_node_nobody_can_run_is_named() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Exp(x)  y = Neg(a) }")
    model.graph[1].domain, model.opset_imports["custom"] = "custom", 1
    for dtype, who in (
        ("float32", "ONNX Runtime does not load"),
        ("float64", "neither ONNX Runtime nor onnx.reference"),
    ):
        evaluator = OnnxEvaluator(model, {"x": normal(2)}, dtype=dtype)
        assert evaluator.value("a") is not None
        with pytest.raises(NotJudged, match=rf"{who}.* custom\.Neg \(node .*value 'y'\)"):
            evaluator.value("y")


def test_a_node_that_fails_is_named() -> None:
    model = parse("g (float[n] x, float[m] z) => (float[k] y) { y = Add(x, z) }")
    evaluator = OnnxEvaluator(model, {"x": normal(2), "z": normal(3)})
    with pytest.raises(NotJudged, match=r"Add \(node .*value 'y'\) cannot be run on the CPU"):
        evaluator.outputs()


def test_bad_requests_are_refused() -> None:
    model = parse(CHAIN)
    with pytest.raises(UsageError, match="input 'x' is missing"):
        OnnxEvaluator(model, {})
    with pytest.raises(UsageError, match="unknown input 'xx'"):
        OnnxEvaluator(model, {"x": normal(3), "xx": normal(3)})
    with pytest.raises(NotJudged, match=r"value 'x' has shape \[4\]"):
        OnnxEvaluator(model, {"x": normal(4)})
    with pytest.raises(UsageError, match="unknown dtype 'float46'; did you mean float64"):
        OnnxEvaluator(model, {"x": normal(3)}, dtype="float46")
    with pytest.raises(UsageError, match="computes in float32, not in float64"):
        OnnxEvaluator(model, {"x": normal(3)}, dtype="float64", default="float16")


# Values that only ONNX has


class Heads(torch.nn.Module):
    """A linear layer on a tensor of rank 3, whose MatMul is a value of its own in ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).exp())


@pytest.fixture(scope="module")
def heads() -> Program:
    torch.manual_seed(0)
    return export(Heads().eval(), {"x": normal(2, 3, 4)}, ["output"])


def fx_values(program: Program, inputs: Tensors) -> dict[str, torch.Tensor]:
    """Return the values of the exported program by FX name, inputs among them."""

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            seen[n.name] = result = super().run_node(n)
            return result

    seen: dict[str, torch.Tensor] = {}
    exported = program.exported
    flat = [
        exported.state_dict[spec.target] if spec.kind.name == "PARAMETER" else inputs[spec.arg.name]
        for spec in exported.graph_signature.input_specs
    ]
    with torch.no_grad():
        Recorder(exported.graph_module).run(*flat)
    return seen


def helpers_of(program: Program) -> HelperValues:
    known = {node.name for node in program.exported.graph.nodes}
    return HelperValues(program.model, known, NodeRunner(), aliases=program.outputs)


def test_a_matmul_before_its_bias_is_computed_from_what_pytorch_has(heads: Program) -> None:
    inputs = {"x": normal(2, 3, 4)}
    seen, helpers = fx_values(heads, inputs), helpers_of(heads)
    first, second = (str(node.outputs[0].name) for node in heads.model.graph if node.op_type == "MatMul")
    assert [name for name in order(heads.model) if name in helpers] == [first, second]
    assert (helpers.needs(first), helpers.needs(second)) == (("x",), ("exp",))
    assert helpers.needs("output") == ("exp",)
    asked: list[str] = []
    found = helpers.value(second, lambda name: asked.append(name) or seen[name])
    assert asked == ["exp"]
    torch.testing.assert_close(found, seen["exp"] @ heads.exported.state_dict["second.weight"].T)
    for name in ("output", heads.outputs["output"]):
        torch.testing.assert_close(helpers.value(name, seen.__getitem__), seen[heads.outputs["output"]])


def test_a_value_that_pytorch_knows_is_computed_from_parts_that_were_seen(heads: Program) -> None:
    inputs = {"x": normal(2, 3, 4)}
    known, helpers = fx_values(heads, inputs), helpers_of(heads)
    for part in (name for name in order(heads.model) if name in helpers):
        [owner] = helpers.owners(part)
        assert part in helpers.parts(owner)
        right = helpers.value(part, known.__getitem__)
        same = helpers.value(owner, known.__getitem__, seen={part: right})
        torch.testing.assert_close(same, known[owner])
        other = helpers.value(owner, known.__getitem__, seen={part: 2 * right})
        assert not torch.allclose(other, known[owner])
    assert helpers.parts("exp") == helpers.parts("nothing") == frozenset()


def test_a_helper_has_the_precision_of_what_it_is_computed_from(heads: Program) -> None:
    helpers = helpers_of(heads)
    first = next(str(node.outputs[0].name) for node in heads.model.graph if node.op_type == "MatMul")
    x, weight = normal(2, 3, 4), heads.exported.state_dict["first.weight"].detach()
    double = helpers.value(first, lambda name: x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, x.double() @ weight.double().T, rtol=1e-14, atol=1e-14)
    for dtype in (torch.float16, torch.bfloat16):
        low = helpers.value(first, lambda name, dtype=dtype: x.to(dtype))
        assert low.dtype == dtype
        assert torch.equal(low, (x.to(dtype).float() @ weight.to(dtype).float().T).to(dtype))


def test_a_helper_of_what_is_not_there_is_not_there(heads: Program) -> None:
    helpers = helpers_of(heads)
    first = next(str(node.outputs[0].name) for node in heads.model.graph if node.op_type == "MatMul")
    assert helpers.value(first, lambda name: None) is None
    assert "exp" not in helpers
    assert "nothing" not in helpers
    with pytest.raises(UsageError, match="unknown value 'nothing'"):
        helpers.needs("nothing")
    with pytest.raises(NotJudged, match=r"value 'x' has shape \[2, 4\]"):
        helpers.value(first, lambda name: normal(2, 4))


def _reshape(node: ir.Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    """Read the sizes where the graph has them: a pretended tensor holds none."""
    return onnx_operators._reshape(node, [inputs[0], constant_of(node.inputs[1]).numpy()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_helpers_stay_on_the_gpu(block: Program, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a pretended GPU: a tensor on the CPU beside one on the GPU is an error, and so is the way through NumPy."""
    helpers, gpu = helpers_of(block), torch.device("cuda:0")
    helpers._view(dtype)  # made before: its constants are converted in NumPy
    monkeypatch.setitem(onnx_operators._OPERATORS, "Reshape", _reshape)
    shapes = {node.name: node.meta.get("val") for node in block.exported.graph.nodes}
    devices = Counter()
    for name in (name for name in order(block.model) if name in helpers):
        with FakeTensorMode(allow_non_fake_inputs=True):
            given = {
                source: torch.empty(
                    shapes[source].shape, dtype=dtype if shapes[source].is_floating_point() else None, device=gpu
                )
                for source in helpers.needs(name)
            }
            devices[helpers.value(name, given.__getitem__, device=gpu).device] += 1
    assert set(devices) == {gpu}
    assert devices[gpu] > 5


def test_every_helper_of_an_exported_model(block: Program) -> None:
    inputs = {name: tensor.clone() for name, tensor in BLOCK_INPUTS.items()}
    seen, helpers = fx_values(block, inputs), helpers_of(block)
    expected = whole(block.model, inputs, run_fp32)
    computed = [name for name in order(block.model) if name in helpers]
    assert computed
    for name in computed:
        assert set(helpers.needs(name)) <= set(seen)
        found = helpers.value(name, seen.__getitem__)
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5)
    known = {node.name for node in block.exported.graph.nodes} | set(block.outputs)
    assert set(order(block.model)) == set(computed) | (known & set(order(block.model)))
