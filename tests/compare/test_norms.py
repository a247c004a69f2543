"""One number for several outputs."""

from __future__ import annotations

import math

import pytest
import torch

from harness.compare.norms import FAITHFUL, distance, finite_error, ratio, relative_l2, require_close, total_error
from harness.errors import NotJudged


def named(name: str, error: float) -> str:
    return f"{name} {error:.3g}"


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


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([INF, 1.0], [INF, 2.0], 0.5),
        ([NAN, 1.0], [NAN, 2.0], 0.5),
        ([-INF, 2.0], [INF, 2.0], INF),
        ([NAN, 2.0], [INF, 2.0], INF),
        ([INF, 2.0], [NAN, 2.0], INF),
        ([1.0, INF], [INF, 1.0], INF),
        ([1.0, 2.0], [INF, 2.0], INF),
        ([INF, 2.0], [1.0, 2.0], INF),
        ([INF], [INF], 0.0),
        ([INF], [INF, INF], INF),
        ([[1.0, 2.0]], [1.0, 2.0], INF),
        ([], [], 0.0),
        ([1.0], [], INF),
    ],
)
def test_infinities_are_met_by_infinities_of_their_sign(actual: list[float], expected: list[float], error: float):
    assert finite_error(torch.tensor(actual), torch.tensor(expected)) == error
    assert distance(torch.tensor(actual), torch.tensor(expected)) == error


def test_what_is_no_float_is_counted():
    ids = torch.tensor([1, 2, 3, 4])
    assert distance(ids, ids.int()) == 0
    assert distance(torch.tensor([1, 2, 3, 400]), ids) == 0.25
    assert distance(ids + 0.4, ids) == 1, "nothing is rounded"
    assert distance(ids > 2, ids > 3) == 0.25
    assert distance(ids[:3], ids) == INF
    assert distance(ids[:0], ids[:0]) == 0


def test_the_imaginary_part_counts():
    real = torch.tensor([3.0, 4.0])
    assert relative_l2(real + 1j * real, real) == pytest.approx(1)
    assert relative_l2(real, real + 1j * real) == pytest.approx(math.sqrt(0.5))
    assert distance(real + 1j * real, real + 1j * real) == 0
    assert distance(real + 1j, real + 2j) == 1


def test_norms_are_taken_in_fp64():
    assert relative_l2(torch.tensor([1.0 + 2.0**-23]), torch.tensor([1.0])) == 2.0**-23
    large = torch.full((4,), 60000.0, dtype=torch.float16)
    assert relative_l2(large, large / 2) == 1
    assert relative_l2(torch.tensor([200], dtype=torch.uint8), torch.tensor([250], dtype=torch.uint8)) == 0.2


def test_the_first_output_beyond_the_limit_is_named():
    expected = {"y": torch.tensor([4.0]), "z": torch.tensor([4.0])}
    require_close({"y": torch.tensor([5.0]), "z": torch.tensor([4.0])}, expected, limit=0.25, sentence=named)
    for limit in (0.24, 0.0):
        with pytest.raises(NotJudged) as found:
            require_close({"y": torch.tensor([4.0]), "z": torch.tensor([5.0])}, expected, limit=limit, sentence=named)
        assert str(found.value) == "z 0.25"

    class Other(NotJudged):
        pass

    with pytest.raises(Other):
        require_close({"y": torch.tensor([NAN])}, {"y": torch.ones(1)}, limit=1.0, sentence=named, error_type=Other)


def test_a_computation_in_a_lower_precision_is_not_faithful():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(64, 256, generator=generator), torch.randn(256, 64, generator=generator)
    truth = x.double() @ w.double()
    assert distance((x @ w).double(), truth) < FAITHFUL / 10
    for dtype in (torch.float16, torch.bfloat16):
        assert distance(x.to(dtype).double() @ w.to(dtype).double(), truth) > FAITHFUL
        assert distance(truth.to(dtype).double(), truth) > FAITHFUL
