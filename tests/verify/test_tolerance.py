"""The verdict: what passes, what fails, what cannot be judged, and in which words."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import pytest
import torch

from harness import UsageError
from harness.compare.tensors import compare
from harness.records import ErrorStats, OutputResult
from harness.subject import Tolerance
from harness.verify import FACTOR, confidence_factor, judge_output, judge_tensors
from harness.verify.tolerance import is_tf32


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
    assert "all zeros" in result.reason
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
    unjudged = judge_output("y", stats, precision="fp16")
    assert (unjudged.verdict, "no floor" in unjudged.reason) == ("not_judged", True)
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


@pytest.mark.parametrize(
    ("change", "limits"),
    [
        (lambda e: e * 100, {"cosine": 0.99}),
        (lambda e: e * 0.6, {"cosine": 0.99}),
        (lambda e: e * 100, {"max_absolute": 1e9}),
        (lambda e: e + 3 * torch.randn(e.shape, generator=torch.Generator().manual_seed(3)), {"max_absolute": 20.0}),
        (torch.neg, {"max_absolute": 20.0}),
        (lambda e: e * 0.4, {"cosine": 0.99}),
        (lambda e: torch.zeros_like(e), {"cosine": 0.5}),
    ],
)
def test_a_tolerance_of_another_figure_keeps_one_effective_bit(expected, change, limits):
    assert verdict(change(expected), expected, tolerance=Tolerance(why="a test", **limits)).verdict == "fail"


def test_a_tolerance_of_the_norm_itself_may_be_as_wide_as_it_says(expected):
    loose = Tolerance(why="a test", relative_l2=2.0)
    assert verdict(noisy(expected, 0.9), expected, tolerance=loose).verdict == "pass"
    assert verdict(noisy(expected, 2.1), expected, tolerance=loose).verdict == "fail"


def test_a_tolerance_of_another_figure_passes_what_it_allows(expected):
    assert verdict(expected * 1.05, expected, tolerance=Tolerance(why="a test", cosine=0.99)).verdict == "pass"
    near = Tolerance(why="a test", max_absolute=0.5)
    assert verdict(noisy(expected, 0.05), expected, tolerance=near).verdict == "pass"


def test_a_cosine_that_is_no_number_fails(expected):
    stats = dataclasses.replace(compare(noisy(expected, 1e-3), expected), cosine=math.nan)
    floor = compare(noisy(expected, 1e-3, seed=2), expected)
    tolerance = Tolerance(why="a test", cosine=0.5)
    assert judge_output("y", stats, precision="fp16", floor=floor, tolerance=tolerance).verdict == "fail"
    stats = dataclasses.replace(stats, relative_l2=math.nan)
    assert judge_output("y", stats, precision="fp16", floor=floor).verdict == "fail"


@pytest.mark.parametrize(("precision", "unit"), [("fp32", 2.0**-24), ("fp16", 2.0**-11), ("bf16", 2.0**-8)])
def test_a_constant_is_right_only_within_the_rounding_of_the_format(precision, unit):
    sign = torch.tensor([1.0, -1.0]).double().repeat(500)
    for times, allowed in ((0.5, True), (4.0, False), (20.0, False)):
        expected = 1000 * (1 + times * unit * sign)
        stats = compare(torch.full_like(expected, 1000.0), expected)
        floor = compare(expected * (1 + unit * sign.roll(1)), expected)
        result = judge_output("y", stats, precision=precision, floor=floor)
        assert ("the output is constant" not in result.reason) is allowed
        assert allowed or result.verdict == "fail"


@pytest.mark.parametrize("lost", ["constant", "zero", "variance"])
def test_what_pytorch_loses_as_well_is_left_to_the_limits(expected, lost):
    """Values that vary by less than FP16 holds beside others; or are smaller than it holds."""
    shifted = expected * 1e-2 + torch.tensor([0.0, 1000.0]).repeat(32)[:, None] if lost == "variance" else expected
    gone = {"constant": torch.full_like(expected, 0.25), "zero": torch.zeros_like(expected), "variance": shifted * 0.4}
    stats = compare(gone[lost], shifted)
    alike = judge_output("y", stats, precision="fp16", floor=stats)
    alone = judge_output("y", stats, precision="fp16", floor=compare(shifted, shifted))
    assert any(words in alone.reason for words in ("all zeros", "constant", "vanished"))
    assert not any(words in alike.reason for words in ("all zeros", "is constant", "vanished"))
    assert alike.reason.startswith("relative error")
    assert alone.verdict == "fail"


def test_a_reference_that_is_rounding_noise_is_not_judged(expected):
    noise = compare(noisy(expected, 1.5), expected)
    for actual in (torch.zeros_like(expected), expected * 100):
        stats, floor = compare(actual, expected), compare(noisy(expected, 1e3), expected)
        result = judge_output("y", stats, precision="fp16", floor=floor, reference_error=lambda: noise)
        assert result.verdict == "not_judged"
        assert "rounding noise" in result.reason
        exact = compare(expected, expected)
        assert (
            judge_output("y", stats, precision="fp16", floor=floor, reference_error=lambda e=exact: e).verdict == "fail"
        )


@pytest.mark.parametrize(
    ("loses", "verdict_"), [(0.02, "pass"), (0.099, "pass"), (0.2, "not_judged"), (0.51, "fail"), (30.0, "fail")]
)
@pytest.mark.parametrize("overflows", [False, True])
def test_an_engine_beside_a_floor_that_cannot_hold_the_model(expected, loses, verdict_, overflows):
    floor = noisy(expected, 0.83, seed=2)
    if overflows:
        floor[0, 0] = math.inf
    result = judge_tensors("y", noisy(expected, loses), expected, floor, precision="fp16", cause="exp overflows")
    assert result.verdict == verdict_
    words = "gives 1 non-finite elements" if overflows else "loses 0.83"
    assert f"PyTorch fp16 cannot hold this model ({words}): exp overflows" in result.reason


@pytest.mark.parametrize(("floor", "loses", "verdict_"), [(0.09, 0.12, "pass"), (0.12, 0.12, "not_judged")])
def test_a_floor_that_loses_more_than_a_tenth_is_none(expected, floor, loses, verdict_):
    result = judge_tensors("y", noisy(expected, loses), expected, noisy(expected, floor, seed=2), precision="bf16")
    assert (result.verdict, "cannot hold" in result.reason) == (verdict_, verdict_ != "pass")


def test_a_part_that_is_wrong_beside_a_floor_that_cannot_hold_the_model_is_no_pass(expected):
    floor = noisy(expected, 0.83, seed=2)
    for wrong, verdict in ((0.35, "pass"), (0.5, "not_judged")):
        actual = noisy(expected, 0.01)
        actual[:, 3] = noisy(expected[:, 3], wrong)
        result = judge_tensors("y", actual, expected, floor, precision="fp16")
        assert result.stats.relative_l2 < 0.1
        assert (result.verdict, "slice 3 of axis 1" in result.reason) == (verdict, verdict != "pass")


def test_an_fp32_floor_that_is_none(expected):
    truth = expected.double()
    floor = compare(noisy(expected, 2e-3, seed=2), truth)
    for loses in (1e-6, 1e-3, 1.0):
        result = judge_output("y", compare(noisy(expected, loses), truth), precision="fp32", floor=floor)
        assert result.verdict == "not_judged"
        assert "PyTorch fp32 cannot hold this model (loses 0.002)" in result.reason
    held = compare(noisy(expected, 0.9e-3, seed=2), truth)
    assert judge_output("y", compare(noisy(expected, 1e-3), truth), precision="fp32", floor=held).verdict == "pass"


@pytest.mark.parametrize("holds_nan_too", [False, True])
def test_nan_in_the_reference_is_not_judged_whatever_the_engine_gives(expected, holds_nan_too):
    broken, actual = expected.clone(), expected.clone()
    broken[0, 0] = math.nan
    actual[3] = math.nan if holds_nan_too else math.inf
    result = judge_tensors("y", actual, broken, broken, precision="fp16")
    assert result.verdict == "not_judged"
    assert "the reference itself holds 1 NaN" in result.reason


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda t: t, "pass"),
        (lambda t: t.index_put((torch.tensor(0), torch.tensor(3)), torch.tensor(math.inf)), "fail"),
        (lambda t: t.index_put((torch.tensor(0), torch.tensor(3)), torch.tensor(1.0)), "fail"),
        (lambda t: t.index_put((torch.tensor(1), torch.tensor(3)), torch.tensor(-math.inf)), "fail"),
        (lambda t: t * 1.01, "fail"),
    ],
)
def test_an_infinity_of_the_reference_is_met_and_the_rest_is_judged(expected, change, wanted):
    masked = expected.clone()
    masked[0] = -math.inf
    floor = masked.half().float()
    assert judge_tensors("y", change(floor), masked, floor, precision="fp16").verdict == wanted


def test_an_output_that_is_empty_in_the_reference_is_equal():
    empty = torch.empty(0, 4)
    result = judge_tensors("y", empty, empty.clone(), empty.clone(), precision="fp16")
    assert result.verdict == "pass"
    assert "empty" in result.reason
    assert judge_tensors("y", torch.empty(0, 5), empty, empty, precision="fp16").verdict == "fail"
    assert judge_tensors("y", torch.ones(1, 4), empty, empty, precision="fp16").verdict == "fail"


def figures(*, relative_l2: float = 0.25, largest: float = 0.5, cosine: float = 0.75, **others) -> ErrorStats:
    """Return figures that need not belong to one pair of tensors."""
    stats = compare(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]))
    absolute = {**stats.absolute, "max": largest}
    return dataclasses.replace(stats, relative_l2=relative_l2, absolute=absolute, cosine=cosine, **others)


@pytest.mark.parametrize(("figure", "at_the_limit"), [("relative_l2", 0.25), ("max_absolute", 0.5), ("cosine", 0.75)])
def test_the_limit_of_a_tolerance_is_within_it(figure, at_the_limit):
    stricter = math.nextafter(at_the_limit, 1.0 if figure == "cosine" else 0.0)
    for limit, wanted in ((at_the_limit, "pass"), (stricter, "fail")):
        tolerance = Tolerance(why="a test", **{figure: limit})
        result = judge_output("y", figures(), precision="fp16", tolerance=tolerance)
        assert result.verdict == wanted
        assert result.allowed[figure] == limit
        words = {"relative_l2": "error 0.25,", "max_absolute": "largest error 0.5 ", "cosine": "cosine 0.750000 "}
        if wanted == "fail" or figure != "max_absolute":
            assert f"{words[figure]}" in result.reason
            assert f"(allowed {limit:.6f})" if figure == "cosine" else f"(allowed {limit:.3g})" in result.reason
        assert result.reason.startswith("relative error 0.25, no floor")
        assert ("worst at [1]" in result.reason) is (wanted == "fail")


@pytest.mark.parametrize("figure", ["relative_l2", "max_absolute", "cosine"])
def test_a_figure_that_is_no_number_is_within_no_tolerance(figure):
    stats = figures(**{"largest" if figure == "max_absolute" else figure: math.nan})
    tolerance = Tolerance(why="a test", **{figure: -1.0 if figure == "cosine" else 1e9})
    assert judge_output("y", stats, precision="fp16", tolerance=tolerance).verdict == "fail"


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        ({"relative_l2": 0.3}, {"relative_l2": 0.3}),
        ({"relative_l2": 0.3, "cosine": 0.5}, {"relative_l2": 0.3, "cosine": 0.5}),
        ({"max_absolute": 0.6}, {"max_absolute": 0.6, "relative_l2": 0.5}),
        ({"max_absolute": 0.6, "cosine": 0.995}, {"max_absolute": 0.6, "cosine": 0.995, "relative_l2": 0.5}),
        ({"cosine": 0.995}, {"cosine": 0.995, "relative_l2": 0.35}),  # the chord sqrt(2 - 2 cosine), and 0.25 of scale
        ({"cosine": 1.0}, {"cosine": 1.0, "relative_l2": 0.25}),
        ({"cosine": 0.5}, {"cosine": 0.5, "relative_l2": 0.5}),
    ],
)
def test_what_a_tolerance_does_not_limit(limits, allowed):
    stats = figures(cosine=1.0)
    result = judge_output("y", stats, precision="fp16", floor=stats, tolerance=Tolerance(why="a test", **limits))
    assert result.verdict == "pass"
    assert result.allowed == pytest.approx(allowed)
    assert "PyTorch fp16 loses 0.25" in result.reason
    assert ("(allowed 0.3)" in result.reason) is ("relative_l2" in limits)


@pytest.mark.parametrize("limits", [{"cosine": 0.5}, {"max_absolute": 1.0}])
@pytest.mark.parametrize("relative_l2", [0.5, 0.6, math.nan])
def test_half_an_error_is_no_bit(limits, relative_l2):
    result = judge_output(
        "y", figures(relative_l2=relative_l2), precision="fp16", tolerance=Tolerance(why="a test", **limits)
    )
    assert result.verdict == "fail"
    assert result.reason.count("less than one effective bit") == 1
    assert "(allowed 0.5)" in result.reason
    bit = judge_output("y", figures(relative_l2=0.499), precision="fp16", tolerance=Tolerance(why="a test", **limits))
    assert (bit.verdict, "less than one effective bit" in bit.reason) == ("pass", False)


def test_a_scale_that_a_cosine_does_not_allow_is_said():
    stats = figures(relative_l2=0.3, cosine=1.0)
    result = judge_output("y", stats, precision="fp16", tolerance=Tolerance(why="a test", cosine=1.0))
    assert (result.verdict, "relative error 0.3, no floor (allowed 0.25)" in result.reason) == ("fail", True)


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_limits_without_parts_grow_where_elements_are_few(count):
    expected = torch.linspace(1, 2, count).double()
    floor = compare(expected * 1.004, expected)
    result = judge_output("y", compare(expected, expected), precision="fp16", floor=floor)
    factor = confidence_factor(count)
    assert result.verdict == "pass"
    assert result.allowed == pytest.approx(
        {"relative_l2": 3 * 0.004 * factor, "max_absolute": 12 * floor.absolute["max"] * factor}
    )


def test_the_sentence_names_what_failed_first(expected):
    """The part where the norm of the whole does not show it, else the whole, and the part after it."""
    floor, small, large = (noisy(expected, size, seed) for size, seed in ((1e-3, 1), (1e-3, 2), (0.1, 3)))
    small[:, 3] = noisy(expected[:, 3], 9e-3)
    for actual, first, then in ((small, "slice 3 of axis 1: ", "; the whole: relative error"),
                                (large, "relative error ", "PyTorch fp16 loses 0.001 (allowed")):  # fmt: skip
        result = judge_tensors("y", actual, expected, floor, precision="fp16")
        assert result.verdict == "fail"
        assert result.reason.startswith(first)
        assert then in result.reason
        assert result.allowed == {"relative_l2": result.parts[0].allowed}
        assert f"(allowed {result.parts[0].allowed:.3g})" in result.reason


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 0.1), ("bf16", 0.1), ("tf32", 0.1), ("fp32", 2.0**-10)])
def test_a_floor_at_the_limit_holds(precision, limit):
    for loses, holds in ((limit, True), (math.nextafter(limit, 1.0), False)):
        result = judge_output(
            "y", figures(relative_l2=1e-9, largest=1e-9), precision=precision, floor=figures(relative_l2=loses)
        )
        assert ("cannot hold" not in result.reason) is holds
        assert result.name == "y"


@pytest.mark.parametrize(("noise", "verdict_"), [(2.0**-10, "fail"), (1e-3, "not_judged")])
@pytest.mark.parametrize("relative_l2", [0.5, 2.0])
def test_an_output_without_a_bit_fails_unless_its_reference_is_noise(noise, verdict_, relative_l2):
    asked = figures(relative_l2=noise)
    result = judge_output(
        "y", figures(relative_l2=relative_l2), precision="fp16", floor=figures(relative_l2=0.09),
        reference_error=lambda: asked,
    )  # fmt: skip
    assert result.verdict == verdict_
    bit = figures(relative_l2=0.49)
    assert "noise" not in judge_output("y", bit, precision="fp16", floor=bit, reference_error=lambda: asked).reason


def test_nothing_finite_on_both_sides_is_nothing_to_judge():
    infinite = torch.full((4,), math.inf)
    assert judge_tensors("y", infinite, infinite.clone(), infinite.clone(), precision="fp16").verdict == "not_judged"
    assert judge_tensors("y", -infinite, infinite, infinite, precision="fp16").verdict == "fail"


@pytest.mark.parametrize("spoil", [lambda t: t.index_fill(0, torch.tensor(3), math.nan), torch.zeros_like])
def test_what_no_limit_excuses_is_said_beside_a_floor_that_is_none(expected, spoil):
    stats, floor = compare(spoil(expected), expected), compare(noisy(expected, 0.8), expected)
    result = judge_output("y", stats, precision="fp16", floor=floor, cause="exp overflows")
    assert result.verdict == "fail"
    assert "; PyTorch fp16 cannot hold this model (loses 0.8): exp overflows" in result.reason
    good = judge_output("y", stats, precision="fp16", floor=compare(noisy(expected, 1e-3), expected))
    assert (good.verdict, "cannot" in good.reason) == ("fail", False)
    assert ("first non-finite one at [3, 0]" in good.reason) is bool(stats.nan_actual)
    if stats.nan_actual:  # of the floor itself there is nothing to add
        own = judge_output("y", stats, precision="fp16", floor=floor, is_floor=True)
        assert (own.verdict, "cannot" in own.reason) == ("fail", False)


def test_the_spread_that_is_half_and_the_constant_that_is_one_rounding():
    floor = figures(relative_l2=1e-3, std_actual=1.0, std_expected=1.0)
    for std, words in ((0.5, False), (math.nextafter(0.5, 0), True)):
        stats = figures(relative_l2=1e-3, std_actual=std, std_expected=1.0)
        assert ("variance vanished" in judge_output("y", stats, precision="fp16", floor=floor).reason) is words
        # At half the spread itself the floor has kept it: what is less was lost by the engine.
        half = dataclasses.replace(floor, std_actual=0.5)
        assert ("variance vanished" in judge_output("y", stats, precision="fp16", floor=half).reason) is words
    for max_expected, words in ((2.0**11, False), (math.nextafter(2.0**11, 0), True)):
        stats = figures(relative_l2=1e-4, std_actual=0.0, std_expected=1.0, max_expected=max_expected)
        result = judge_output("y", stats, precision="fp16", floor=floor)
        assert (result.verdict == "fail", "variance vanished" in result.reason) == (words, words)


def test_few_elements_have_the_largest_factor():
    assert [confidence_factor(n) for n in (0, 1, 2)] == [10.0, 10.0, 10.0]
    assert 4 < confidence_factor(4) < 10


@pytest.mark.parametrize(
    ("relative_l2", "is_alike"),
    [(1e-4, False), (2.0**-11 / 4, True), (2.0**-11, True), (2.0**-9, True), (2.01e-3, False), (0.01, False)],
)
def test_an_error_within_four_times_that_of_tf32_is_tf32_sized(relative_l2, is_alike):
    floor, tf32 = figures(relative_l2=1e-7, largest=1e-7), figures(relative_l2=2.0**-11)
    result = judge_output("y", figures(relative_l2=relative_l2), precision="fp32", floor=floor, tf32_floor=lambda: tf32)
    assert (result.verdict, result.tf32_sized, "TF32-sized" in result.reason) == ("fail", is_alike, is_alike)


@pytest.mark.parametrize(
    ("relative_l2", "is_alike"),
    [(6e-5, False), (2.0**-14, True), (2.0**-11, True), (2.0**-9, True), (2.01e-3, False), (0.01, False)],
)
def test_without_a_gpu_an_11_bit_significand_is_told_by_its_size(relative_l2, is_alike):
    floor = figures(relative_l2=1e-7, largest=1e-7)
    result = judge_output("y", figures(relative_l2=relative_l2), precision="fp32", floor=floor, tf32_floor=lambda: None)
    assert (result.verdict, result.tf32_sized, "TF32-sized" in result.reason) == ("fail", is_alike, is_alike)
    held = judge_output("y", figures(relative_l2=1e-7, largest=1e-7), precision="fp32", floor=floor)
    assert (held.verdict, held.tf32_sized) == ("pass", False)


def test_an_engine_is_tf32_where_all_that_failed_is_tf32_sized():
    def output(relative_l2, verdict="fail", *, tf32_sized=False, **others):
        stats = None if relative_l2 is None else figures(relative_l2=relative_l2, **others)
        return OutputResult(name="y", verdict=verdict, reason="", stats=stats, tf32_sized=tf32_sized)

    low, high = 2.0**-14, 3 * 2.0**-11
    for relative_l2 in (low, 2.0**-11, high):
        assert is_tf32([output(relative_l2)])
    for relative_l2 in (None, 0.99 * low, 1.01 * high, math.nan):
        assert not is_tf32([output(relative_l2)])
        assert not is_tf32([output(low), output(relative_l2)])
        assert is_tf32([output(low), output(relative_l2, "pass")])
        assert is_tf32([output(relative_l2, tf32_sized=True)])
    assert not is_tf32([output(low, nonfinite_actual=1)])
    assert not is_tf32([output(low, "pass")])
    assert not is_tf32([])
