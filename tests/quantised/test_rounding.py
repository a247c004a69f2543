"""How far rounding takes a value: no less than what is measured, and by the length of the sum."""

from __future__ import annotations

import pytest
import torch
from graphs import parse

from harness.quantised import Evaluator
from harness.quantised.rounding import Rounding
from harness.reference import onnx_run_graph

PRODUCT = "g (float[64, {n}] x, float[{n}, 32] w) => (float[64, 32] y) {{ h = MatMul(x, w) y = Relu(h) }}"


def deviations(text: str, inputs: dict[str, torch.Tensor]) -> tuple[Rounding, dict[str, torch.Tensor]]:
    graph = onnx_run_graph(parse(text))
    rounding = Rounding({}, accumulator=2.0**-24, fixed=frozenset())
    values: dict[str, torch.Tensor] = {}
    runner = Evaluator(
        graph, inputs, given={}, reciprocal=False, rounding=rounding, dtype=torch.float64,
        on_value=values.__setitem__,
    )  # fmt: skip
    with torch.inference_mode():
        runner.results()
    return rounding, values


@pytest.mark.parametrize("n", [16, 1024])
def test_a_product_errs_by_less_than_it_may(n: int):
    draw = torch.Generator().manual_seed(0)
    inputs = {"x": torch.randn(64, n, generator=draw), "w": torch.randn(n, 32, generator=draw)}
    rounding, values = deviations(PRODUCT.format(n=n), inputs)
    error = (inputs["x"] @ inputs["w"]).double() - values["h"]
    sizes = inputs["x"].abs().double() @ inputs["w"].abs().double()
    torch.testing.assert_close(rounding.deviations["h"], 2.0**-24 * (n**0.5 * sizes + values["h"].abs()))
    assert (error.abs() <= 5 * rounding.deviations["h"]).all()


def test_what_is_not_moved_by_rounding_stays():
    inputs = {"x": torch.zeros(64, 16), "w": torch.zeros(16, 32)}
    rounding, values = deviations(PRODUCT.format(n=16), inputs)
    moved = rounding.moved("y", values["y"], torch.Generator().manual_seed(0))
    assert torch.equal(moved, values["y"])
    assert rounding.moved("unknown", values["y"], torch.Generator()) is values["y"]
