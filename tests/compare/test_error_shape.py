"""What an error looks like: every kind is named as itself, and nothing else is named."""

from __future__ import annotations

import math
from collections import Counter
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.error_shapes import PLANTS, Dice, found
from harness.compare import error_shape, shape_fits
from harness.records import ErrorShape, ShapeKind

SEEDS = 20
ALLOWED = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2}


def shape(
    actual: torch.Tensor,
    expected: torch.Tensor,
    low: torch.Tensor | None = None,
    *,
    precision: str = "fp32",
    **given: object,
) -> ErrorShape:
    return error_shape(actual, expected, low, precision=precision, **given)  # type: ignore[arg-type]


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_every_kind_has_a_plant():
    assert set(PLANTS) == set(get_args(ShapeKind))


@pytest.mark.parametrize("kind", get_args(ShapeKind))
def test_a_planted_error_is_named_by_its_kind_and_figures(kind: ShapeKind):
    named: Counter[str] = Counter()
    for seed in range(1000, 1000 + SEEDS):
        it, planted, precision = found(kind, seed)
        named[it.kind] += 1
        for name, wanted in planted.figures.items():
            if isinstance(wanted, float):
                assert getattr(it, name) == pytest.approx(wanted, rel=1e-2, abs=ALLOWED[precision]), (seed, it)
            else:
                assert getattr(it, name) == wanted, (seed, it)
        assert (kind == "unknown") == (it.explained == 0), (seed, it)
    assert named == {kind: SEEDS}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_the_own_precision_has_no_shape(precision: str, seed: int):
    dice = Dice(seed=seed)
    dice.precision = precision
    value = dice.tensor()
    assert error_shape(dice.rounded(value), value, dice.rounded(value), precision=precision).kind == "unknown"


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=4), st.data())
@settings(max_examples=100, deadline=None)
def test_a_few_elements_say_nothing_but_facts(numbers: list[float], data: st.DataObject):
    expected = torch.tensor(numbers)
    actual = torch.tensor(
        data.draw(st.lists(st.floats(-100, 100, width=32), min_size=len(numbers), max_size=len(numbers)))
    )
    it = shape(actual, expected, precision=data.draw(st.sampled_from(["fp16", "bf16"])))
    assert it.kind in ("unknown", "zeros")
    assert (it.kind == "zeros") == (len(numbers) > 1 and not actual.any() and bool(expected.any()))


@given(st.integers(2, 10), st.integers(0, 2**31), st.sampled_from(["fp32", "fp16", "bf16"]))
@settings(max_examples=100, deadline=None)
def test_few_unrelated_elements_are_not_guessed_at(count: int, seed: int, precision: str):
    expected = normal(count, seed=seed)
    assert shape(normal(count, seed=seed + 1), expected, precision=precision).kind == "unknown"
    assert shape(normal(1, count, 1, seed=seed + 1), expected[None, :, None], precision=precision).kind == "unknown"


def test_one_element_is_never_named():
    one = torch.tensor([2.0])
    assert [shape(torch.tensor([x]), one).kind for x in (0.0, 1.0, -2.0, 4.0)] == ["unknown"] * 4
    assert shape(torch.tensor(3.0), torch.tensor(2.0)).kind == "unknown"


def test_what_is_equal_empty_or_of_another_shape_is_unknown():
    value = normal(8, 8)
    assert shape(value, value).kind == "unknown"
    assert shape(value[:0], value[:0]).kind == "unknown"
    assert shape(value[:4], value).kind == "unknown"


def test_a_constant_says_no_more_than_its_offset():
    expected = torch.full((4, 32), 5.0)
    assert shape(expected * 1.03, expected).kind == "offset"
    assert shape(normal(4, 32), expected).kind == "unknown"
    zeros = torch.zeros(4, 32)
    found = shape(zeros + 0.5, zeros)
    assert (found.kind, found.factor) == ("offset", 0.5)
    assert shape(normal(4, 32), zeros).kind == "unknown"


def test_a_value_that_has_nothing_of_the_expected_one_is_no_multiple_of_it():
    expected = 10 + normal(16, 64)
    assert shape(5 + normal(16, 64, seed=1), expected).kind == "unknown"
    assert shape(1000 + normal(16, 64, seed=1), expected).kind == "unknown"
    assert shape(0.001 * normal(16, 64, seed=1), expected).kind == "unknown"
    assert shape(torch.full((16, 64), 3.0), expected).kind == "unknown"


@given(st.floats(-4, 4).filter(lambda x: min(abs(x), abs(x - 1)) > 0.01), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_any_factor_is_found(factor: float, seed: int):
    value = normal(4, 32, seed=seed)
    it = shape(value * factor, value)
    assert (it.kind, it.factor) == ("scale", pytest.approx(factor, abs=1e-5))


def test_the_wrong_entries_are_given_as_ranges():
    expected = normal(2, 3, 40)
    actual = expected.clone()
    for first, last in ((3, 3), (7, 9), (20, 29)):
        actual[..., first : last + 1] *= 1.5
    it = shape(actual, expected)
    assert (it.kind, it.axis, it.size, it.part) == ("slice", 2, 40, "scale")
    assert it.entries == ((3, 3), (7, 9), (20, 29))
    assert it.factor == pytest.approx(1.5, abs=1e-5)


def test_of_several_axes_the_one_with_the_fewest_wrong_entries_is_named():
    expected = normal(4, 12, 16, 8)
    actual = expected.clone()
    actual[1, 3] = 0
    it = shape(actual, expected)
    assert (it.kind, it.axis, it.entries, it.part) == ("slice", 1, ((3, 3),), None)


def test_half_of_the_entries_are_still_some():
    expected = normal(2, 100)
    actual = expected.clone()
    actual[1] += 0.25
    it = shape(actual, expected)
    assert (it.kind, it.axis, it.entries, it.part, it.factor) == ("slice", 0, ((1, 1),), "offset", pytest.approx(0.25))


def test_large_values_are_thinned_and_named_alike(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shape_fits, "MOST", 4096)
    expected = normal(2, 12, 40, 40)
    head = expected.clone()
    head[:, 5] *= 0.5
    unlike = expected.clone()
    unlike[..., 7] = normal(2, 12, 40, seed=1)
    named = {
        "scale": expected * 1.5, "shift": expected.roll(1, 2), "transposed": expected.mT.contiguous(),
        "swapped": normal(2, 12, 40, 40, seed=2), "saturation": expected.clamp(max=1.0), "slice": head,
        "constant_per_channel": expected + normal(12, 1, 1), "another_function": expected.tanh(), "unknown": None,
    }  # fmt: skip
    others = {"other": named["swapped"]}
    for kind, actual in named.items():
        actual = expected + 0.1 * normal(2, 12, 40, 40, seed=3) if actual is None else actual
        assert shape(actual, expected, others=others).kind == kind
    assert shape(head, expected).entries == ((5, 5),)
    assert (shape(unlike, expected).axis, shape(unlike, expected).entries) == (3, ((7, 7),))
    looked_at = shape_fits.Whole(expected, expected, None, "fp32").pair(1)
    assert (looked_at.error.shape[1], looked_at.elements <= 4096) == (12, True)


def test_an_end_above_and_one_below():
    value = normal(64, 32)
    assert shape(value.clamp(-1, 1), value).kind == "saturation"
    assert abs(shape(value.clamp(-1, 1), value).factor or 0) == 1
    assert shape(value.relu(), value).factor == 0
    single = value.clone()
    single[0, 0] = single.max() - 1  # one wrong element ends nowhere
    assert shape(single, value).kind == "slice"


def test_what_differs_from_run_to_run_comes_first():
    value = normal(16, 16)
    wrong = value * 1.5
    assert shape(wrong, value, runs=[wrong, value]).kind == "random"
    assert shape(wrong, value, runs=[wrong * 1.001]).kind == "scale"
    bad = wrong.clone()
    bad[0] = math.nan
    assert shape(bad, value, runs=[wrong]).kind == "random"
    assert shape(bad, value, runs=[bad]).kind == "non_finite"


def test_what_an_earlier_run_left_differs_from_run_to_run_too():
    value, before = normal(16, 16), normal(16, 16, seed=1)
    it = shape(before, value, previous={"first": before}, runs=[value])
    assert (it.kind, it.other) == ("stale", "first")
    assert (
        shape(before + 0.1 * normal(16, 16, seed=2), value, previous={"first": before}, runs=[value]).kind == "random"
    )


@pytest.mark.parametrize("factor", [40.0, 300.0])
def test_a_large_factor_rounds_as_what_it_makes(factor: float):
    value = normal(4, 32, seed=2)
    it = error_shape((value * factor).half(), value, value.half(), precision="fp16")
    assert (it.kind, it.factor) == ("scale", pytest.approx(factor, rel=1e-3))


def test_a_softmax_along_another_axis_is_told_from_a_transposed_one():
    scores = normal(2, 8, 8)
    right = scores.softmax(-1)
    it = shape(scores.softmax(1), right)
    assert (it.kind, it.axis, it.instead_of) == ("other_axis", 1, 2)
    assert shape(right.mT.contiguous(), right).kind == "transposed"
    assert shape((2 * scores).softmax(-1), right).kind != "other_axis"


def test_a_factor_per_entry_is_told_from_a_few_entries_that_are_wrong():
    value, factors = normal(4, 32, 12), 1 + normal(12, seed=1) / 4
    it = shape(value * factors, value)
    assert (it.kind, it.axis, it.size) == ("scale_per_channel", 2, 12)
    assert shape(value * factors.where(torch.arange(12) < 4, 1.0), value).kind == "slice"


def test_a_silu_in_the_place_of_a_gelu_is_a_function_in_fp32():
    x = normal(2, 8, 64)
    gelu, silu = torch.nn.functional.gelu(x), torch.nn.functional.silu(x)
    assert shape(silu, gelu).kind == "another_function"


def test_an_infinity_that_is_expected_is_no_error():
    value = normal(8, 16)
    value[0, 0] = math.inf
    it = shape(value * 1.25, value)
    assert (it.kind, it.factor) == ("scale", pytest.approx(1.25))


def test_a_shift_is_not_named_where_a_tensor_does_not_change_along_the_axis():
    expected = normal(8, 1).expand(8, 64) + 0.01 * normal(1, 64, seed=3)
    assert shape(expected + 0.5 * normal(8, 64, seed=1), expected).kind == "unknown"


def test_a_smooth_error_of_a_smooth_value_is_no_function_of_it():
    ramp = torch.linspace(0, 1, 4096).view(64, 64)
    assert shape(ramp + 0.1 * (7 * ramp).sin(), ramp).kind == "unknown"


def small(how: str, seed: int) -> torch.Tensor:
    """Return an error that is no rounding, whatever its size."""
    noise = normal(4, 32, 32, seed=seed)
    if how == "sparse":
        return noise * (normal(4, 32, 32, seed=seed + 50) > 1.7)
    if how == "smooth":
        wave = torch.linspace(0, 3, 32).cos()
        return wave * wave[:, None] * torch.tensor([1.0, 0.5, 0.7, 0.2])[:, None, None]
    if how == "low rank":
        return (normal(128, 2, seed=seed) @ normal(2, 32, seed=seed + 50)).view(4, 32, 32)
    return noise.abs() if how == "positive" else noise.abs() * normal(4, 32, 32).sign()


@pytest.mark.parametrize("how", ["sparse", "smooth", "low rank", "positive", "away from zero"])
@pytest.mark.parametrize(("precision", "size"), [("fp32", 2.0**-12), ("fp32", 2.0**-8), ("fp16", 2.0**-8)])
def test_not_every_error_of_the_size_of_rounding_is_rounding(how: str, precision: str, size: float):
    expected = normal(4, 32, 32)
    for seed in range(1, 6):
        error = small(how, seed)
        actual = expected + error * (size * expected.norm() / error.norm())
        assert shape(actual, expected, expected * (1 + 2e-8), precision=precision).kind == "unknown"
    noise = normal(4, 32, 32, seed=9) * size
    assert shape(expected + noise, expected, expected * (1 + 2e-8), precision=precision).kind.endswith("_rounding")
    assert shape(expected + noise, expected, precision=precision, made_here=False).kind == "unknown"


def test_a_pooled_value_has_elements_enough_for_a_function():
    for seed in range(20):
        value = normal(2, 16, seed=seed)
        assert shape(value.sigmoid(), value.tanh()).kind == "another_function"
        assert shape(normal(2, 16, seed=seed + 50), value.tanh()).kind == "unknown"


def test_an_enlarged_image_is_shifted():
    image = normal(1, 4, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
    it = shape(image.roll(1, 2), image)
    assert (it.kind, it.axis, it.steps) == ("shift", 2, 1)
    assert shape(normal(1, 4, 8, 8, seed=1).repeat_interleave(2, 2).repeat_interleave(2, 3), image).kind == "unknown"


def test_quantised_values_are_no_function():
    value = normal(64, 256)
    assert shape((value * 8).round() / 8, value).kind == "unknown"


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_the_dtype_of_the_value_does_not_matter(kind: str):
    value = normal(4, 8, 16).to(getattr(torch, kind))
    assert shape(value * 2, value).kind == "scale"
    assert shape(value.roll(1, 1), value.double()).kind == "shift"


@pytest.mark.parametrize(
    ("actual", "expected", "part", "count"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 5], "offset", 1),
        ([1, 2, 3, 9], [1, 2, 3, 5], None, 1),
        ([2, 3, 4, 5], [1, 2, 3, 4], "offset", 4),
        ([-1, -2, -3], [1, 2, 3], "scale", 3),
        ([True, False, True], [False, True, False], "scale", 3),
        ([True, False, True], [False, False, True], None, 1),
        ([7], [3], None, 1),
    ],
)
def test_decisions(actual: list[int], expected: list[int], part: str | None, count: int):
    it = shape(torch.tensor(actual), torch.tensor(expected))
    assert (it.kind, it.part, it.count, it.elements) == ("decision", part, count, len(expected))


def test_decisions_that_change_from_run_to_run():
    expected = torch.arange(6)
    assert shape(expected + 1, expected, runs=[expected]).kind == "random"
