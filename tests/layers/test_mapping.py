"""From the tensors of a tap to values: kernels and their candidates, layouts, and what must never be guessed."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import onnx_ir as ir
import pytest
import torch
from fake import normal, quiet
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import PlantedBackend, base_name, named_values, ready

from harness.backends.base import BuildRequest
from harness.backends.inspector import Kernel, read_kernels
from harness.backends.tensorrt.session import TensorRTSession
from harness.compare.norms import relative_l2
from harness.errors import EngineFailed, EngineRefused
from harness.graph import onnx_file
from harness.graph.plan import assign, load_plan
from harness.graph.typed import apply
from harness.graph.values import Value, Values
from harness.layers.engine_kernels import Candidates, EngineKernels
from harness.layers.layouts import Expected, best_fit, distances
from harness.layers.mapping import Decision, decide

FLOAT32 = frozenset({torch.float32})
CLIP = Path(__file__).parents[1] / "data" / "clip2_fp16_kernels.json"


def expected(replay: torch.Tensor, *, close: float = 0.01, dtypes: frozenset[torch.dtype] = FLOAT32) -> Expected:
    return Expected(replay=replay, close=close, dtypes=dtypes)


def kernel(*nodes: str, index: int = 0, reads: tuple[str, ...] = (), writes: tuple[str, ...] = ("t",)) -> Kernel:
    return Kernel(index=index, name=f"kernel_{index}", nodes=nodes, reads=reads, writes=writes)


def decided(
    tensor: torch.Tensor, values: dict[str, torch.Tensor | None], candidates: Candidates | None = None
) -> Decision:
    """Return what the one tensor of a kernel is found to be; a value of None cannot be computed."""
    known = {name: expected(value) for name, value in values.items() if value is not None}
    return decide({"t": tensor}, candidates or Candidates(leaving=tuple(values)), known.get)["t"]


def fit(decision: Decision) -> tuple[str, torch.Tensor, str]:
    """Return the value, its tensor and its layout of a decision for one value."""
    [only] = decision.fits
    return only.value, only.tensor, only.layout


# Kernels


def layer(metadata: str | None, **fields: object) -> dict[str, object]:
    return {"Name": "k", "Metadata": metadata, **fields}


def inspected(*layers: dict[str, object]) -> str:
    return json.dumps({"Layers": layers})


@pytest.mark.parametrize(
    ("metadata", "nodes"),
    [
        ("[ONNX Layer: node_a]", ("node_a",)),
        ("[ONNX Layer: node_a]\x1f[ONNX Layer: node_b]", ("node_a", "node_b")),
        ("[ONNX Layer: node_a]\x1e[ONNX Layer: node_b]", ("node_a", "node_b")),
        ("[ONNX Layer: node_a]\x1f[ONNX Layer: node_b]\x1e[ONNX Layer: node_a]", ("node_a", "node_b")),
        ("[ONNX Layer: /layers[0]/mlp[gelu]]\x1f[ONNX Layer: b[1]]", ("/layers[0]/mlp[gelu]", "b[1]")),
        ("", ()),
        (None, ()),
    ],
)
def test_metadata_names_the_nodes_each_once(metadata, nodes):
    _, found = read_kernels(inspected(layer("[ONNX Layer: before]"), layer(metadata)))
    assert found.nodes == nodes


def test_kernels_keep_their_order_and_the_names_of_tensors():
    first = layer("[ONNX Layer: a]", Name="one", Inputs=[{"Name": "x"}], Outputs=[{"Name": "t"}, {"Name": "u"}])
    assert read_kernels(inspected(first, {"Name": "two", "TacticName": "t", "TacticValue": "0x1"})) == [
        Kernel(index=0, name="one", nodes=("a",), reads=("x",), writes=("t", "u")),
        Kernel(index=1, name="two", nodes=(), reads=(), writes=(), tactic=("t", "0x1")),
    ]


# Which values a kernel may write

CHAIN = """
g (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float[1] half = {0.5}>
{ a = MatMul(x, w)  b = Mul(a, half)  c = Transpose <perm = [1, 0]> (b)  d = Exp(a)  e = Transpose <perm = [1, 0]> (c)
  y = Add(d, e) }
"""


def named_graph(body: str) -> ir.Model:
    """Return a graph whose nodes are named after what they make."""
    model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : 18]>\n{body}')
    for node in model.graph:
        node.name = f"node_{node.outputs[0].name}"
    return model


def engine(model: ir.Model, *kernels: Kernel, values: Values | None = None) -> EngineKernels:
    return EngineKernels.of(model, onnx_file.onnx_values(model) if values is None else values, kernels)


def test_candidates_of_a_kernel():
    made = engine(
        named_graph(CHAIN), kernel("node_a"), kernel("node_d", "node_b", "node_c", "node_e", "node_y", index=1)
    )
    product, rest = made.candidates
    assert (product.leaving, product.inside, product.read) == (("a",), (), ("x",))
    assert set(product.after) == {"b", "c", "e"}
    assert (rest.leaving, rest.inside, rest.read) == (("y",), ("b", "c", "d", "e"), ("a",))
    assert rest.names == ("y", "b", "c", "d", "e", "a")
    assert made.inputs == {"x"}


def test_the_product_of_two_variable_values_is_no_constant_factor():
    body = "g (float[2] x) => (float[2] y) { a = Exp(x)  y = Mul(a, x) }"
    assert engine(named_graph(body), kernel("node_a")).candidates[0].after == ()


def test_what_a_later_kernel_works_on_too_is_unfinished():
    made = engine(named_graph(CHAIN), kernel("node_a", "node_d"), kernel("node_d", "node_y", index=1))
    assert made.candidates[0].unfinished == {"d"}
    assert made.candidates[1].unfinished == frozenset()


def test_a_kernel_without_nodes_may_copy_what_the_kernels_before_it_wrote():
    copy = Kernel(index=1, name="copy", nodes=(), reads=("t", "weights"), writes=("u",))
    made = engine(named_graph(CHAIN), kernel("node_a", "node_b"), copy)
    assert made.candidates[1] == Candidates(read=("a", "b"))


def test_every_value_is_fused_into_the_last_kernel_that_works_on_it():
    made = engine(named_graph(CHAIN), kernel("node_a", "node_d"), kernel("node_d", index=1))
    assert made.computed_in == {"a": "kernel_0", "d": "kernel_1"}


def test_nodes_that_the_graph_has_not_are_no_candidates():
    assert engine(named_graph(CHAIN), kernel("node_of_the_builder")).candidates == [Candidates()]


def test_what_is_computed_from_constants_is_no_candidate():
    body = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { c = Exp(w)  d = Neg(c)  y = Add(x, d) }"
    made = engine(named_graph(body), kernel("node_c"), kernel("node_d", "node_y", index=1))
    assert made.candidates == [Candidates(), Candidates(leaving=("y",), read=("x",))]


def test_what_a_body_reads_is_read_by_its_node():
    body = """g (float[2] x, bool flag) => (float[2] y) {
        a = Exp(x)
        b = Neg(a)
        y = If (flag) <then_branch = t () => (float[2] p) { p = Exp(a) },
                       else_branch = e () => (float[2] q) { q = Exp(b) }>
    }"""
    made = engine(named_graph(body), kernel("node_a", "node_b"), kernel("node_y", index=1))
    assert made.candidates[0].leaving == ("a", "b")
    assert set(made.candidates[1].read) == {"flag", "a", "b"}


def typed(body: str, **dtypes: str) -> EngineKernels:
    """Return the kernels of a graph in FP16 but for these values, each node in a kernel of its own."""
    model = named_graph(body)
    values = onnx_file.onnx_values(model)
    graph = apply(model, dtypes, default="float16").model
    return EngineKernels.of(graph, values, [kernel(str(node.name), index=i) for i, node in enumerate(graph.graph)])


def test_a_value_and_its_casts_are_one_value():
    made = typed("g (float[2] x) => (float[2] y) { a = Exp(x)  b = Sin(a)  y = Cos(b) }", b="float32")
    assert made.dtypes["x"] == {torch.float32, torch.float16}
    assert made.dtypes["a"] == {torch.float16, torch.float32}
    assert made.dtypes["y"] == {torch.float32, torch.float16}
    names = {name for candidates in made.candidates for name in candidates.names}
    assert names == {"x", "a", "b", "y"}


def test_the_cast_of_an_output_belongs_to_the_output():
    made = typed("g (float[2] x) => (float[2] y) { y = Exp(x) }")
    by_node = {found.nodes[0]: candidates for found, candidates in zip(made.kernels, made.candidates, strict=True)}
    assert by_node["node_y"].leaving == ("y",)


# Contents, in every layout


def test_a_value_as_it_is():
    value = normal(2, 3, 4)
    assert decided(value, {"a": value}).mapped_by == "contents"
    assert fit(decided(value, {"a": value}))[::2] == ("a", "")


@pytest.mark.parametrize(
    ("shape", "order"),
    [(shape, order) for shape in ((2, 3, 4), (2, 3, 4, 5)) for order in itertools.permutations(range(len(shape)))],
)
def test_any_order_of_dimensions(shape, order):
    value = normal(*shape)
    name, tensor, layout = fit(decided(value.permute(order).contiguous(), {"a": value}))
    assert name == "a"
    assert torch.equal(tensor, value)
    assert layout == ("" if list(order) == sorted(order) else f"permuted {order}")


def test_merged_dimensions():
    value = normal(2, 7, 8)
    assert fit(decided(value.reshape(14, 8), {"a": value}))[2] == ""
    heads = normal(2, 7, 4, 5)  # [batch, tokens, heads, width] computed as [batch x heads, tokens, width]
    name, tensor, layout = fit(decided(heads.permute(0, 2, 1, 3).reshape(8, 7, 5), {"a": heads}))
    assert (name, layout) == ("a", "permuted (0, 2, 1, 3)")
    assert torch.equal(tensor, heads)


def padded(tensor: torch.Tensor, *more: int, fill: float = math.nan) -> torch.Tensor:
    """Return a tensor with garbage behind the end of its dimensions."""
    larger = torch.full([size + extra for size, extra in zip(tensor.shape, more, strict=True)], fill)
    larger[tuple(slice(size) for size in tensor.shape)] = tensor
    return larger


@pytest.mark.parametrize("more", [(0, 0, 1), (0, 3, 0), (1, 0, 0), (0, 1, 4), (2, 0, 3)])
def test_padding_in_one_or_two_dimensions(more):
    value = normal(3, 7, 13)
    name, tensor, layout = fit(decided(padded(value, *more), {"a": value}))
    assert (name, layout) == ("a", "padded")
    assert torch.equal(tensor, value)


def test_padding_of_a_tensor_in_another_order():
    value = normal(3, 7, 13)
    _, tensor, layout = fit(decided(padded(value.permute(2, 0, 1), 0, 0, 1), {"a": value}))
    assert layout == "padded, permuted (2, 0, 1)"
    assert torch.equal(tensor, value)


def test_three_values_of_one_gemm():
    values = {name: normal(2, 7, 8, seed=seed) for seed, name in enumerate("qkv")}
    rows = torch.cat([values[name].reshape(14, 8) for name in "kqv"], -1)
    decision = decided(rows, dict(values))
    assert [found.value for found in decision.fits] == ["k", "q", "v"]
    assert {found.layout for found in decision.fits} == {"part of a concatenation"}
    assert all(torch.equal(found.tensor, values[found.value]) for found in decision.fits)


@pytest.mark.parametrize(
    ("changed", "possible"),
    [
        (lambda value: value * 1.5, False),
        (lambda value: torch.zeros_like(value), False),
        (lambda value: value.flip(0), True),
        (lambda value: value.index_fill(0, torch.tensor([3]), 1e6), True),  # one row of a wrong kernel
        (lambda value: value.index_fill(0, torch.tensor([3]), math.nan), True),
        (lambda value: value.half(), True),
    ],
    ids=["scaled", "zero", "reordered", "outliers", "nan", "half"],
)  # fmt: skip
def test_a_tensor_of_another_norm_cannot_be_the_value(changed, possible):
    value = normal(600, 12)
    assert expected(value, close=0.05).can_be(changed(value)) is possible


def test_norms_rule_out_no_integers():
    assert expected(torch.arange(6), dtypes=frozenset({torch.int64})).can_be(torch.zeros(6, dtype=torch.int64))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), error=st.floats(0, 0.5), close=st.floats(1e-3, 0.5), spread=st.floats(0, 8))
def test_norms_rule_out_no_tensor_that_is_close(seed, error, close, spread):
    value = normal(64, seed=seed) * torch.exp(spread * normal(64, seed=seed + 1))
    wrong = value + error * normal(64, seed=seed + 2) * value.norm() / 8
    if distances([wrong], value)[0] < close:
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        assert expected(value, close=close).can_be(wrong[order])


def test_a_work_space_is_not_laid_out_in_every_order(monkeypatch):
    """Where nothing fits, five dimensions have 120 orders for every value that may be a part."""
    calls: list[int] = []
    monkeypatch.setattr("harness.layers.layouts.distances", lambda *them: calls.append(1) or distances(*them))
    values = {f"v{seed}": normal(2, 3, 4, 5, 2, seed=seed) for seed in range(4)}
    assert decided(100 * normal(240, 20, seed=9), dict(values)).fits == ()
    assert not calls


def test_a_concatenation_with_an_unknown_part_is_not_mapped():
    values = {name: normal(14, 32, seed=seed) for seed, name in enumerate("qkv")}
    rows = torch.cat([values["q"], values["k"], normal(14, 32, seed=9)], -1)
    decision = decided(rows, dict(values))
    assert decision.fits == ()
    assert "cannot hold what the kernel makes: q [14, 32], k [14, 32], v [14, 32]" in decision.reason


def test_a_factor_folded_into_a_product_is_found_after_it():
    scores = normal(2, 7, 7)
    candidates = Candidates(leaving=("scores",), after=("scaled",))
    decision = decided(scores * 0.125, {"scores": scores, "scaled": scores * 0.125}, candidates)
    assert fit(decision)[0] == "scaled"


def test_a_copy_is_what_was_read():
    candidates = Candidates(read=("a",))
    assert fit(decided(normal(2, 3), {"a": normal(2, 3)}, candidates))[0] == "a"


def test_one_tensor_stands_for_values_with_the_same_numbers():
    value = normal(2, 7, 8)
    decision = decided(value, {"a": value, "view": value.reshape(2, 56), "turned": value.transpose(1, 2)})
    assert fit(decision)[0] == "turned"
    assert decision.reason == "the same numbers as a, view"


def test_two_tensors_of_the_same_numbers_are_two_values():
    value = normal(2, 7, 8)
    known = {"a": expected(value), "turned": expected(value.transpose(1, 2))}
    tensors = {"t": value, "u": value.transpose(1, 2).contiguous()}
    decisions = decide(tensors, Candidates(leaving=("a", "turned")), known.get)
    assert {decision.fits[0].value for decision in decisions.values()} == {"a", "turned"}


@pytest.mark.parametrize("distance_apart", [0.001, 0.002])
def test_contents_that_do_not_decide_are_not_decided(distance_apart):
    value = normal(16, 16)
    noise = normal(16, 16, seed=1) * distance_apart
    decision = decided(value + noise / 2, {"a": value, "b": value + noise})
    assert decision.fits == ()
    assert not decision.inner
    assert decision.reason == "its contents do not tell a, b apart"


def test_of_two_that_match_the_clearly_closer_one_is_taken():
    value = normal(16, 16)
    assert fit(decided(value, {"a": value * 1.005, "b": value}))[0] == "b"


# What is no value, and what resembles nothing


def test_a_statistic_of_the_kernel_is_an_inner_tensor():
    value = normal(6, 8)
    known = {"a": expected(value)}
    tensors = {"t": value, "mean": value.mean(-1, keepdim=True)}
    decisions = decide(tensors, Candidates(leaving=("a",)), known.get)
    assert fit(decisions["t"])[0] == "a"
    assert decisions["mean"].inner
    assert decisions["mean"].reason == "a kernel's own; the graph has no value for it"


def test_a_part_of_an_unfinished_value_is_on_the_way_to_it():
    candidates = Candidates(leaving=("a",), unfinished=frozenset({"a"}))
    decision = decided(normal(6, 8, seed=1), {"a": normal(6, 8)}, candidates)
    assert (decision.fits, decision.inner, decision.reason) == ((), True, "on the way to a")


def test_another_dtype_than_the_graphs_is_not_the_value():
    value = normal(6, 8)
    decision = decided(value.double(), {"a": value})
    assert decision.fits == ()
    assert decision.reason == "float64 [6, 8] cannot hold what the kernel makes: a [6, 8]"


def test_integers_may_be_of_another_width():
    index = torch.arange(6).reshape(2, 3)
    known = {"a": expected(index, dtypes=frozenset({torch.int64}))}
    decisions = decide({"t": index.int()}, Candidates(leaving=("a",)), known.get)
    assert decisions["t"].mapped_by == "contents"
    assert best_fit(normal(2, 3), "a", known["a"]) is None


def test_a_wrong_kernel_is_known_by_name_where_one_value_can_be_meant():
    value = normal(6, 8)
    decision = decided(value * 1.5, {"a": value})
    assert decision.mapped_by == "name"
    assert fit(decision)[::2] == ("a", "")


def test_a_wrong_kernel_in_another_order_of_dimensions():
    value = normal(2, 6, 8)
    name, tensor, layout = fit(decided((value * 1.05).transpose(1, 2).contiguous(), {"a": value}))
    assert (name, layout) == ("a", "permuted (0, 2, 1)")
    assert torch.equal(tensor, value * 1.05)


def test_a_tensor_that_resembles_no_order_of_dimensions_is_taken_as_it_lies():
    for seed in range(20):
        assert fit(decided(1e4 * normal(2, 8, 8, seed=seed), {"a": normal(2, 8, 8, seed=99)}))[2] == ""


def test_a_tensor_of_nan_is_known_by_name_as_it_is():
    name, tensor, layout = fit(decided(torch.full((2, 6, 8), math.nan), {"a": normal(2, 6, 8)}))
    assert (name, layout) == ("a", "")
    assert tensor.isnan().all()


def test_a_tensor_of_nan_that_may_be_two_values_is_neither():
    decision = decided(torch.full((6, 8), math.nan), {"a": normal(6, 8), "b": normal(6, 8, seed=1)})
    assert decision.fits == ()
    assert decision.reason == "it can be any of a, b and resembles none of them"


def test_a_few_nan_do_not_hide_what_a_tensor_is():
    value = normal(16, 16)
    broken = value.clone()
    broken[3, 4] = math.nan
    assert fit(decided(broken, {"b": normal(16, 16, seed=1), "a": value}))[0] == "a"


def test_what_only_the_engine_computes_cannot_be_ruled_out():
    value = normal(6, 8)
    decision = decided(value * 1.5, {"a": value, "unknown": None})
    assert decision.fits == ()
    assert not decision.inner
    assert decision.reason == "it may be unknown, which only the engine computes"
    assert fit(decided(value, {"a": value, "unknown": None}))[0] == "a"


def consequence(wrong: dict[str, torch.Tensor], values: dict[str, torch.Tensor], follow) -> dict[str, Decision]:
    """Decide tensors of one kernel; ``follow`` computes the values from one of them, by name and tensor."""
    known = {name: expected(value) for name, value in values.items()}

    def assume(name, tensor):
        return {**known, **{other: expected(value) for other, value in follow(name, tensor).items()}}.get

    return decide(wrong, Candidates(leaving=tuple(values)), known.get, assume)


def test_a_wrong_tensor_is_known_by_what_follows_from_it():
    a, wrong = normal(6, 8), normal(6, 8, seed=1)
    tensors = {"second": wrong.exp(), "first": wrong, "third": 2 * wrong}
    found = consequence(
        tensors, {"a": a, "b": a.exp(), "c": 2 * a},
        lambda name, tensor: {"b": tensor.exp(), "c": 2 * tensor} if name == "a" else {},
    )  # fmt: skip
    assert {name: (fit(decision)[0], decision.mapped_by) for name, decision in found.items()} == {
        "first": ("a", "name"), "second": ("b", "contents"), "third": ("c", "contents"),
    }  # fmt: skip


def test_of_tensors_of_nan_the_value_that_explains_the_others_is_found():
    nothing = torch.full((6, 8), math.nan)
    a = normal(6, 8)
    found = consequence(
        {"first": nothing, "second": nothing.clone()}, {"a": a, "b": a.exp()},
        lambda name, tensor: {"b": tensor.exp()} if name == "a" else {},
    )  # fmt: skip
    assert {fit(decision)[0]: decision.mapped_by for decision in found.values()} == {"a": "name", "b": "contents"}


def test_two_explanations_explain_nothing():
    a, wrong = normal(6, 8), normal(6, 8, seed=1)
    found = consequence(
        {"first": wrong, "second": -wrong},
        {"a": a, "b": -a},
        lambda name, tensor: {"b": -tensor} if name == "a" else {},
    )
    assert {decision.reason for decision in found.values()} == {"it can be any of a, b and resembles none of them"}


def test_a_second_wrong_tensor_is_not_given_the_same_name():
    value = normal(6, 8)
    tensors = {"t": value * 2, "u": value * 3}
    decisions = decide(tensors, Candidates(leaving=("a",)), {"a": expected(value)}.get)
    assert [len(decision.fits) for decision in decisions.values()] == [1, 0]


def test_every_tensor_gets_a_decision_even_where_nothing_is_known():
    decisions = decide({"t": normal(2), "u": normal(3)}, Candidates(), lambda name: None)
    assert {name: decision.inner for name, decision in decisions.items()} == {"t": True, "u": True}


# Distance


def test_distances():
    value = normal(4, 8)
    wrong = [value * 1.25, value, torch.full((4, 8), math.nan), value.index_fill(0, torch.tensor([1]), math.nan)]
    assert distances(wrong, value) == pytest.approx([0.25, 0, math.inf, 0.25], rel=1e-6)
    assert [distances([each], value) for each in wrong] == [[found] for found in distances(wrong, value)]
    assert distances([torch.zeros(4), torch.ones(4)], torch.zeros(4)) == [0, math.inf]
    assert distances([torch.tensor([1, 2, 3, 4])] * 2, torch.tensor([1, 2, 3, 5])) == [0.25, 0.25]
    assert distances([torch.empty(0)] * 3, torch.empty(0)) == [math.inf] * 3
    nothing = torch.full((4,), math.nan)
    assert distances([nothing, torch.ones(4)], nothing) == [0, math.inf]


def test_the_sample_of_a_large_tensor_meets_every_column():
    value = torch.zeros(4096, 64)
    for column in range(64):
        wrong = value + 1
        wrong[:, column] += 1
        assert distances([wrong], value + 1)[0] > 0, column


# No mapping is wrong


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_permuted_and_padded_tensors_are_found_among_others(data):
    shape = data.draw(st.lists(st.integers(2, 7), min_size=2, max_size=4))
    order = data.draw(st.permutations(range(len(shape))))
    axis, extra = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.integers(0, 3))
    values = {f"v{seed}": normal(*shape, seed=seed) for seed in range(4)}
    name = data.draw(st.sampled_from(sorted(values)))
    laid = values[name].permute(order).contiguous()
    tensor = padded(laid, *(extra if position == axis else 0 for position in range(len(shape))), fill=9.0)
    found, laid_out, _ = fit(decided(tensor, dict(values)))
    assert found == name
    assert torch.equal(laid_out, values[name])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["wrong_kernel", "overflow", "growing_stream", "masked_overflow", "group_norm"])
def test_no_tensor_of_an_engine_is_mapped_to_another_value(name, precision, tmp_path):
    prepared, plan = ready(name), load_plan(precision)
    dtypes = assign(plan, prepared.program.values)
    graph = apply(prepared.program.model, dtypes, default=plan.compute_dtype).model
    ir.save(graph, tmp_path / "graph.onnx")
    request = BuildRequest(onnx=tmp_path / "graph.onnx", tf32=False, shapes={}, taps=True)
    backend = PlantedBackend()
    backend.build(request, tmp_path / "engine", quiet(tmp_path))
    session = backend.load(tmp_path / "engine")
    true_names = {engine: base_name(value).removesuffix("_as") for value, engine in session._names.items()}
    kernels = session.kernels()
    made = EngineKernels.of(ir.load(tmp_path / "graph.onnx"), prepared.program.values, kernels)
    lookup = named_values(prepared, getattr(torch, plan.compute_dtype)) | prepared.inputs["one"]
    tensors: dict[str, torch.Tensor] = {}
    session.tap(prepared.inputs["one"], tensors.__setitem__)

    def expect(value: str) -> Expected | None:
        known = lookup.get(value)
        return None if known is None else expected(known, close=0.02, dtypes=frozenset(made.dtypes[value]))

    mapped = 0
    for found, candidates in zip(kernels, made.candidates, strict=True):
        wrote = {engine: tensors[engine] for engine in found.writes}
        for engine, decision in decide(wrote, candidates, expect).items():
            for one in decision.fits:
                mapped += 1
                same = one.value == true_names[engine] or (
                    lookup[one.value].numel() == wrote[engine].numel()
                    and relative_l2(one.tensor, lookup[true_names[engine]].reshape(one.tensor.shape)) < 0.02
                )
                assert same, f"{engine} is {true_names[engine]}, not {one.value}"
    assert mapped >= 3


# An engine of TensorRT for RTX: a CLIP text encoder of two layers, FP16, on an H200


@pytest.fixture(scope="module")
def clip() -> dict[str, object]:
    """Return what was recorded: the inspector's layers, the taps, and the graph's nodes and values, without tensors."""
    recorded: dict[str, object] = json.loads(CLIP.read_text(encoding="utf-8"))
    return recorded


def clip_graph(recorded: dict[str, object]) -> tuple[ir.Model, Values]:
    """Return the typed graph, of which only nodes, names and dtypes were kept, and the value table."""
    values: dict[str, ir.Value] = {}

    def value(name: str) -> ir.Value:
        dtype = ir.DataType(recorded["dtypes"].get(name, 0)) if name in recorded["dtypes"] else None
        return values.setdefault(name, ir.Value(name=name, type=ir.TensorType(dtype) if dtype else None))

    nodes = []
    inputs = [value(name) for name in recorded["inputs"]]
    for name, op, reads, writes in recorded["nodes"]:
        entering = [value(read) if read else None for read in reads]
        nodes.append(ir.Node("", op, entering, outputs=[value(made) for made in writes], name=name))
    constants = [value(name) for name in recorded["initializers"]]
    outputs = [value(name) for name in recorded["outputs"]]
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=constants, opset_imports={"": 18}, name="clip")
    table = {name: Value(name=name, origin=name, op="") for name in recorded["values"]}
    return ir.Model(graph, ir_version=10), table


def test_nodes_of_a_recorded_engine_are_nodes_of_its_graph(clip):
    graph, _ = clip_graph(clip)
    nodes = {str(node.name) for node in graph.graph}
    kernels = read_kernels(inspected(*clip["layers"]))
    assert len(kernels) == 25
    assert {node for found in kernels for node in found.nodes} <= nodes


def test_every_float_tensor_of_a_recorded_engine_has_candidates(clip):
    graph, values = clip_graph(clip)
    made = EngineKernels.of(graph, values, read_kernels(inspected(*clip["layers"])))
    writer = {name: found for found in made.kernels for name in found.writes}
    floats = [name for name, dtype in clip["taps"].items() if dtype in ("HALF", "FLOAT") and name in writer]
    assert len(floats) > 20
    without = [name for name in floats if not made.candidates[writer[name].index].names]
    assert without == []
    named = {name for candidates in made.candidates for name in candidates.names}
    assert named <= {*values, *made.inputs}


def test_fused_kernels_of_a_recorded_engine_hold_every_variable_value(clip):
    graph, values = clip_graph(clip)
    made = EngineKernels.of(graph, values, read_kernels(inspected(*clip["layers"])))
    products = {str(node.outputs[0].name) for node in graph.graph if node.op_type == "MatMul"}
    assert products
    assert products <= set(made.computed_in)


# The tap of a TensorRT session, with a TensorRT that calls its listener as the engine would


class StubContext:
    """Delivers tensors to its listener, the second one from memory that is overwritten right after."""

    def __init__(self, deliveries: list[tuple[str, str, object]]) -> None:
        self.deliveries, self.listener = deliveries, None
        self.states: list[bool] = []

    @property
    def unfused_tensors_debug_state(self) -> bool:
        return bool(self.states) and self.states[-1]

    @unfused_tensors_debug_state.setter
    def unfused_tensors_debug_state(self, state: bool) -> None:
        self.states.append(state)

    def set_debug_listener(self, listener: object) -> None:
        self.listener = listener

    def run(self) -> None:
        for name, dtype, memory in self.deliveries:
            pointer = memory.data_ptr()
            kind, location = SimpleNamespace(name=dtype), "host"
            assert self.listener.process_debug_tensor(pointer, location, kind, tuple(memory.shape), name, 0)
            memory.fill_(-1)


class StubSession(TensorRTSession):
    """A session whose run is that of the stub; ``trouble`` is raised by it."""

    def __init__(self, context: object, *, text: str = "{}", trouble: Exception | None = None) -> None:
        self._trt = SimpleNamespace(
            IDebugListener=type("IDebugListener", (), {"__init__": lambda self: None}),
            TensorLocation=SimpleNamespace(HOST="host"),
            LayerInformationFormat=SimpleNamespace(JSON="json"),
        )
        self._name, self._file, self._device = "stub", "engine", torch.device("cpu")
        self._stream = SimpleNamespace(synchronize=lambda: None)
        self.context, self._trouble = context, trouble
        inspector = SimpleNamespace(execution_context=None, get_engine_information=lambda format: text)
        self.engine = SimpleNamespace(create_engine_inspector=lambda: inspector)

    def run(self, inputs: object) -> dict[str, torch.Tensor]:
        if self._trouble is not None:
            raise self._trouble
        self.context.run()
        return {"y": torch.ones(2)}


def two_tensors() -> list[tuple[str, str, object]]:
    return [("t", "FLOAT", torch.arange(6.0).reshape(2, 3)), ("u", "HALF", torch.ones(2).half())]


def test_host_memory_is_copied_before_the_engine_goes_on():
    context = StubContext(two_tensors())
    seen: dict[str, torch.Tensor] = {}
    assert set(StubSession(context).tap({}, seen.__setitem__)) == {"y"}
    assert torch.equal(seen["t"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(seen["u"], torch.ones(2).half())
    assert context.states == [True, False]


def test_an_exception_ends_the_observation_and_comes_out_after_the_run():
    context = StubContext(two_tensors())
    seen: list[str] = []

    def stop(name: str, tensor: torch.Tensor) -> None:
        seen.append(name)
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        StubSession(context).tap({}, stop)
    assert seen == ["t"]
    assert context.deliveries[1][2].eq(-1).all()  # the engine ran to its end
    assert context.states == [True, False]


def test_the_state_is_reset_when_the_engine_fails():
    context = StubContext([])
    with pytest.raises(EngineFailed, match="kernel 7"):
        StubSession(context, trouble=EngineFailed("kernel 7")).tap({}, lambda name, tensor: None)
    assert context.states == [True, False]


def test_dtypes_that_pytorch_has_not_are_skipped():
    seen: list[str] = []
    context = StubContext([("packed", "INT4", torch.ones(2)), *two_tensors()])
    StubSession(context).tap({}, lambda name, tensor: seen.append(name))
    assert seen == ["t", "u"]


def test_an_empty_tensor_has_its_shape():
    seen: dict[str, torch.Tensor] = {}
    StubSession(StubContext([("t", "FLOAT", torch.ones(0, 3))])).tap({}, seen.__setitem__)
    assert seen["t"].shape == (0, 3)


@pytest.mark.parametrize("deliveries", [[], [("packed", "INT4", torch.ones(2))]])
def test_an_engine_that_delivers_nothing_is_refused(deliveries):
    with pytest.raises(EngineRefused, match="stub delivered no tensor of engine; use --layers outputs"):
        StubSession(StubContext(deliveries)).tap({}, lambda name, tensor: None)


def test_a_version_without_debug_tensors_and_a_closed_session_are_refused():
    with pytest.raises(EngineRefused, match="no debug tensors between kernels; use --layers outputs"):
        StubSession(SimpleNamespace()).tap({}, lambda name, tensor: None)
    with pytest.raises(EngineFailed, match="is closed"):
        StubSession(None).tap({}, lambda name, tensor: None)


@pytest.mark.parametrize("layers", [None, [], ["a name only"], [{"Name": "k"}], [{"Name": "k", "Metadata": ""}]])
def test_an_inspector_without_metadata_is_refused(layers):
    text = json.dumps({} if layers is None else {"Layers": layers})
    with pytest.raises(EngineRefused, match="reports no metadata for engine, so its tensors cannot be mapped"):
        StubSession(SimpleNamespace(), text=text).kernels()


def test_an_inspector_with_metadata_gives_its_kernels():
    layers = [{"Name": "k", "Metadata": "[ONNX Layer: a]"}, {"Name": "copy"}]
    assert StubSession(SimpleNamespace(), text=json.dumps({"Layers": layers})).kernels() == [
        Kernel(index=0, name="k", nodes=("a",), reads=(), writes=()),
        Kernel(index=1, name="copy", nodes=(), reads=(), writes=()),
    ]
