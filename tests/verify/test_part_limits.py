"""What a part may lose, where all elements are alike and the formulas of docs/verdicts.md are short."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special
from scipy import stats as distributions

from harness.records import PartResult
from harness.verify.chance import _trigamma_inverse, degrees_between, moderated
from harness.verify.parts import _predicted, judge_parts

Tensor = torch.Tensor
SHARE = 1e-3 / 5
UNIT = 2.0**-11


def times(level: float, engine: float, floor: float) -> float:
    """Return the factor of a part: 3, and what chance may add to the root of a ratio of mean squares."""
    return 3 * math.sqrt(distributions.f.isf(level, engine, floor))


def signs(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).sign().double()


def limits(expected: Tensor, floor: Tensor, wrong: float = 2.0) -> dict[tuple[str, str, float | None], PartResult]:
    """Return the worst part of each kind and figure, and low end of octaves, of an engine that is wrong below 2."""
    actual = torch.where(expected.abs() < 2, wrong * expected, expected)
    found = judge_parts(actual, expected, floor, roundoff=UNIT, step=2.0**-24)
    return {(part.kind, part.figure, part.low): part for part in found}


@pytest.mark.parametrize("size", [1.5, 0.75, 1.5 * 2.0**-9])
@pytest.mark.parametrize("lost", [0.0, 1e-4, 0.01])
@pytest.mark.parametrize("count", [16, 17, 30, 400])
def test_limits_of_elements_that_are_all_alike(count: int, lost: float, size: float):
    expected = size * signs(count, seed=1)
    found = limits(expected, expected + lost * size * signs(count, seed=2))
    octave = 2.0 ** math.floor(math.log2(size))
    degrees = min(count, 32)
    wanted = {
        ("whole", "relative_l2", None): max(
            lost * times(SHARE, count, count), lost * 3 * math.sqrt((count + 1) / count), 3 * UNIT
        ),
        ("octave", "max_absolute", octave): size * max(
            12 * lost, lost * times(SHARE / count, 1, count), 12 * UNIT
        ),
    }  # fmt: skip
    if count > 16:
        wanted["octave", "relative_l2", octave] = max(
            lost * times(SHARE, degrees, degrees), lost * 3 * math.sqrt((count + 1) / count), 3 * UNIT
        )
    assert {key: part.allowed for key, part in found.items()} == pytest.approx(wanted)
    for (_, figure, _), part in found.items():
        unit = size if figure == "max_absolute" else 1.0
        assert (part.error, part.floor) == pytest.approx((unit, lost * unit))
        assert part.elements == count


@pytest.mark.parametrize("lost", [1e-4, 0.01])
@pytest.mark.parametrize("side", [4, 6, 7])
def test_limits_of_slices_that_are_all_alike(side: int, lost: float):
    """Fewer than eight: how much they differ says nothing. Their floors do not differ, so each is that of all."""
    expected = 1.5 * signs(side, side, seed=1)
    floor = expected + lost * 1.5 * signs(side, side, seed=2)
    found = limits(expected, floor, wrong=1.5)
    half = side / 2
    pooled = (1000 * math.exp(math.log(half) - special.digamma(half)) + side) / (1000 + side)  # Smyth 2004, section 6
    tests = 2 * side
    allowed = max(
        lost * times(SHARE / tests, side, 1000 + side) * math.sqrt(pooled),
        lost * 3 * math.sqrt(pooled + 1 / side),
        3 * UNIT,
    )
    part = found["slice", "relative_l2", None]
    assert part.allowed == pytest.approx(allowed)
    assert (part.error, part.floor, part.elements) == pytest.approx((0.5, lost, side))
    deviate = distributions.t.isf(SHARE / (4 * tests), side)
    spread = 3 * max(lost * math.sqrt(pooled), UNIT / math.sqrt(3)) / math.sqrt(side)
    assert found["slice", "scale", None].error == pytest.approx(0.5)
    for figure, values in (("scale", expected), ("bias", torch.ones(side, side).double() * 1.5)):
        if ("slice", figure, None) not in found:
            continue
        part = found["slice", figure, None]
        along = (floor - expected) * values
        own = abs(float(along.select(part.axis, part.index).mean())) / 1.5**2
        assert abs(part.floor) == pytest.approx(own)
        assert part.allowed == pytest.approx(max(UNIT, 3 * own) + deviate * spread / math.sqrt(side) * math.sqrt(side))
    scale = found["whole", "scale", None]
    own = side * side  # all slices are as free as their elements
    error = 3 * lost / math.sqrt(own)
    assert abs(scale.floor) == pytest.approx(abs(float(((floor - expected) * expected).mean())) / 1.5**2)
    assert scale.allowed == pytest.approx(max(UNIT, 3 * abs(scale.floor)) + error * distributions.t.isf(SHARE / 4, own))


@pytest.mark.parametrize("where", ["one element", "the diagonal"])
def test_limits_under_heavy_tails(where: str):
    """The floor is exact but for one element, or for one in every slice: its kurtosis is 36, or 6."""
    expected = 1.5 * signs(6, 6, seed=1)
    floor = expected.clone()
    if where == "one element":
        floor[2, 3] += 0.015
    else:
        floor += 0.015 * torch.eye(6)
    errors = 1 if where == "one element" else 6
    kurtosis, total, one_error = 36 / errors, errors * 0.015**2, 0.015**2
    fair, tail = total / 36, kurtosis
    one = tail * min(max(tail / (2 * math.log(74)), 1), 4) ** 2 * fair  # beyond what normal errors reach: up to 4 times
    whole = 1.5**2 * 36
    degrees = 72 / (kurtosis - 1)
    found = limits(expected, floor, wrong=4)

    nominal = max(2 * 6 / (kurtosis - 1), 1.0)
    centre = math.exp(math.log(one_error / (6 * fair)) - special.digamma(nominal / 2) + math.log(nominal / 2))
    squared = [one_error] * errors + [0.0] * (6 - errors)
    floors = np.array([(1000 * centre * 6 * fair + nominal * own) / (1000 + nominal) for own in squared])
    slices = max(times(SHARE / 12, nominal, 1000 + nominal) ** 2 * floors[-1], 9 * (floors[-1] + one))
    part = found["slice", "relative_l2", None]
    assert part.allowed == pytest.approx(math.sqrt(max(slices, (3 * UNIT * 1.5) ** 2 * 6) / (1.5**2 * 6)))

    own = max(min(degrees, 36, floors.sum() ** 2 / (floors**2 / nominal).sum()), 1.0)
    most = max(times(SHARE, own, min(degrees, own)) ** 2 * total, 9 * (total + one))
    assert found["whole", "relative_l2", None].allowed == pytest.approx(min(math.sqrt(most / whole), 0.5))
    most = max(times(SHARE, min(degrees, 32), min(degrees, 32)) ** 2 * total, 9 * (total + one))
    assert found["octave", "relative_l2", 1.0].allowed == pytest.approx(math.sqrt(most / whole))
    chance = min(times(SHARE / 36, 1, degrees), 3 * 200)
    largest = math.sqrt(max(144 * tail, chance**2) * fair)
    assert found["octave", "max_absolute", 1.0].allowed == pytest.approx(largest)


@pytest.mark.parametrize(("small", "large", "prior"), [(30, 64, 8.0), (30, 12, 3.0), (100, 20, 5.0)])
def test_what_an_octave_may_lose_is_pooled_with_its_neighbour(small: int, large: int, prior: float):
    """A neighbour counts for a quarter of its elements, as it is one octave away, and for 8 at most."""
    expected = torch.cat([1.5 * signs(small, seed=1), 3.0 * signs(large, seed=2)])
    floor = expected + torch.cat([0.01 * signs(small, seed=3), 0.04 * signs(large, seed=4)])
    part = limits(expected, floor)["octave", "relative_l2", 1.0]
    fair = (prior * 0.04**2 + small * 0.01**2) / (prior + small)
    degrees = min(small, 32), min(small + prior, 32)
    assert part.allowed == pytest.approx(times(SHARE / 2, *degrees) * math.sqrt(fair) / 1.5)
    alone = limits(expected[:small], floor[:small])["octave", "relative_l2", 1.0]
    assert alone.allowed == pytest.approx(times(SHARE, degrees[0], degrees[0]) * 0.01 / 1.5)
    below = torch.cat([torch.ones(small), torch.full((large,), 2.0**-8)]).double()
    apart = limits(below * expected, below * floor)
    assert apart["octave", "relative_l2", 1.0].allowed == pytest.approx(
        times(SHARE / 2, degrees[0], degrees[0]) * 0.01 / 1.5
    ), "seven octaves below"


@pytest.mark.parametrize(
    ("slope", "taken"), [(0.5, 0.5), (0.0, 0.0), (-1.0, 0.0), (math.log(4), math.log(4)), (3.0, math.log(4))]
)
def test_what_neighbours_lose_lies_on_a_line(slope: float, taken: float):
    """Of an error between one that is constant and one that is proportional, whose square is four times per octave."""
    x, weight = np.array([-2.0, -1.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0, 1.0])
    centre = float((weight * x).sum() / 7)
    assert _predicted(x, 0.7 + slope * x, weight) == pytest.approx(0.7 + (slope - taken) * centre)
    wobble = np.array([1.0, -1.0, 0.5, -0.5])
    line = np.polyfit(x, x + wobble, 1, w=np.sqrt(weight))
    assert _predicted(x, x + wobble, weight) == pytest.approx(line[1])
    assert _predicted(x[:1], np.array([5.0]), weight[:1]) == 5.0


@pytest.mark.parametrize("x", [1e-5, 0.01, 1.0, 30.0, 1e5, 1e8])
def test_the_inverse_of_trigamma(x: float):
    assert _trigamma_inverse(float(special.polygamma(1, x))) == pytest.approx(x, rel=1e-5)


def test_how_much_slices_differ_has_no_unit():
    generator = torch.Generator().manual_seed(0)
    engine, floor = (torch.randn(500, 20, generator=generator).square().sum(1).numpy() for _ in range(2))
    assert degrees_between(1e-12 * engine, 1e-12 * floor) == pytest.approx(degrees_between(engine, floor))


def test_where_no_slice_has_a_floor_the_prior_counts_for_two_errors():
    floor, degrees = moderated(np.zeros(3), np.array([1.0, 2.0, 4.0]), np.array([6.0, 6.0, 2.0]))
    assert floor.tolist() == [0.25, 0.5, 2.0]
    assert degrees.tolist() == [6.0, 6.0, 2.0]
