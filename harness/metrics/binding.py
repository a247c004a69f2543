"""A metric with its limit, and the verdict on what it measured. A suite declares it, ``check_metric`` applies it.

Three kinds of limit:

- ``difference``: the metric is computed from the engine's outputs and from the reference's, and the two may differ by
  so much. For scores against a ground truth: ROUGE, word error rate, mean IoU.
- ``at_most`` and ``at_least``: the metric compares the engine's outputs with the reference's and is itself bounded. For
  distances (perceptual distance, LPIPS) and likenesses (PSNR, SSIM, cosine similarity).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness import limits
from harness.errors import NotJudged, ParityError, UsageError
from harness.metrics.remarks import collect_remarks
from harness.records import MetricResult, Verdict
from harness.sentences import Sentence, joined

if TYPE_CHECKING:
    import torch

    Values = float | Sequence[float] | torch.Tensor

Direction = Literal["lower", "higher", ""]
Bound = Literal["at_most", "at_least", "difference"]


@dataclass(frozen=True)
class Metric:
    """A metric and the limit that a suite holds it to: exactly one of ``at_most``, ``at_least``, ``difference``."""

    name: str
    """As results show it."""
    function: Callable[..., Any]
    """``function(actual, expected)`` under ``at_most`` and ``at_least``, ``function(outputs)`` under ``difference``;
    a number, or a tensor with one element per sample."""
    _: KW_ONLY
    at_most: float | None = None
    """The largest value that passes."""
    at_least: float | None = None
    """The smallest value that passes."""
    difference: float | None = None
    """The largest difference from the reference's value that passes, in either direction."""
    direction: Direction = ""
    """Which values are better; follows from ``at_most`` and ``at_least``, and may be left open for ``difference``."""
    over: Literal["worst", "mean"] = "worst"
    """Whether the worst sample counts or the mean of all; a difference of means is judged with its interval."""
    why: str
    """Where the limit comes from. Required, so that a reader can check it."""

    def __post_init__(self) -> None:
        if not self.why.strip():
            raise UsageError(f"Metric({self.name!r}) needs why=: say where its limit comes from")
        limits = [value for value in (self.at_most, self.at_least, self.difference) if value is not None]
        if len(limits) != 1:
            raise UsageError(f"Metric({self.name!r}) needs exactly one of at_most=, at_least= and difference=")
        if not math.isfinite(limits[0]):
            raise UsageError(f"Metric({self.name!r}) has the limit {limits[0]}; give a finite number")
        if self.over not in ("worst", "mean"):
            raise UsageError(f"Metric({self.name!r}) has over={self.over!r}; give 'worst' or 'mean'")
        follows: dict[Bound, Direction] = {"at_most": "lower", "at_least": "higher", "difference": self.direction}
        if self.direction not in ("", follows[self.bound]):
            raise UsageError(
                f"Metric({self.name!r}) has {self.bound}= and direction={self.direction!r}: they contradict"
            )
        if self.direction not in ("lower", "higher", ""):
            raise UsageError(f"Metric({self.name!r}) has direction={self.direction!r}; give 'lower' or 'higher'")
        object.__setattr__(self, "direction", follows[self.bound])

    @property
    def bound(self) -> Bound:
        """Which of the three limits is set."""
        if self.at_most is not None:
            return "at_most"
        return "at_least" if self.at_least is not None else "difference"

    @property
    def limit(self) -> float:
        """The limit that is set."""
        return float(getattr(self, self.bound))


def measure(metric: Metric, actual: Any, expected: Any) -> MetricResult:
    """Compute a metric of the engine's outputs ``actual`` and the reference's ``expected``, and judge it.

    A metric that cannot be computed here (NotJudged: no weights, no package, no time) is ``not_judged``; one that
    cannot be computed of these outputs (any other ParityError) fails.
    """
    with collect_remarks() as remarks:
        try:
            with limits.step(f"metric {metric.name!r}"):
                if metric.bound == "difference":
                    value, reference = metric.function(actual), metric.function(expected)
                else:
                    value, reference = metric.function(actual, expected), None
        except NotJudged as error:
            return _result(metric, "not_judged", str(error), notes=remarks)
        except ParityError as error:
            return _result(metric, "fail", str(error), notes=remarks)
    return judge(metric, value, reference, notes=remarks)


def limited(name: str, function: Callable[..., Any] | None, at_most: float | None) -> Metric:
    """Return a metric whose difference a test limits. Raises UsageError without a function or a limit."""
    if function is None or at_most is None:
        raise UsageError(f"check_metric({name!r}) needs a function and at_most=; or give it a Metric")
    return Metric(name, function, difference=at_most, why=Sentence("given_in_test"))


def failed(metric: Metric, reason: str) -> MetricResult:
    """Return the result of a metric that could not be computed of these outputs."""
    return _result(metric, "fail", reason)


def judge(metric: Metric, value: Values, reference: Values | None = None, *, notes: Sequence[str] = ()) -> MetricResult:
    """Return the verdict on a measured value, or on a value per sample.

    ``reference`` is the same of the reference's outputs, and needed for a ``difference`` only. A NaN fails, and so does
    an empty tensor. Samples that are plus infinity under ``at_least`` do not count while others are there; any other
    infinity fails. The reason names every sample that is not finite.
    """
    found = _tensor(metric, value)
    if metric.bound != "difference":
        return _judge_value(metric, found.flatten(), notes)
    if reference is None:
        raise UsageError(f"metric {metric.name!r} judges a difference: give the reference's value too")
    wanted = _tensor(metric, reference)
    if found.shape != wanted.shape or not found.numel():
        shapes = Sentence("shape_of_reference", shape=list(found.shape), shape_2=list(wanted.shape))
        reason = Sentence("metric_shapes", shapes=shapes)
        return _result(metric, "fail", reason, notes=notes)
    if metric.over == "mean" and found.numel() > 1:
        return _judge_means(metric, found.flatten(), wanted.flatten(), notes)
    found, wanted = found.flatten(), wanted.flatten()
    differences = (found - wanted).abs()
    # NaN counts as the largest difference: argmax finds it first.
    worst = int(differences.argmax())
    left, right, difference = (float(t[worst]) for t in (found, wanted, differences))
    reason = Sentence("metric_differs", left=left, right=right, difference=difference, limit=metric.limit)
    reason += _not_finite(found) + _not_finite(wanted, Sentence("of_reference"))
    verdict: Verdict = "pass" if difference <= metric.limit else "fail"
    return _result(metric, verdict, reason, actual=left, expected=right, notes=notes)


def _tensor(metric: Metric, value: Values) -> torch.Tensor:
    """Return a measured value in float64 on the CPU. Raises UsageError for what is neither a number nor a tensor."""
    import torch

    try:
        found = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"metric {metric.name!r} gave a {type(value).__name__}; give a number, or a tensor with one per sample"
        ) from error
    if found.is_complex():
        raise UsageError(f"metric {metric.name!r} gave complex numbers, which no limit orders; give real ones")
    return found.double()


def _judge_value(metric: Metric, values: torch.Tensor, notes: Sequence[str]) -> MetricResult:
    import torch

    if not values.numel():
        return _result(metric, "fail", Sentence("metric_empty"), notes=notes)
    lower = metric.bound == "at_most"
    # Identical images have an infinite PSNR: no fault, and nothing that the other samples may pass by. A distance of
    # -inf is as wrong as NaN.
    best = values.isposinf() if not lower else torch.zeros_like(values, dtype=torch.bool)
    counted = values if bool(best.all()) else values[~best]
    mean = float(counted.mean())
    # max() and min() give NaN where there is one.
    worst = float(counted.max() if lower else counted.min())
    value = worst if metric.over == "worst" else mean
    is_broken = bool((values.isnan() | values.isneginf()).any())
    passed = not is_broken and (value <= metric.limit if lower else value >= metric.limit)
    samples = ""
    if values.numel() > 1:
        other = Sentence("mean_is", mean=mean) if metric.over == "worst" else Sentence("worst_is", worst=worst)
        samples = Sentence(
            "metric_over",
            over=Sentence("over_worst") if metric.over == "worst" else Sentence("over_mean"),
            counted=counted.numel(),
            other=other,
        )
    words = Sentence("at_most") if lower else Sentence("at_least")
    reason = Sentence(
        "metric_allowed", value=value, samples=samples, words=words, limit=metric.limit, not_finite=_not_finite(values)
    )
    if counted.numel() < values.numel():
        reason += Sentence("left_out")
    return _result(metric, "pass" if passed else "fail", reason, actual=value, notes=notes)


def _not_finite(values: torch.Tensor, whose: str = "") -> str:
    """Return which samples are NaN or infinite, to be put behind a sentence; empty where none is."""
    wrong = [int(index) for index in (~values.isfinite()).nonzero()]
    if not wrong or values.numel() == 1:
        return ""
    shown = [Sentence("sample_is", index=index, value=float(values[index])) for index in wrong[:3]]
    more = Sentence("more_not_finite", count=len(wrong) - 3) if len(wrong) > 3 else ""
    return Sentence("samples_not_finite", whose=whose, shown=shown, more=more, count=values.numel())


def _judge_means(metric: Metric, found: torch.Tensor, wanted: torch.Tensor, notes: Sequence[str]) -> MetricResult:
    from harness.metrics.paired import paired_difference

    paired = paired_difference(found, wanted)
    verdict, reason = paired.within(metric.limit)
    means = float(found.mean()), float(wanted.mean())
    reason = Sentence("metric_means", means=means[0], means_2=means[1], reason=reason)
    reason += _not_finite(found) + _not_finite(wanted, Sentence("of_reference"))
    return _result(metric, verdict, reason, actual=means[0], expected=means[1], notes=notes)


def _result(
    metric: Metric,
    verdict: Verdict,
    reason: str,
    *,
    actual: float = math.nan,
    expected: float = math.nan,
    notes: Sequence[str] = (),
) -> MetricResult:
    return MetricResult(
        name=metric.name,
        verdict=verdict,
        reason=reason,
        actual=actual,
        expected=expected,
        allowed=metric.limit,
        bound=metric.bound,
        direction=metric.direction,
        note=joined(notes),
    )
