"""A metric bound to a limit: what passes, what fails, what is not judged."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from harness.errors import EngineFailed, NotJudged, UsageError
from harness.metrics.binding import Metric, failed, judge, measure
from harness.metrics.paired import LEAST_SAMPLES, paired_difference
from harness.metrics.remarks import collect_remarks, remark

NAN, INF = float("nan"), float("inf")


def bound(**limits: object) -> Metric:
    return Metric("m", lambda *values: values[0], **{"why": "a test", **limits})


@pytest.mark.parametrize(
    ("limits", "values", "verdict"),
    [
        ({"at_most": 12}, 12.0, "pass"),
        ({"at_most": 12}, 12.1, "fail"),
        ({"at_most": 12}, [1.0, 13.0], "fail"),
        ({"at_most": 12, "over": "mean"}, [1.0, 13.0], "pass"),
        ({"at_most": 12}, NAN, "fail"),
        ({"at_most": 12}, [1.0, NAN], "fail"),
        ({"at_most": 12, "over": "mean"}, [1.0, NAN], "fail"),
        ({"at_most": 12}, -INF, "fail"),
        ({"at_most": 12}, [], "fail"),
        ({"at_least": 30}, 30.0, "pass"),
        ({"at_least": 30}, [31.0, 29.0], "fail"),
        ({"at_least": 30}, INF, "pass"),
        ({"at_least": 30}, [INF, NAN], "fail"),
        ({"at_least": 30, "over": "mean"}, [INF, NAN], "fail"),
        ({"at_least": 30, "over": "mean"}, [INF, 7.8, 7.8, 7.7], "fail"),
        ({"at_least": 30, "over": "mean"}, [INF, 31.0, 31.0], "pass"),
        ({"at_least": 30, "over": "mean"}, [INF, INF], "pass"),
        ({"at_least": 30, "over": "mean"}, [INF, -INF], "fail"),
        ({"at_least": 30}, [-INF, 31.0], "fail"),
        ({"at_most": 1}, [-INF, 0.5], "fail"),
        ({"at_most": 1, "over": "mean"}, [-INF, INF], "fail"),
        ({"at_least": -1}, [], "fail"),
    ],
)
def test_limit_on_the_value(limits: dict[str, object], values: object, verdict: str):
    assert judge(bound(**limits), values).verdict == verdict


def test_reason_names_value_spread_and_limit():
    result = judge(bound(at_most=12), [3.0, 13.0])
    assert result.reason == "13 (worst of 2, mean 8): allowed at most 12"
    assert (result.actual, result.bound, result.direction) == (13.0, "at_most", "lower")
    assert math.isnan(result.expected)
    assert judge(bound(at_least=30), 29.5).reason == "29.5: allowed at least 30"


@pytest.mark.parametrize("limits", [{"at_least": 30}, {"at_least": 30, "over": "mean"}, {"at_most": 30}])
def test_reason_names_samples_that_are_not_finite(limits: dict[str, object]):
    assert "sample 2 is inf (of 4)" in judge(bound(**limits), [31.0, 31.0, INF, 31.0]).reason
    assert "sample 1 is nan" in judge(bound(**limits), [31.0, NAN]).reason


@pytest.mark.parametrize("over", ["mean", "worst"])
def test_reason_of_a_difference_names_samples_that_are_not_finite(over: str):
    result = judge(bound(difference=1, over=over), [1.0, INF], [1.0, NAN])
    assert result.verdict == "fail"
    assert "sample 1 is inf" in result.reason
    assert "the reference's sample 1 is nan" in result.reason


@pytest.mark.parametrize(
    ("actual", "expected", "verdict"),
    [
        (1.5, 1.0, "pass"),
        (0.5, 1.0, "pass"),
        (1.6, 1.0, "fail"),
        (NAN, 1.0, "fail"),
        (1.0, NAN, "fail"),
        (INF, INF, "fail"),
        ([1.0, 2.0], [1.0, 2.6], "fail"),
        ([NAN, 2.0], [1.0, 2.0], "fail"),
        ([1.0], [1.0, 1.0], "fail"),
        ([], [], "fail"),
    ],
)
def test_limit_on_the_difference(actual: object, expected: object, verdict: str):
    assert judge(bound(difference=0.5), actual, expected).verdict == verdict


def test_difference_needs_a_reference():
    with pytest.raises(UsageError, match="judges a difference"):
        judge(bound(difference=1), 1.0)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "exactly one of"),
        ({"at_most": 1, "at_least": 0}, "exactly one of"),
        ({"at_most": NAN}, "finite number"),
        ({"difference": INF}, "finite number"),
        ({"at_most": 1, "why": " "}, "needs why="),
        ({"at_most": 1, "direction": "higher"}, "contradict"),
        ({"difference": 1, "direction": "up"}, "'lower' or 'higher'"),
        ({"at_most": 1, "over": "median"}, "'worst' or 'mean'"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(limits: dict[str, object], words: str):
    with pytest.raises(UsageError, match=words):
        bound(**limits)


def test_direction_follows_from_the_bound():
    assert bound(at_most=1).direction == "lower"
    assert bound(at_least=1).direction == "higher"
    assert bound(difference=1).direction == ""
    assert bound(difference=1, direction="higher").direction == "higher"


def test_measure_calls_the_function_as_its_bound_says():
    outputs, reference = {"y": torch.tensor([1.0, 2.0])}, {"y": torch.tensor([1.0, 4.0])}
    distance = Metric("d", lambda a, e: (a["y"] - e["y"]).abs(), at_most=3, why="a test")
    assert measure(distance, outputs, reference).actual == 2.0
    mean = Metric("mean", lambda out: out["y"].mean(), difference=0.5, why="a test")
    result = measure(mean, outputs, reference)
    assert (result.verdict, result.actual, result.expected) == ("fail", 1.5, 2.5)


@pytest.mark.parametrize(
    ("error", "verdict"), [(NotJudged("no weights"), "not_judged"), (EngineFailed("another size"), "fail")]
)
@pytest.mark.parametrize("limits", [{"at_most": 1}, {"difference": 1}])
def test_errors_become_verdicts(error: Exception, verdict: str, limits: dict[str, float]):
    def function(*_: object) -> float:
        remark("said before it was raised")
        raise error

    result = measure(Metric("m", function, why="a test", **limits), {}, {})
    assert (result.verdict, result.reason) == (verdict, str(error))
    assert math.isnan(result.actual)
    assert result.note == "said before it was raised"


def test_remarks_reach_the_note_once():
    def function(*_: object) -> float:
        remark("random", warn=True)
        return 1.0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure(Metric("m", function, difference=1, why="a test"), {}, {}).note == "random"
        with collect_remarks() as remarks:
            function()
    assert remarks == ["random"]
    with pytest.warns(UserWarning, match="random"):
        function()


def test_failed_is_a_failure():
    assert failed(bound(at_most=1), "raised KeyError").verdict == "fail"


# Means over paired samples


def mean_metric() -> Metric:
    return bound(difference=1, over="mean", direction="higher")


def scores(samples: int, *, shift: float = 0.0, spread: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    expected = torch.linspace(10, 40, samples, dtype=torch.float64)
    wobble = spread * torch.tensor([(-1.0) ** i for i in range(samples)], dtype=torch.float64)
    return expected + shift + wobble, expected


@pytest.mark.parametrize(
    ("samples", "shift", "spread", "verdict"),
    [
        (60, 0.0, 0.0, "pass"),
        (60, 0.3, 0.5, "pass"),
        (60, 0.9, 3.0, "not_judged"),
        (60, -0.9, 3.0, "not_judged"),
        (60, 1.2, 0.1, "fail"),
        (60, -1.2, 0.1, "fail"),
        (LEAST_SAMPLES, 0.1, 0.0, "pass"),
        (LEAST_SAMPLES - 1, 0.1, 0.0, "not_judged"),
        (LEAST_SAMPLES - 1, 1.1, 0.0, "fail"),
    ],
)
def test_difference_of_means_is_judged_with_its_interval(samples: int, shift: float, spread: float, verdict: str):
    assert judge(mean_metric(), *scores(samples, shift=shift, spread=spread)).verdict == verdict


def test_difference_of_means_says_why():
    assert "95% interval" in judge(mean_metric(), *scores(60, shift=0.3, spread=0.5)).reason
    assert "give more samples" in judge(mean_metric(), *scores(60, shift=0.9, spread=3.0)).reason
    few = judge(mean_metric(), *scores(20)).reason
    assert "20 samples miss a loss in 1 of 20 with 36%" in few
    assert f"give at least {LEAST_SAMPLES}" in few


def test_one_nan_sample_fails_the_mean():
    actual, expected = scores(60)
    actual[7] = NAN
    assert judge(mean_metric(), actual, expected).verdict == "fail"
    assert judge(mean_metric(), expected, actual).verdict == "fail"


def test_interval_is_that_of_the_mean_and_the_same_every_time():
    generator = torch.Generator().manual_seed(1)
    differences = 0.2 + torch.randn(200, generator=generator, dtype=torch.float64)
    zero = torch.zeros(200, dtype=torch.float64)
    paired = paired_difference(differences, zero)
    assert paired == paired_difference(differences, zero)
    assert paired.difference == pytest.approx(float(differences.mean()))
    half = 1.97 * float(differences.std()) / math.sqrt(200)
    assert paired.low == pytest.approx(paired.difference - half, abs=0.02)
    assert paired.high == pytest.approx(paired.difference + half, abs=0.02)
    assert paired_difference(differences, zero, seed=1) != paired


def test_interval_is_that_of_students_t_at_least():
    differences = [float(i % 5) for i in range(LEAST_SAMPLES)]
    # One resample, whose t is an ordinary one, leaves Student's: 2.00172 is its 97.5 % quantile, 58 degrees of freedom.
    paired = paired_difference(differences, [0.0] * LEAST_SAMPLES, resamples=1)
    error = float(torch.tensor(differences).std()) / math.sqrt(LEAST_SAMPLES)
    assert (paired.high - paired.difference) / error == pytest.approx(2.00172, abs=1e-5)
    assert (paired.difference - paired.low) / error == pytest.approx(2.00172, abs=1e-5)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_interval_scales_with_the_unit(unit: float):
    differences = np.random.default_rng(2).lognormal(size=300)
    one, other = paired_difference(differences, np.zeros(300)), paired_difference(unit * differences, np.zeros(300))
    for end in ("low", "high", "difference"):
        assert getattr(other, end) == pytest.approx(unit * getattr(one, end), rel=1e-9)


def test_a_rare_loss_widens_the_interval_to_its_side():
    # One sample in 60 loses 20: the mean is -0.33, a percentile interval ends at -1, and the next 60 may lose thrice.
    paired = paired_difference([-20.0] + [0.1 * (i % 3) for i in range(59)], [0.0] * 60)
    assert paired.low < -5
    assert paired.within(2)[0] == "not_judged"


@pytest.mark.parametrize("tail", ["normal", "skewed", "rare"])
def test_the_interval_holds_the_true_mean(tail: str):
    """400 draws of 60; benchmarks/paired.py draws more, of more kinds."""
    generator = np.random.default_rng(7)
    draw = {
        "normal": lambda: generator.standard_normal(60),
        "skewed": lambda: generator.lognormal(size=60) - math.exp(0.5),
        "rare": lambda: 1 - 20.0 * (generator.random(60) < 0.05) + 0.1 * generator.standard_normal(60),
    }[tail]
    found = [paired_difference(draw(), np.zeros(60), resamples=200) for _ in range(400)]
    assert np.mean([paired.low <= 0 <= paired.high for paired in found]) >= 0.92


def test_pairing_cancels_what_samples_have_in_common():
    actual, expected = scores(60, shift=0.1)
    paired = paired_difference(actual, expected)
    assert paired.high - paired.low < 1e-9
    assert paired.difference == pytest.approx(0.1)


def test_paired_samples_need_pairs():
    for values in (([], []), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(UsageError, match="same number"):
            paired_difference(*values)
    few = paired_difference([1.0] * (LEAST_SAMPLES - 1), [1.0] * (LEAST_SAMPLES - 1))
    assert (few.low, few.high) == (-INF, INF)
