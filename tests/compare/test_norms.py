"""One number for several outputs."""

from __future__ import annotations

import math

import pytest
import torch

from harness.compare.norms import ratio, relative_l2, total_error


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([math.inf, 2.0], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [math.nan, 2.0], math.inf),
        ([1.0], [1.0, 2.0], math.inf),
        ([3.0, 8.0], [3.0, 4.0], 0.8),
    ],
)
def test_total_error(actual: list[float], expected: list[float], error: float):
    assert total_error({"y": torch.tensor(actual)}, {"y": torch.tensor(expected)}) == pytest.approx(error)


@pytest.mark.parametrize(
    ("error", "norm", "found"), [(1, 2, 0.5), (0, 0, 0), (3, 0, math.inf), (-3, 0, -math.inf), (0, 4, 0)]
)
def test_ratio_by_zero(error: float, norm: float, found: float):
    assert ratio(error, norm) == found


def test_relative_l2_does_not_broadcast():
    assert relative_l2(torch.ones(1), torch.ones(3)) == math.inf
    assert relative_l2(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_l2(torch.tensor([1, 2]), torch.tensor([1, 2])) == 0


def test_the_worst_output_counts_and_none_is_infinitely_wrong():
    ones = torch.ones(4)
    assert total_error({"y": ones, "z": 2 * ones}, {"y": ones, "z": ones}) == pytest.approx(1.0)
    assert total_error({}, {}) == math.inf
