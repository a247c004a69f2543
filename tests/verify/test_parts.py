"""An output is judged in its parts: what is wrong in one of them fails and is named, what is right passes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import special
from scipy import stats as distributions

from harness.compare import measure_octaves, measure_slices
from harness.records import OutputResult, PartResult
from harness.verify import judge_tensors
from harness.verify.chance import chance_factor, degrees_between, moderated

Tensor = torch.Tensor
FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
MASKS = [(-1e4, "fp16"), (-1e9, "fp32"), (torch.finfo(torch.float32).min, "fp32"), (-1e9, "bf16")]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noisy(expected: Tensor, relative: float, seed: int) -> Tensor:
    """Return the tensor with normal noise of this size relative to its standard deviation."""
    return expected + relative * expected.std() * random(*expected.shape, seed=seed)


def judged(actual: Tensor, expected: Tensor, floor: Tensor, precision: str = "fp16", **options: object) -> OutputResult:
    return judge_tensors("y", actual, expected, floor, precision=precision, **options)  # type: ignore[arg-type]


def failing(result: OutputResult) -> list[PartResult]:
    return [part for part in result.parts if part.fails]


def rounded(expected: Tensor, precision: str) -> Tensor:
    return expected.to(FORMATS[precision]).float()


# What is wrong in a part


def detector() -> tuple[Tensor, Tensor]:
    """Return boxes in pixels and scores, as `[1, 84, 8400]` holds them."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(1, 4, 2100, generator=generator) * 640
    return boxes, torch.sigmoid(torch.randn(1, 80, 2100, generator=generator) * 1.5 - 6)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(torch.zeros_like, id="all-zero"),
        pytest.param(lambda s: s.roll(1, 2), id="of-other-anchors"),
        pytest.param(lambda s: s.flip(1), id="of-other-classes"),
        pytest.param(lambda s: s * 1.1, id="too-large"),
    ],
)
def test_scores_beside_boxes_in_pixels(spoil: Callable[[Tensor], Tensor]):
    boxes, scores = detector()
    expected = torch.cat([boxes, scores], 1)
    floor = rounded(expected, "fp16")
    result = judged(rounded(torch.cat([boxes, spoil(scores)], 1), "fp16"), expected, floor)
    assert result.verdict == "fail"
    assert any((part.kind == "slice" and part.axis == 1) or (part.high or 0) <= 1 for part in failing(result))
    assert result.stats is not None
    assert result.stats.relative_l2 < 1e-3  # the norm hides it
    assert judged(floor, expected, floor).verdict == "pass"


@pytest.mark.parametrize(("fill", "precision"), MASKS)
@pytest.mark.parametrize("rows", [1, 4])
def test_masked_logits_of_which_the_others_are_random(fill: float, precision: str, rows: int):
    expected = random(rows, 128) * 3
    expected[:, 96:] = fill
    actual = expected.clone()
    actual[:, :96] = random(rows, 96, seed=1) * 3
    floor = torch.where(expected == fill, expected, rounded(expected, precision))
    truth = expected.double() * (1 + 1e-9) if precision == "fp32" else expected
    assert judged(actual, truth, floor, precision).verdict == "fail"
    assert judged(torch.where(expected == fill, floor, floor * 1.05), truth, floor, precision).verdict == "fail"
    assert judged(floor, truth, floor, precision).verdict == "pass"


@pytest.mark.parametrize(("fill", "precision"), MASKS)
def test_causally_masked_scores_of_which_the_others_are_random(fill: float, precision: str):
    masked = torch.ones(32, 32, dtype=torch.bool).triu(1)
    expected, actual = ((random(2, 32, 32, seed=seed) * 3).masked_fill(masked, fill) for seed in (0, 1))
    floor = torch.where(expected == fill, expected, rounded(expected, precision))
    truth = expected.double() if precision == "fp32" else expected
    assert judged(actual, truth, floor, precision).verdict == "fail"
    assert judged(floor, truth, floor, precision).verdict == "pass"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("large", ["x1000", "2500"])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda x: x * 1.02, id="x1.02"),
        pytest.param(lambda x: x.roll(1, 0), id="rows-rolled"),
        pytest.param(lambda x: x + 0.03 * random(*x.shape, seed=5), id="noise-of-3-percent"),
        pytest.param(torch.zeros_like, id="zero"),
    ],
)
def test_other_channels_beside_one_large_one(spoil: Callable[[Tensor], Tensor], large: str, precision: str):
    expected = random(32, 192)
    expected[:, 5] = expected[:, 5] * 1000 if large == "x1000" else 2500 + expected[:, 5]
    floor = rounded(expected, precision)
    others = torch.arange(192) != 5
    actual = floor.clone()
    actual[:, others] = spoil(actual[:, others])
    result = judged(actual, expected, floor, precision)
    assert result.verdict == "fail"
    assert any(part.kind != "whole" for part in failing(result))
    assert judged(floor, expected, floor, precision).verdict == "pass"


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4, 16, 8, 8), 1), ((64, 96), 0), ((2, 64, 96), 1), ((2, 64, 96), 2), ((64, 10), 0), ((3, 4, 5, 6, 7), 4)],
)
@pytest.mark.parametrize("times", [8, 12])
def test_one_slice_that_loses_more_than_the_floor(shape: tuple[int, ...], axis: int, times: int):
    expected = random(*shape)
    floor, actual, worse = (noisy(expected, size * 1e-3, seed) for size, seed in ((1, 1), (1, 2), (times, 3)))
    assert judged(actual, expected, floor).verdict == "pass"
    index = (*[slice(None)] * axis, 2)
    actual[index] = worse[index]
    result = judged(actual, expected, floor)
    assert result.verdict == "fail"
    worst = next(part for part in failing(result) if part.kind == "slice" and part.axis == axis)
    assert worst.index == 2
    assert worst.error > worst.allowed > worst.floor
    assert "PyTorch fp16 loses" in result.reason


def test_a_slice_whose_floor_is_exact_by_luck_may_lose_what_its_like_loses():
    expected = random(16, 400)
    floor, actual = noisy(expected, 5e-3, 1), noisy(expected, 5e-3, 2)
    floor[3] = expected[3]
    assert judged(actual, expected, floor).verdict == "pass"
    actual[3] += 10 * (actual[3] - expected[3])
    assert judged(actual, expected, floor).verdict == "fail"


@pytest.mark.parametrize("shape", [(2, 4), (8, 4), (64, 64)])
def test_where_pytorch_rounds_nothing_by_luck_each_element_may_be_one_rounding_off(shape: tuple[int, int]):
    for seed in range(60):
        expected = random(*shape, seed=seed)
        steps = torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed))
        actual = (expected.double() * (1 + steps * 2.0**-24)).float()
        assert not failing(judged(actual, expected, expected, "fp32")), seed
        assert failing(judged(expected.double() * (1 + 6 * 2.0**-24), expected.double(), expected.double(), "fp32"))


def test_a_slice_may_lose_one_rounding_of_its_own_and_not_of_the_whole():
    expected = random(64, 256)
    expected[:, 7] *= 1e-3
    sign = random(64, seed=1).sign()
    for times, verdict in ((2, "pass"), (8, "fail")):
        actual = expected.clone()
        actual[:, 7] += times * 2.0**-11 * expected[:, 7].square().mean().sqrt() * sign
        assert judged(actual, expected, expected.clone()).verdict == verdict


@pytest.mark.parametrize(
    ("precision", "scale", "verdict"),
    [
        ("bf16", 1.011, "fail"), ("bf16", 0.989, "fail"), ("bf16", 1.002, "pass"),
        ("fp16", 1.001, "fail"), ("fp16", 0.999, "fail"), ("fp16", 1.0003, "pass"),
        ("fp32", 1 + 3e-7, "fail"), ("fp32", 1 + 3e-8, "pass"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("also_rounded", [False, True])
def test_a_scale_that_the_floor_has_not(precision: str, scale: float, verdict: str, also_rounded: bool):
    expected = random(4, 1000).double() * (1 + 1e-9)
    floor = rounded(expected, precision)
    actual = (floor if also_rounded else expected) * scale
    result = judged(actual, expected, floor, precision)
    assert result.verdict == verdict
    if verdict == "fail":
        assert any(part.figure == "scale" and part.kind == "whole" for part in failing(result))
        assert "the whole: scale off by" in result.reason


HIDDEN: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
    "smallest-too-large": (random(16, 256), lambda x: torch.where(x.abs() < 0.02, 5 * x, x)),
    "rare-classes-zero": (torch.sigmoid(random(8, 1000) * 2 - 7), lambda x: torch.where(x < 1e-4, 0.0, x)),
    "rare-softmax-zero": ((random(8, 1000) * 4).softmax(-1), lambda x: torch.where(x < 1e-5, 0.0, x)),
    "softmax-too-large": ((random(8, 1000) * 4).softmax(-1), lambda x: x * 1.05),
    "softmax-row": ((random(8, 1000) * 4).softmax(-1), lambda x: torch.cat([x[:3], x[3:4] * 1.05, x[4:]])),
    "softmax-maps": ((random(2, 3, 8, 50) * 4).softmax(-1), lambda x: torch.cat([x[:, :2], x[:, 2:] * 1.05], 1)),
    "beside-one-huge": (torch.cat([torch.tensor([1e4]), random(4095)]), lambda x: torch.where(x > 100, x * 1.2, x)),
    "small-kind-of-two": (
        random(4096) * torch.where(random(4096, seed=1) > 0, 1.0, 1e-4), lambda x: torch.where(x.abs() < 5e-6, 0.0, x),
    ),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("fault", HIDDEN)
def test_what_the_larger_ones_hide(fault: str, precision: str):
    expected, spoil = HIDDEN[fault]
    expected = expected.double() if precision == "fp32" else expected
    floor = rounded(expected, precision)
    assert judged(floor, expected, floor, precision).verdict == "pass"
    assert judged(spoil(floor), expected, floor, precision).verdict == "fail"


def test_a_fault_in_half_of_all_slices_is_no_chance():
    expected = random(3, 200, 96)
    floor, actual, worse = (noisy(expected, size * 1e-3, seed) for size, seed in ((1, 1), (1, 2), (6.5, 3)))
    assert judged(actual, expected, floor).verdict == "pass"
    actual[:, 100:, 48:] = worse[:, 100:, 48:]
    assert judged(actual, expected, floor).verdict == "fail"


@pytest.mark.parametrize("rows", [4, 8, 64])
def test_a_small_channel_that_is_zero(rows: int):
    """It is smaller than three roundings of the others."""
    expected = random(rows, 256)
    expected[:, 7] *= 1e-3
    floor = rounded(expected, "fp16")
    actual = floor.clone()
    actual[:, 7] = 0
    assert judged(floor, expected, floor).verdict == "pass"
    assert judged(actual, expected, floor).verdict == "fail"


def test_a_scale_that_the_floor_has_as_well_is_no_fault():
    expected = random(4, 1000)
    assert judged(expected * 1.004, expected, expected * 1.0035).verdict == "pass"
    assert judged(expected * 1.004, expected, rounded(expected, "fp16")).verdict == "fail"


def test_a_bias_in_one_channel():
    expected = random(4, 16, 16, 16)
    floor = rounded(expected, "fp16")
    actual = floor.clone()
    actual[:, 3] += 0.003 * expected[:, 3].square().mean().sqrt()
    result = judged(actual, expected, floor)
    assert result.verdict == "fail"
    assert any(p.figure == "bias" and (p.axis, p.index) == (1, 3) for p in failing(result))
    assert result.parts[0].error <= result.parts[0].allowed  # the norm of the whole does not show it


def test_a_bias_of_everything():
    expected = random(4, 1000)
    result = judged(expected + 0.0014, expected, rounded(expected, "fp16"))
    assert result.verdict == "fail"
    assert any(part.figure == "bias" for part in failing(result))


def test_single_elements_are_held_against_elements_of_their_own_size():
    expected = random(4, 1000)
    expected[0, :500] *= 1e-3
    floor = rounded(expected, "bf16")
    actual = floor.clone()
    actual[0, 7] += 0.05  # 1/4 of one rounding of the largest element
    result = judged(actual, expected, floor, "bf16")
    assert result.verdict == "fail"
    assert "[0, 7]" in result.reason


def test_zeros_that_pytorch_keeps_must_be_kept():
    expected = torch.relu(random(8, 256) - 0.5)
    floor = rounded(expected, "fp16")
    assert judged(floor, expected, floor).verdict == "pass"
    actual = floor + 0.02 * (expected == 0) * random(8, 256, seed=1)
    result = judged(actual, expected, floor)
    assert result.verdict == "fail"
    assert any(part.kind == "zeros" for part in failing(result))
    one = actual.clone()
    one[expected == 0] = 0
    one[0, int((expected[0] == 0).nonzero()[0])] = 5e-4  # where another rounding did not clip
    assert judged(one, expected, floor).verdict == "pass"


def test_an_octave_is_named_by_its_ends():
    expected = torch.exp2(torch.linspace(-10, 10, 4096))[None]
    floor = rounded(expected, "fp16")
    wrong = (expected >= 0.25) & (expected < 0.5)
    result = judged(torch.where(wrong, floor * 1.3, floor), expected, floor)
    assert result.verdict == "fail"
    assert "elements of 0.25 to 0.5: " in result.reason
    assert {(part.low, part.high) for part in failing(result) if part.kind == "octave"} == {(0.25, 0.5)}


@pytest.mark.parametrize(
    ("precision", "unit"), [("fp32", 2.0**-24), ("tf32", 2.0**-11), ("fp16", 2.0**-11), ("bf16", 2.0**-8)]
)
def test_one_rounding_is_that_of_the_format(precision: str, unit: float):
    """A floor without error leaves an engine FACTOR roundings, and nothing more."""
    expected = random(4, 1000).double()
    sign = random(4, 1000, seed=1).sign().double()  # no scale and no bias
    for times, verdict in ((2.5, "pass"), (4.0, "fail")):
        actual = expected * (1 + times * unit * sign)
        assert judged(actual, expected, expected.clone(), precision).verdict == verdict


# What is right


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("shape", [(8, 256), (1, 1000)])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(lambda z: z, id="z"),
        pytest.param(lambda z: torch.exp(2 * z), id="exp(2z)"),
        pytest.param(lambda z: torch.exp(4 * z), id="exp(4z)"),
        pytest.param(lambda z: (10 * z).softmax(-1), id="softmax(10z)"),
    ],
)
def test_programs_that_are_equally_right(head: Callable[[Tensor], Tensor], shape: tuple[int, int], precision: str):
    """Sums of products in one piece and in two, as in cases/verdicts; those that overflow are left out."""
    dtype, judged_at_all = FORMATS[precision], 0
    for seed in range(40):
        x, w = random(shape[0], 32, seed=2 * seed), random(32, shape[1], seed=2 * seed + 1) / math.sqrt(32)
        a, b = x.to(dtype), w.to(dtype)
        half = shape[1] // 2 if shape[1] < 32 else 16
        floor, actual = head(a @ b).float(), head(a[:, :half] @ b[:half] + a[:, half:] @ b[half:]).float()
        if not (floor.isfinite().all() and actual.isfinite().all()):
            continue
        judged_at_all += 1
        result = judged(actual, head(x @ w), floor, precision)
        assert result.verdict == ("not_judged" if "cannot hold" in result.reason else "pass"), (seed, result.reason)
    assert judged_at_all


def test_an_engine_that_is_exact_passes():
    expected = random(8, 256)
    assert judged(expected, expected, noisy(expected, 1e-2, 1)).verdict == "pass"


def test_an_output_that_is_smaller_than_the_format_holds():
    expected = random(8, 256) * 1e-6  # 16 of the smallest steps of FP16
    floor = rounded(expected, "fp16")
    assert judged(floor, expected, floor).verdict == "pass"
    dither = torch.rand(8, 256, generator=torch.Generator().manual_seed(1)) - 0.5
    beside = rounded(expected + 2.0**-24 * dither, "fp16")
    assert judged(beside, expected, floor).verdict == "pass"


@pytest.mark.parametrize(("precision", "smallest"), [("fp16", 2.0**-24), ("bf16", 2.0**-133)])
def test_a_channel_of_the_smallest_numbers_may_be_a_step_away(precision: str, smallest: float):
    """Where the floor is exact by luck: three roundings of the smallest normal number are 1.5 steps."""
    expected = random(64, 64).double()
    expected[:, 7] = (8 * random(64, seed=3)).round() * smallest
    floor = expected.to(FORMATS[precision]).double()
    sign = random(64, seed=1).sign().double()
    for steps, verdict in ((1, "pass"), (4, "fail")):
        actual = floor.clone()
        actual[:, 7] += steps * smallest * sign
        assert judged(actual, expected, floor, precision).verdict == verdict


def test_differences_beside_smaller_numbers_may_lose_roundings_of_their_terms():
    """A product whose sums an engine rounds; the other half of the channels is 100,000 times smaller."""
    expected = torch.cat([random(8, 96) * 1e-3, random(8, 96, seed=1) * 100], 1)
    floor = rounded(expected, "fp16")
    actual = floor + 100 * 2.0**-11 * random(8, 192, seed=2) * (expected.abs() > 0.1)
    assert judged(actual, expected, floor).verdict == "pass"
    assert judged(torch.where(expected.abs() < 0.1, floor * 1.02, floor), expected, floor).verdict == "fail"


def test_a_slice_after_copies_keeps_its_number():
    expected = random(40, 96)
    expected[1:21] = expected[:1]
    floor, actual = noisy(expected, 1e-3, 1), noisy(expected, 1e-3, 2)
    for tensor in (floor, actual):
        tensor[1:21] = tensor[:1]
    actual[35] += 12 * (actual[35] - expected[35])
    worst = next(part for part in failing(judged(actual, expected, floor)) if part.kind == "slice")
    assert (worst.axis, worst.index) == (0, 35)


@pytest.mark.parametrize("copies", [(0, 0, 0, 0, 0, 0, 0, 0), (0, 1, 0, 1), (0, 1, 2, 2)])
def test_copies_of_a_row_are_as_free_as_one_row(copies: tuple[int, ...]):
    expected = random(max(copies) + 1, 96)
    expected[0, 7] = 1e-3  # by luck, of numbers of size 1
    floor = rounded(expected, "fp16")
    actual = floor + 2.0**-11 * random(len(expected), 96, seed=1)
    assert judged(actual, expected, floor).verdict == "pass"
    repeated = [tensor[list(copies)] for tensor in (actual, expected, floor)]
    assert judged(*repeated).verdict == "pass"
    repeated[0][3] += 0.02 * random(96, seed=2)
    result = judged(*repeated)
    assert result.verdict == "fail"
    assert {part.index for part in failing(result) if part.axis == 0} <= {3}


def test_one_number():
    expected = torch.tensor([0.7])
    assert judged(expected * (1 + 2.0**-11), expected, rounded(expected, "fp16")).verdict == "pass"
    assert judged(expected * 1.2, expected, rounded(expected, "fp16")).verdict == "fail"


# The sums


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 1), (3, 4, 5), (2, 3, 1, 70000), (300, 2, 300)])
def test_sums_are_those_of_the_definition(shape: tuple[int, ...]):
    expected, actual, floor = (random(*shape, seed=seed) for seed in range(3))
    if len(shape) > 2:
        expected[0, 0, 0], actual[1, 1, 0] = math.inf, math.nan
    valid = torch.stack([t.isfinite() for t in (expected, actual, floor)]).all(0)
    e, a, f = (torch.where(valid, t, 0).double() for t in (expected, actual, floor))
    octaves = measure_octaves(actual, expected, floor)
    assert octaves.count.sum() == valid.sum()
    assert octaves.engine.sum() == pytest.approx(float((a - e).square().sum()))
    assert octaves.floor_largest.max() == pytest.approx(float((f - e).square().max()))
    for exponent, count, squared in zip(octaves.exponents, octaves.count, octaves.floor, strict=True):
        assert exponent is not None
        inside = valid & (e.abs() >= 2.0**exponent) & (e.abs() < 2.0 ** (exponent + 1))
        assert count == inside.sum()
        assert squared == pytest.approx(float((f - e)[inside].square().sum()), rel=1e-9)
    ones = octaves.count / octaves.count
    found = measure_slices(actual, expected, floor, octaves, fair=ones, size=2 * ones, spread=ones)
    assert [s.axis for s in found] == [k for k, n in enumerate(shape) if 1 < n <= e.numel() // 2]
    for along in found:
        others = [k for k in range(len(shape)) if k != along.axis]
        definitions = {
            "engine": (a - e) ** 2, "floor": (f - e) ** 2, "reference": e**2, "engine_signed": a - e,
            "floor_signed": f - e, "engine_product": (a - e) * e, "floor_product": (f - e) * e,
            "fair": valid.double(), "size": 2 * valid.double(),
        }  # fmt: skip
        assert torch.equal(torch.from_numpy(along.count), valid.double().sum(others))
        for name, values in definitions.items():
            assert torch.allclose(torch.from_numpy(along.sums[name]), values.sum(others), rtol=1e-9), name


@pytest.mark.parametrize("scale", [2.0**-900, 2.0**900])
def test_float64_beyond_the_range_of_squares(scale: float):
    expected = random(4, 64).double()
    floor, actual = noisy(expected, 1e-7, 1), noisy(expected, 1e-7, 2)
    small = judged(actual, expected, floor, "fp32")
    large = judged(actual * scale, expected * scale, floor * scale, "fp32")
    assert small.verdict == large.verdict == "pass"
    assert large.parts[0].allowed == pytest.approx(small.parts[0].allowed)


def test_chance():
    assert chance_factor(10, 20, 1e-3) == pytest.approx(math.sqrt(distributions.f.isf(1e-3, 10, 20)))
    assert chance_factor(1e6, 1e6, 0.4) == pytest.approx(1, abs=1e-3)
    generator = torch.Generator().manual_seed(0)
    engine, floor = (torch.randn(500, 20, generator=generator).square().sum(1).numpy() for _ in range(2))
    assert degrees_between(engine, floor) == pytest.approx(20, rel=0.3)
    assert degrees_between(engine[:4], floor[:4]) == math.inf


def test_moderation_depends_on_how_much_slices_differ():
    generator = torch.Generator().manual_seed(0)
    alike = torch.randn(400, 20, generator=generator).square().sum(1).numpy()
    prior, degrees = alike * 0 + 20.0, alike * 0 + 20.0
    floor, of_floor = moderated(alike, prior, degrees)
    assert floor == pytest.approx(prior, rel=0.35)
    assert of_floor[0] > 100
    different = alike * torch.logspace(-4, 4, 400, base=10).numpy()
    floor, of_floor = moderated(different, prior, degrees)
    assert of_floor[0] < 25
    assert floor[-1] == pytest.approx(different[-1], rel=0.3)
    different[0] = 0.0
    floor, of_floor = moderated(different, prior, degrees)
    centre = np.exp(np.mean(np.log(different[1:] / 20) - special.digamma(10) + math.log(10)))
    assert of_floor == pytest.approx(22), "what all slices lose counts for two errors at least"
    assert floor[0] == pytest.approx(2 * centre * 20 / 22), "a floor of 0 may be luck"


@pytest.mark.parametrize("scale", [40.0, 100.0])
def test_a_softmax_that_is_almost_one_or_zero(scale: float) -> None:
    """FP64 has 1e-300 where FP32 has 0, and the squares of that are nothing."""
    logits = scale * random(2, 7, 7)
    expected, found = logits.double().softmax(-1), logits.softmax(-1)
    assert expected.min() < 2.0**-149
    result = judged(found, expected, found.clone(), "fp32")
    assert result.verdict == "pass"
    assert all(math.isfinite(part.allowed) for part in result.parts)
    assert judged(found.flip(-1), expected, found, "fp32").verdict == "fail"


@pytest.mark.parametrize(("precision", "verdict"), [("fp32", "not_judged"), ("fp16", "fail")])
def test_not_a_number_where_pytorch_in_the_precision_gives_none(precision: str, verdict: str) -> None:
    """A model that FP32 itself cannot hold has no FP32 reference, as its NaN is not judged in FP16 either."""
    expected = random(4, 6)
    lost = expected.clone()
    lost[0, 0] = math.nan
    assert judged(lost, expected.double(), lost.clone(), precision).verdict == verdict
    assert judged(lost, expected.double(), expected.clone(), precision).verdict == "fail"
