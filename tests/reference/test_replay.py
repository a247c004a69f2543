"""Evaluators: a program step by step, with an engine's values in the place of computed ones."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import planted
import pytest
import torch
from fake import quiet
from planted import WIDTH, linear, normal

from harness import Subject, Target
from harness.compare.norms import relative_l2
from harness.graph.plan import load_plan
from harness.reference.helper_values import HelperValues
from harness.reference.interpreter import RunNotes, run_graph
from harness.reference.replay import Evaluators, ProgramEvaluator
from harness.reference.run_graph import exported_run_graph
from harness.verify.prepare import Prepared, prepare

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


class Deep(torch.nn.Module):
    """A chain of forty layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*(linear(seed) for seed in range(40)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Two(torch.nn.Module):
    """Two outputs, one of them read on, and an operation with several results."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(0), linear(1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.first(x)
        values, indices = hidden.topk(WIDTH, -1)
        return {"hidden": hidden, "last": self.second(values) + indices}


@functools.cache
def ready(name: str) -> Prepared:
    own = {"deep": Deep, "two": Two}
    if name not in own:
        return planted.ready(name)
    subject = Subject(
        name=name, build=lambda: own[name]().eval(), cases={"one": normal}, targets=(Target("torch", "fp16"),),
        weights="random",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(subject, quiet(Path(folder), engine_cache=False))
        assert prepared.program.exported is not None
        return prepared


def evaluator(name: str, dtype: torch.dtype = torch.float32, **options: object) -> ProgramEvaluator:
    prepared = ready(name)
    return ProgramEvaluator(exported_run_graph(prepared.program), prepared.inputs["one"], dtype=dtype, **options)


def run(name: str, dtype: torch.dtype = torch.float32, **options: object) -> dict[str, torch.Tensor]:
    """Return every value of a run of the whole program, by its FX name."""
    return planted.values_of(ready(name), dtype, **options)


def same(actual: torch.Tensor | None, expected: torch.Tensor) -> bool:
    """Return whether these are the same bits, NaN included."""
    return (
        actual is not None
        and actual.dtype == expected.dtype
        and torch.equal(actual.nan_to_num(), expected.nan_to_num())
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["wrong_kernel", "overflow", "flipped_decision", "masked_overflow", "two"])
def test_an_evaluator_computes_what_a_run_computes(name, dtype):
    values = run(name, dtype)
    asked = evaluator(name, dtype, asked=list(values))
    assert len(values) >= 5
    assert [value for value in reversed(values) if not same(asked.value(value), values[value])] == []


def test_an_evaluator_computes_in_the_dtypes_of_a_plan():
    dtypes = {"linear_1": torch.float32, "add_1": torch.float32}
    values = run("wrong_kernel", torch.float16, dtypes=dtypes)
    asked = evaluator("wrong_kernel", torch.float16, dtypes=dtypes, asked=list(values))
    assert all(same(asked.value(name), tensor) for name, tensor in values.items())
    assert asked.value("linear_1").dtype == torch.float32
    assert asked.value("gelu_1").dtype == torch.float16


def test_outputs_go_by_their_declared_names():
    prepared = ready("two")
    expected = run_graph(exported_run_graph(prepared.program), prepared.inputs["one"], dtype=torch.float32)
    outputs = evaluator("two").outputs()
    assert list(outputs) == ["hidden", "last"]
    assert all(torch.equal(outputs[name], expected[name]) for name in expected)


def test_notes_tell_of_saturated_constants():
    notes = RunNotes()
    expected = RunNotes()
    prepared = ready("masked_overflow")
    run_graph(exported_run_graph(prepared.program), prepared.inputs["one"], dtype=torch.float16, notes=expected)
    evaluator("masked_overflow", torch.float16, notes=notes).outputs()
    assert notes == expected


def test_weights_are_used_where_they_are_given():
    given = ready("deep")
    state = {name: torch.zeros_like(tensor) for name, tensor in given.graph.module.state_dict().items()}
    assert not evaluator("deep", weights=state).outputs()["output"].any()


# Observing


def test_observe_changes_what_is_computed_from_it_and_nothing_else():
    values = run("wrong_kernel")
    observed = evaluator("wrong_kernel", asked=list(values))
    tensor = values["linear_1"] * 1.05
    observed.observe("linear_1", tensor)
    order = list(values)
    before = order[: order.index("linear_1")]
    assert all(torch.equal(observed.value(name), values[name]) for name in before)
    assert torch.equal(observed.value("linear_1"), tensor)
    assert torch.equal(observed.value("gelu_1"), torch.nn.functional.gelu(tensor))
    assert torch.equal(observed.value("add_1"), values["add"] + torch.nn.functional.gelu(tensor))


def test_operands_are_what_was_observed_and_have_the_values_shape():
    values = run("wrong_kernel")
    observed = evaluator("wrong_kernel", asked=list(values))
    observed.observe("gelu_1", values["gelu_1"] * 2)
    read = observed.operands("add_1")
    assert set(read) == {"add", "gelu_1"}
    assert torch.equal(read["gelu_1"], values["gelu_1"] * 2)
    assert observed.operands("no such value") == {}
    assert set(evaluator("deep").operands(list(run("deep"))[5])) <= {list(run("deep"))[4]}


def test_what_was_computed_before_is_not_computed_again():
    values = run("wrong_kernel")
    observed = evaluator("wrong_kernel", asked=list(values))
    early = observed.value("gelu_1")
    observed.observe("linear_1", torch.zeros_like(values["linear_1"]))
    assert observed.value("gelu_1") is early


def test_an_observed_value_takes_the_evaluators_dtype_and_shape():
    values = run("wrong_kernel", torch.float16)
    observed = evaluator("wrong_kernel", torch.float16, asked=list(values))
    observed.observe("linear_1", values["linear_1"].double().reshape(16, WIDTH))
    assert same(observed.value("linear_1"), values["linear_1"])


def test_observing_an_unknown_value_is_harmless():
    observed = evaluator("wrong_kernel")
    observed.observe("no_such_value", torch.ones(2))
    assert same(observed.outputs()["output"], run("wrong_kernel")[ready("wrong_kernel").program.outputs["output"]])


def test_an_observed_output_is_what_the_evaluator_gives():
    observed = evaluator("two")
    observed.observe(ready("two").program.outputs["hidden"], torch.zeros(2, 8, WIDTH))
    assert not observed.outputs()["hidden"].any()


# Memory


def test_a_deep_chain_holds_a_few_values():
    chain = evaluator("deep")
    names = list(run("deep"))
    held = []
    for name in names:
        chain.value(name)
        held.append(chain.held)
    assert len(names) == 40
    assert max(held) <= 3


def test_values_that_are_asked_for_stay_until_they_are_done():
    names = list(run("deep"))
    chain = evaluator("deep", asked=names)
    chain.value(names[-2])
    assert chain.held == len(names) - 1
    for name in names[:-2]:
        assert chain.value(name) is not None
        chain.done(name)
        assert chain.value(name) is None
    assert chain.held == 1


def test_a_value_that_is_done_before_it_is_read_stays_for_its_reader():
    names = list(run("deep"))
    chain = evaluator("deep", asked=names)
    chain.done(names[0])
    assert chain.value(names[0]) is not None
    assert torch.equal(chain.outputs()["output"], run("deep")[names[-1]])
    assert chain.value(names[0]) is None


def test_a_freed_value_gives_none_and_can_no_more_be_observed():
    names = list(run("deep"))
    chain = evaluator("deep")
    output = chain.outputs()["output"]
    assert chain.value(names[5]) is None
    chain.observe(names[5], torch.zeros(2, 8, WIDTH))
    assert torch.equal(chain.outputs()["output"], output)


def test_outputs_are_never_freed():
    two = evaluator("two")
    for name in ready("two").program.outputs.values():
        two.done(name)
    assert set(two.outputs()) == {"hidden", "last"} == set(two.outputs())


def test_what_is_no_single_tensor_gives_none():
    two = evaluator("two")
    assert two.value("topk") is None
    assert two.value("no_such_value") is None
    assert set(two.outputs()) == {"hidden", "last"}


# Forks


@pytest.mark.parametrize("name", [*planted.PLANTED, "two"])
def test_forks_in_dataflow_order_give_what_fresh_evaluators_give(name):
    """A reader that had been computed before the change would hide it."""
    prepared, values = ready(name), run(name)
    trunk, depths = prepared.graph.evaluator(prepared.inputs["one"]), prepared.program.depths()
    floats = [value for value in values if values[value].is_floating_point()]
    assert floats
    for value in sorted(floats, key=depths.__getitem__):
        changed = 1.5 * values[value] + 1
        assert same(trunk.value(value), values[value])
        fork, fresh = trunk.fork(), prepared.graph.evaluator(prepared.inputs["one"])
        fork.observe(value, changed)
        fresh.observe(value, changed)
        expected = fresh.outputs()
        assert all(same(tensor, expected[output]) for output, tensor in fork.outputs().items()), value
    assert all(same(tensor, values[prepared.program.outputs[output]]) for output, tensor in trunk.outputs().items())


def test_an_evaluator_does_not_see_what_its_fork_frees():
    values = run("deep")
    first, second, *_ = values
    trunk = evaluator("deep")
    trunk.value(first)
    trunk.fork().outputs()
    assert same(trunk.value(first), values[first])
    assert same(trunk.value(second), values[second])


# The four evaluators


def evaluators(name: str, asked: list[str], precision: str = "fp16") -> Evaluators:
    return ready(name).graph.evaluators(ready(name).inputs["one"], load_plan(precision), asked)


def test_replays_start_from_what_was_observed_and_the_others_do_not():
    values = run("wrong_kernel")
    four = evaluators("wrong_kernel", ["linear_1", "gelu_1"])
    four.observe("linear_1", values["linear_1"] * 1.05)
    assert relative_l2(four.value(four.replay, "linear_1"), values["linear_1"]) == pytest.approx(0.05, rel=1e-4)
    assert torch.equal(four.value(four.reference, "gelu_1"), values["gelu_1"])
    assert same(four.value(four.floor, "gelu_1"), run("wrong_kernel", torch.float16)["gelu_1"])
    wanted = torch.nn.functional.gelu(values["linear_1"] * 1.05)
    assert torch.equal(four.value(four.replay, "gelu_1"), wanted)
    assert relative_l2(four.value(four.replay_low, "gelu_1"), wanted) < 1e-3


def test_an_fp32_engine_is_held_against_fp64():
    four = evaluators("wrong_kernel", ["gelu"], "fp32")
    dtypes = [four.value(one, "gelu").dtype for one in (four.reference, four.floor, four.replay, four.replay_low)]
    assert dtypes == [torch.float64, torch.float32, torch.float64, torch.float32]


def test_an_output_goes_by_its_declared_name():
    four = evaluators("wrong_kernel", ["output"])
    assert four.canonical("output") == ready("wrong_kernel").program.outputs["output"]
    assert same(four.value(four.reference, "output"), run("wrong_kernel")[four.canonical("output")])


def test_a_helper_is_computed_once_until_an_evaluator_changes(monkeypatch):
    four, asked = evaluators("overflow", ["mul_1", "val_18"]), []
    value = HelperValues.value
    monkeypatch.setattr(HelperValues, "value", lambda *args, **kwargs: asked.append(args) or value(*args, **kwargs))
    first = four.value(four.replay, "val_18")
    assert four.value(four.replay, "val_18") is first
    assert len(asked) == 1
    four.observe("mul_1", run("overflow")["mul_1"] * 2)
    assert relative_l2(four.value(four.replay, "val_18"), first * 2) < 1e-6
    assert len(asked) == 2


def test_what_an_adopted_fork_computed_is_not_computed_again():
    four = evaluators("wrong_kernel", ["linear", "gelu"])
    fork = four.fork()
    high, low = (fork.value(evaluator, "linear") for evaluator in (fork.replay, fork.replay_low))
    assert four.value(four.replay, "linear") is not high
    four.adopt(fork)
    assert four.value(four.replay, "linear") is high
    assert four.value(four.replay_low, "linear") is low
    four.done(["linear"])
    four.value(four.replay, "gelu")
    assert four.value(four.replay, "linear") is None


def test_what_follows_a_value_that_only_onnx_has_reads_it():
    """A product before its bias is added: PyTorch computes both in one step."""
    names = ["val_3", "linear_1", "add_1"]
    four, values = evaluators("growing_stream", names), run("growing_stream")
    bias = ready("growing_stream").graph.module.blocks[1].bias
    wrong = 1.5 * four.value(four.replay, "val_3")
    four.observe("val_3", wrong)
    assert torch.equal(four.value(four.replay, "val_3"), wrong)
    assert relative_l2(four.value(four.replay, "linear_1"), wrong + bias) < 1e-6
    low = four.value(four.replay_low, "linear_1")
    assert low.dtype == torch.float16
    assert relative_l2(low.float(), wrong + bias) < 1e-2
    assert torch.equal(four.value(four.reference, "linear_1"), values["linear_1"])
    assert four.replay._seen == {}, "kept no longer than it is read"


def test_a_fork_keeps_what_only_onnx_has():
    prepared = ready("growing_stream")
    trunk, expected = (
        prepared.graph.evaluator(prepared.inputs["one"]),
        prepared.graph.evaluator(prepared.inputs["one"]).outputs()["output"],
    )
    fork = trunk.fork()
    fork.observe("val_3", 1.5 * trunk.value("val_3"))
    assert torch.equal(trunk.outputs()["output"], expected)
    assert relative_l2(fork.outputs()["output"], expected) > 0.01
    assert torch.equal(fork.fork().outputs()["output"], fork.outputs()["output"])


def test_a_value_that_only_onnx_has_is_computed_from_what_an_evaluator_has():
    values = run("growing_stream")
    four = evaluators("growing_stream", ["val_3", "linear_1", "add_1"])
    module = ready("growing_stream").graph.module.blocks[1]
    x = ready("growing_stream").inputs["one"]["x"]
    product = four.value(four.reference, "val_3")
    assert relative_l2(product, x @ module.weight.T) < 1e-6
    assert relative_l2(product + module.bias, values["linear_1"]) < 1e-6


def test_a_helper_of_a_replay_reads_what_was_observed():
    four = evaluators("overflow", ["mul_1", "val_18"])
    made = four.value(four.reference, "val_18")
    tensor = run("overflow")["mul_1"] * 2
    four.observe("mul_1", tensor)
    assert relative_l2(four.value(four.replay, "val_18"), made * 2) < 1e-6
    assert torch.equal(four.value(four.reference, "val_18"), made)
    assert four.value(four.replay_low, "val_18").dtype == torch.float16


def test_what_a_helper_needs_is_kept_until_the_helper_is_done():
    """The ONNX graph skips a copy that PyTorch makes: the copy's source is read long after the copy was made."""

    class Copied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            copy = x.exp().clone()
            return self.first(copy) + self.second(copy)

    copied = Subject(
        name="copied", build=lambda: Copied().eval(), cases={"one": lambda: {"x": torch.ones(2, 3, 8)}},
        targets=(Target("torch", "fp16"),), weights="random",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(copied, quiet(Path(folder)))
        products = [name for name, value in prepared.program.values.items() if value.op == "onnx.MatMul"]
        asked = sorted(["exp", *products], key=prepared.program.depths().__getitem__)
        four = prepared.graph.evaluators(prepared.inputs["one"], load_plan("fp16"), asked)
        for name in asked:
            assert four.value(four.replay, name) is not None, name
            four.value(four.replay, "clone")
            four.done([name])
    assert len(products) == 2
    four.replay.outputs()
    assert four.value(four.replay, "exp") is None, "freed with the last that reads it or is composed from it"


@pytest.mark.parametrize("part", [1.0, 1.1], ids=["right", "wrong"])
def test_parts_that_the_exporter_gets_wrong_are_not_taken_for_what_pytorch_computes(part, monkeypatch):
    four = evaluators("growing_stream", ["val_3", "linear"])
    product = four.value(four.replay, "val_3")
    [owner] = four.replay._helpers.owners("val_3")
    computed = HelperValues.value

    def wrong(self, name, *arguments, **options):
        result = computed(self, name, *arguments, **options)
        return result * part if name == owner else result

    monkeypatch.setattr(HelperValues, "value", wrong)
    monkeypatch.setattr(four.replay._helpers, "faithful", {})
    truth = run("growing_stream")[owner]
    four.observe("val_3", product * 2)
    used = relative_l2(four.value(four.replay, owner), truth) > 0.01
    assert used == (part == 1.0)


def test_what_nothing_reads_any_more_cannot_be_observed():
    four = evaluators("growing_stream", ["val_3"])
    product = four.value(four.replay, "val_3")
    assert four.replay.fork().observe("val_3", product)
    four.replay.outputs()
    assert not four.replay.observe("val_3", product)
    assert not four.replay.observe("no_such_value", product)


def test_what_nothing_computes_is_none():
    four = evaluators("wrong_kernel", [])
    assert four.value(four.reference, "no_such_value") is None


def test_done_reaches_all_four_evaluators():
    names = ["layer_norm", "linear", "gelu", "add"]
    four = evaluators("wrong_kernel", names)
    every = (four.reference, four.floor, four.replay, four.replay_low)
    for one in every:
        one.value("layer_norm_1")
    four.done(names)
    assert [one.value("linear") for one in every] == [None] * 4
    assert all(one.value("add") is not None for one in every)  # the sum of the next block still reads it
