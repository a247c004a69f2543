"""PyTorch run with the errors of an engine added on the way."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from planted import named_values, ready

from harness.compare.norms import relative_l2
from harness.errors import NotJudged
from harness.graph.plan import load_plan
from harness.layers.observer import KeptError
from harness.layers.propagation import Propagation, _rounded_alike


def propagation(name: str = "wrong_kernel", overflows: frozenset[str] = frozenset()) -> Propagation:
    prepared = ready(name)
    before = SimpleNamespace(
        prepared=prepared,
        inputs=prepared.inputs["one"],
        opened=SimpleNamespace(plan=load_plan("fp16")),
        counted=lambda outputs: outputs,
    )
    return Propagation(before, SimpleNamespace(depths=prepared.program.depths(), overflows=overflows, precision="fp16"))


def error(name: str, tensor: torch.Tensor, number: int = 0, own: torch.Tensor | None = None) -> KeptError:
    return KeptError(1.0, number, name, tensor, own)


def test_without_errors_the_outputs_are_those_of_the_reference_and_of_the_floor():
    high, low = propagation().with_floor(())
    assert torch.equal(high["output"], named_values(ready("wrong_kernel"))["output"])
    assert torch.equal(low["output"], named_values(ready("wrong_kernel"), torch.float16)["output"])


def test_later_errors_are_added_to_what_carries_the_earlier_ones():
    values = named_values(ready("wrong_kernel"))
    first = error("linear_3", 0.1 * values["linear_3"], 1)
    second = error("gelu_3", 0.5 - torch.nn.functional.gelu(1.1 * values["linear_3"]), 2)
    outputs = propagation().together([second, first])
    assert torch.allclose(outputs["output"], values["add_2"] + 0.5, atol=1e-5)


def test_a_floor_with_errors_loses_what_the_floor_loses():
    values = named_values(ready("wrong_kernel"))
    high, low = propagation().with_floor([error("linear", 0.5 * values["linear"])])
    plain = relative_l2(named_values(ready("wrong_kernel"), torch.float16)["output"].float(), values["output"])
    assert relative_l2(high["output"], values["output"]) > 0.05
    assert relative_l2(low["output"].float(), high["output"]) == pytest.approx(plain, rel=0.5)


def test_what_is_small_in_the_engine_is_not_rounded_as_coarsely_as_the_large_value_in_its_place():
    value = torch.tensor([-10003.0, 2.0, 0.0, -3.4e38, 1.0])
    rounded = torch.tensor([-10000.0, 2.002, 0.0, -65504.0, math.inf]).half()
    disturbed = torch.tensor([1.5, 4.0, 1.0, 1.0, 3.0])
    lost = _rounded_alike(disturbed, value, rounded) - disturbed
    assert lost.tolist() == pytest.approx([3 * 1.5 / 10003, 0.00195, 0, 0, 0], rel=1e-2, abs=1e-6)


def test_each_error_alone_in_dataflow_order():
    values = named_values(ready("wrong_kernel"))
    errors = [error(name, 0.1 * values[name], number) for number, name in enumerate(("gelu_3", "linear", "gelu_1"))]
    own = propagation()
    found = list(own.alone(errors))
    assert [kept.name for kept, _ in found] == ["linear", "gelu_1", "gelu_3"]
    for kept, outputs in found:
        assert outputs is not None
        assert torch.equal(outputs["output"], own.together([kept])["output"])


def test_an_error_carries_a_value_beyond_the_end_where_the_engine_overflows():
    values = named_values(ready("wrong_kernel"))
    large = error("linear_3", 1e5 * values["linear_3"])
    ends, goes_on = propagation(overflows=frozenset({"gelu_3"})), propagation()
    beyond = torch.nn.functional.gelu(1e5 * values["linear_3"]) > 65504
    assert bool(beyond.any())
    assert torch.equal(~ends.together([large])["output"].isfinite(), beyond)
    assert bool(goes_on.together([large])["output"].isfinite().all())
    [(_, alone)] = ends.alone([large])
    assert torch.equal(alone["output"], ends.together([large])["output"])
    assert torch.equal(ends.expected["output"], goes_on.expected["output"])


def test_a_graph_that_cannot_be_run_with_the_errors_is_not_judged():
    values = named_values(ready("flipped_decision"))
    wrong = error("argmax", torch.full_like(values["argmax"], 99), own=torch.ones_like(values["argmax"], dtype=bool))
    own = propagation("flipped_decision")
    with pytest.raises(NotJudged, match="cannot run the graph with the engine's errors"):
        own.together([wrong])
    assert [outputs for _, outputs in own.alone([wrong])] == [None]
