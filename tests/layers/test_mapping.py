"""From the tensors of a tap to values: kernels and their candidates, layouts, and what must never be guessed."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from fake import normal, quiet
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import PlantedBackend, base_name, named_values, ready

from harness.backends.base import BuildRequest
from harness.backends.inspector import Kernel
from harness.compare.norms import relative_l2
from harness.graph.plan import assign, load_plan
from harness.graph.typed import apply
from harness.layers.engine_kernels import Candidates, EngineKernels
from harness.layers.layouts import Expected, best_fit
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


def test_a_work_space_is_not_laid_out_in_every_order(monkeypatch):
    """Where nothing fits, five dimensions have 120 orders for every value that may be a part."""
    calls: list[int] = []
    monkeypatch.setattr("harness.layers.layouts.distances", lambda *them: calls.append(1))
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
    assert decision.reason == "its contents match all of a, b"


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
    assert decisions["mean"].reason == "internal to a kernel; the graph has no value for it"


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
