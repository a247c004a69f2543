"""The verdict: what passes, what fails, what cannot be judged, and in which words."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from harness import UsageError
from harness.compare.tensors import compare
from harness.subject import Tolerance
from harness.verify.tolerance import FACTOR, confidence_factor, judge_output


@pytest.fixture
def expected() -> torch.Tensor:
    return torch.randn(64, 64, generator=torch.Generator().manual_seed(0))


def noisy(expected: torch.Tensor, relative: float, seed: int = 1) -> torch.Tensor:
    """Return the tensor with normal noise of this relative L2 norm."""
    noise = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed))
    return expected + noise * (relative * expected.norm() / noise.norm())


def verdict(actual: torch.Tensor, expected: torch.Tensor, floor: float = 1e-3, **options):
    stats = compare(actual, expected, name="y")
    return judge_output(
        "y", stats, precision="fp16", floor=compare(noisy(expected, floor, seed=2), expected), **options
    )


def test_error_like_the_floor_passes(expected):
    result = verdict(noisy(expected, 1.1e-3), expected)
    assert result.verdict == "pass"
    assert "PyTorch fp16 loses 0.001" in result.reason
    assert result.floor is not None


@pytest.mark.parametrize(("times", "wanted"), [(2.8, "pass"), (3.4, "fail")])
def test_limit_is_the_factor_over_the_floor(expected, times, wanted):
    assert verdict(noisy(expected, times * 1e-3), expected).verdict == wanted


def test_one_wrong_element_fails_although_the_norm_is_small(expected):
    actual = noisy(expected, 1e-3)
    actual[3, 5] += 0.06
    result = verdict(actual, expected)
    assert result.verdict == "fail"
    assert "largest error" in result.reason
    assert "worst at [3, 5]" in result.reason


def test_floor_below_one_rounding_counts_as_one_rounding(expected):
    stats = compare(expected.half(), expected)
    result = judge_output("y", stats, precision="fp16", floor=compare(expected.clone(), expected))
    assert result.verdict == "pass"
    assert result.allowed["relative_l2"] == pytest.approx(FACTOR * 2**-11)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t * 0, "all zeros"),
        (lambda t: torch.full_like(t, 0.3), "constant"),
        (lambda t: t * 0.4, "variance vanished"),
        (
            lambda t: t.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(math.nan)),
            "1 of 4096 elements are NaN",
        ),
        (lambda t: t.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(math.inf)), "infinite on one side"),
    ],
)
def test_never_passes_even_under_a_loose_tolerance(expected, spoil, words):
    loose = Tolerance(relative_l2=1e9, why="to show that it does not help")
    result = verdict(spoil(expected), expected, tolerance=loose)
    assert result.verdict == "fail"
    assert words in result.reason


def test_small_reference_does_not_excuse_zeros(expected):
    result = verdict(torch.zeros_like(expected), expected * 1e-6)
    assert result.verdict == "fail"


def test_vanished_variance_under_a_large_mean(expected):
    shifted = expected * 0.1 + 1000
    stats = compare(torch.full_like(shifted, 1000.0) + expected * 0.01, shifted)
    result = judge_output("y", stats, precision="fp16", floor=compare(noisy(shifted, 1e-3), shifted))
    assert stats.relative_l2 < 1e-3
    # 0.1 under 1000 is less than fp16 can hold, so fp16 may lose it; fp32 may not.
    assert result.verdict == "pass"
    result = judge_output("y", stats, precision="fp32", floor=compare(noisy(shifted, 1e-3), shifted))
    assert result.verdict == "fail"
    assert "variance vanished" in result.reason


def test_zero_reference_proves_nothing():
    zeros = torch.zeros(8)
    result = judge_output("y", compare(zeros, zeros), precision="fp16", floor=compare(zeros, zeros))
    assert result.verdict == "not_judged"
    result = judge_output("y", compare(zeros + 1e-3, zeros), precision="fp16", floor=compare(zeros, zeros))
    assert result.verdict == "fail"


def test_nan_in_the_reference_is_not_judged(expected):
    broken = expected.clone()
    broken[0, 0] = math.nan
    result = judge_output("y", compare(expected, broken), precision="fp16", floor=compare(expected, broken))
    assert result.verdict == "not_judged"
    assert "the reference itself holds 1 NaN" in result.reason


def test_equal_infinities_pass(expected):
    masked = expected.clone()
    masked[0] = -math.inf
    result = judge_output("y", compare(masked.clone(), masked), precision="fp16", floor=compare(masked.clone(), masked))
    assert result.verdict == "pass"


def test_no_floor_is_not_judged_unless_a_tolerance_says_otherwise(expected):
    stats = compare(noisy(expected, 1e-3), expected)
    assert judge_output("y", stats, precision="fp16").verdict == "not_judged"
    broken = noisy(expected, 1e-3)
    broken[0, 0] = math.inf
    result = judge_output("y", stats, precision="fp16", tolerance=Tolerance(relative_l2=1e-2, why="measured"))
    assert result.verdict == "pass"
    assert "tolerance: measured" in result.reason


def test_less_than_one_bit_fails_even_where_the_floor_is_as_bad(expected):
    result = verdict(noisy(expected, 0.6), expected, floor=0.5)
    assert result.verdict == "fail"
    assert "less than one effective bit" in result.reason
    assert "PyTorch fp16 cannot hold this model (loses 0.5)" in result.reason


def test_fp32_engine_that_computes_in_tf32_is_named(expected):
    stats = compare(noisy(expected, 8e-4), expected.double())
    floor = compare(noisy(expected, 3e-7), expected.double())
    for tf32 in (None, compare(noisy(expected, 7e-4, seed=5), expected.double())):
        result = judge_output("y", stats, precision="fp32", floor=floor, tf32_floor=partial(lambda found: found, tf32))
        assert result.verdict == "fail"
        assert "TF32-sized" in result.reason
    other = compare(noisy(expected, 7e-2, seed=5), expected.double())
    assert "TF32" not in judge_output("y", stats, precision="fp32", floor=floor, tf32_floor=lambda: other).reason


def test_flipped_index_fails_where_pytorch_flips_none():
    indices = torch.arange(64)
    flipped = indices.clone()
    flipped[7] = 8
    result = judge_output("y", compare(flipped, indices), precision="fp16", floor=compare(indices, indices))
    assert result.verdict == "fail"


def test_few_elements_widen_the_floor():
    assert confidence_factor(1) == 10
    assert confidence_factor(10) == pytest.approx(math.sqrt(10 / 2.558), rel=0.02)  # chi2(0.01, 10) = 2.558
    assert confidence_factor(100) == pytest.approx(math.sqrt(100 / 70.06), rel=0.01)  # chi2(0.01, 100) = 70.06
    assert 1 < confidence_factor(10**6) < 1.01


def test_tolerance_must_say_why():
    with pytest.raises(UsageError, match="why="):
        Tolerance(relative_l2=1e-2, why=" ")
    with pytest.raises(UsageError, match="sets no limit"):
        Tolerance(why="because")
