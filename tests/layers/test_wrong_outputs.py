"""What of an output is beyond its limit, and how much of it another computation shows as well."""

from __future__ import annotations

import math

import pytest
import torch

from harness.layers.wrong_outputs import WrongOutput, holds, judge_against, wrong_outputs
from harness.records import OutputResult, PartResult
from harness.verify import judge_tensors

EXPECTED = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(1))
FLOOR = EXPECTED.half().float()


def rounding(seed: int, size: float = 3e-4) -> torch.Tensor:
    return size * EXPECTED * torch.randn(EXPECTED.shape, generator=torch.Generator().manual_seed(seed))


def wrong(actual: torch.Tensor, expected: torch.Tensor = EXPECTED) -> WrongOutput:
    result = judge_tensors("y", actual, expected, FLOOR, precision="fp16")
    assert result.verdict == "fail"
    [found] = wrong_outputs([result], {"y": actual}, {"y": expected})
    return found


def test_of_a_whole_that_is_wrong_the_squared_error_counts():
    error = 0.05 * EXPECTED.abs()
    found = wrong(EXPECTED + error)
    assert found.total == pytest.approx(float(error.square().sum()), rel=1e-5)
    assert found.left({"y": EXPECTED}) == pytest.approx(1)
    assert found.left({"y": EXPECTED + error}) == 0
    assert found.left({"y": EXPECTED + error / 2}) == pytest.approx(0.25, rel=1e-4)


def test_noise_of_the_same_size_explains_nothing():
    found = wrong(EXPECTED + rounding(2, 0.05))
    assert found.left({"y": EXPECTED + rounding(3, 0.05)}) == pytest.approx(2, rel=0.2)


def test_of_a_slice_that_is_wrong_the_rest_does_not_count():
    """The rounding of the whole is far larger than what is wrong with one slice."""
    expected = EXPECTED.clone()
    expected[:, 3] *= 0.01
    result = OutputResult(name="y", verdict="fail", reason="", parts=(part(kind="slice", axis=1, index=3),))
    actual = expected + rounding(2)
    actual[:, 3] = expected[:, 3] + 2e-3
    [found] = wrong_outputs([result], {"y": actual}, {"y": expected})
    explained = expected.clone()
    explained[:, 3] += 2e-3
    assert found.left({"y": explained}) < 1e-6
    assert found.total == pytest.approx(4 * 32 * 2e-3**2, rel=1e-3)


def part(**fields: object) -> PartResult:
    known = {"figure": "relative_l2", "error": 0.1, "floor": 0.001, "allowed": 0.003, "elements": 128}
    return PartResult(**{**known, **fields})


@pytest.mark.parametrize(
    ("figure", "change"), [("bias", lambda e: e + 1e-4), ("scale", lambda e: e * (1 + 1e-4))], ids=["bias", "scale"]
)
def test_of_a_figure_that_is_wrong_only_its_direction_counts(figure, change):
    actual = change(EXPECTED) + rounding(2)
    failing = part(kind="whole", figure=figure, error=1e-4, allowed=1e-5)
    [found] = wrong_outputs(
        [OutputResult(name="y", verdict="fail", reason="", parts=(failing,))], {"y": actual}, {"y": EXPECTED}
    )
    assert found.excess == pytest.approx(10)
    assert found.left({"y": change(EXPECTED)}) < 0.1
    assert found.left({"y": EXPECTED + rounding(5)}) > 0.7


def test_where_an_output_is_no_number_the_places_count():
    actual = EXPECTED.clone()
    actual[:, 2, :4] = math.nan
    found = wrong(actual)
    assert found.total == 16
    half, elsewhere = EXPECTED.clone(), EXPECTED.clone()
    half[:2, 2, :4] = math.inf
    elsewhere[:, 3, :4] = math.nan
    assert found.left({"y": half}) == 0.5
    assert found.left({"y": elsewhere}) == 2
    assert found.left({"y": actual}) == 0


def test_what_is_no_number_explains_nothing_of_an_output_of_numbers():
    found = wrong(EXPECTED * 1.05)
    assert found.left({"y": torch.full_like(EXPECTED, math.nan)}) == math.inf


def test_decisions_are_counted_and_those_of_another_shape_left_out():
    expected, actual = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 9, 3, 9])
    failed = [OutputResult(name=name, verdict="fail", reason="") for name in ("y", "z")]
    found = wrong_outputs(failed, {"y": actual, "z": torch.ones(2)}, {"y": expected, "z": torch.ones(3)})
    assert [(it.name, it.total) for it in found] == [("y", 2)]
    assert found[0].left({"y": torch.tensor([1, 9, 3, 4])}) == 0.5


def verdict(actual: torch.Tensor, expected: torch.Tensor, floor: torch.Tensor) -> str:
    [result] = judge_against({"y": actual}, {"y": expected}, {"y": floor}, precision="fp16")
    return result.verdict


def test_what_is_left_is_judged_by_its_own_floor():
    error = 0.3 * EXPECTED.abs()
    assert verdict(EXPECTED + error + rounding(2), EXPECTED + error, FLOOR + error) == "pass"
    assert verdict(EXPECTED + error * 1.1, EXPECTED + error, FLOOR + error) == "fail"


def test_no_numbers_must_be_at_the_same_places():
    expected = EXPECTED.clone()
    expected[0, 0] = math.nan
    other = expected.roll(1, 0)
    assert verdict(expected + rounding(2), expected, expected.half().float()) == "pass"
    assert verdict(other, expected, expected) == "fail"
    nothing = torch.full_like(EXPECTED, math.nan)
    assert verdict(nothing, nothing, nothing) == "pass"
    assert verdict(expected * 1.1, expected, expected.half().float()) == "fail"


def test_no_more_decisions_differ_than_in_the_floor():
    expected = torch.tensor([1, 2, 3])
    assert verdict(torch.tensor([1, 2, 4]), expected, torch.tensor([0, 2, 3])) == "pass"
    assert verdict(torch.tensor([0, 2, 4]), expected, torch.tensor([0, 2, 3])) == "fail"


def test_a_precision_that_cannot_hold_the_outputs_says_nothing():
    assert holds({"y": FLOOR, "i": torch.ones(2)}, {"y": EXPECTED, "i": torch.zeros(2, dtype=torch.int64)})
    assert not holds({"y": FLOOR * 1.2}, {"y": EXPECTED})
    assert not holds({"y": FLOOR * math.nan}, {"y": EXPECTED})
