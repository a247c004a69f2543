"""One number for several outputs."""

from __future__ import annotations

import math

import pytest
import torch

from harness.compare.norms import total_error


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


def test_the_worst_output_counts_and_none_is_infinitely_wrong():
    ones = torch.ones(4)
    assert total_error({"y": ones, "z": 2 * ones}, {"y": ones, "z": ones}) == pytest.approx(1.0)
    assert total_error({}, {}) == math.inf
