"""A slice that is too large as a whole is wrong where rounding hides it in every element; rounding alone is not."""

from __future__ import annotations

import pytest
import torch

from benchmarks.quantised import _wrong_axis as wrong_axis
from benchmarks.quantised import files, in_pytorch
from harness.quantised import Gains, judge_codes, last_results

U = 2.0**-11


def rounded(value: torch.Tensor, seed: int) -> torch.Tensor:
    return value * (1 + U * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed), dtype=value.dtype))


@pytest.fixture
def exact() -> torch.Tensor:
    value = torch.randn(4, 8, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value[0] = 0.0
    return value


def gains_of(exact: torch.Tensor) -> Gains:
    gains = Gains({"y": exact})
    for seed in range(32):
        gains.add({"y": rounded(exact, seed)})
    return gains


def test_rounding_is_not_wrong_even_to_one_side(exact: torch.Tensor):
    gains = gains_of(exact)
    assert not any(gains.wrong("y", rounded(exact, 100 + seed)) for seed in range(50))
    assert not gains.wrong("y", exact * (1 + U * torch.rand(exact.shape, dtype=torch.float64)))
    assert not gains.wrong("y", exact.where(exact != 0, float("nan"))), "what is not finite is judged elsewhere"


def test_a_slice_that_is_off_by_two_roundings_is_found(exact: torch.Tensor):
    gains, actual = gains_of(exact), rounded(exact, 100)
    actual[:, 3] *= 1 - 2.5 * U
    words = gains.wrong("y", actual)
    assert "slice 3 of axis 1" in words
    assert "too small" in words
    assert not gains.wrong("another", actual)


def test_scales_along_the_wrong_axis_that_hardly_differ_are_found():
    net = files("conv_mo_int8_fp16")
    inputs = net.inputs(1)
    case, (last,) = net.case(inputs), last_results(net.graph)
    assert last_results(net.graph)[last] == ("y",)
    for change, is_wrong in ((lambda model: None, False), (wrong_axis, True)):
        given = in_pytorch(net.altered(change), inputs)
        gains = Gains(case.run(given.codes, also=[last]))
        judge_codes(case, given.codes, {}, gains=gains, also=[last])
        assert bool(gains.wrong(last, given.outputs[last])) == is_wrong
