"""The standard tests that a suite imports, and what their ``parity`` fixture can do. Only here are verdicts raised.

    from harness.checks import test_layers, test_outputs

``harness.plugin`` runs them for every target and case of the suite's SUBJECT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from harness.errors import ParityError

if TYPE_CHECKING:
    import torch

    from harness.findings import LayerReport
    from harness.results import MetricResult, Result, Verdict
    from harness.verify import TargetRun

Outputs = Mapping[str, "torch.Tensor"]
Json = dict[str, Any]

PROPERTY = "parity"
"""The name under which a result rides in ``user_properties``."""
SHOWN_ROWS = 8
"""Modules and values that the message of a failed test shows; the JSON has them all."""


def test_outputs(parity: Parity) -> None:
    """Every output of the engine is as close to the reference as its precision allows."""
    parity.check()


def test_layers(parity: Parity) -> None:
    """No value of the engine is made so wrong that it fails the outputs; every value is recorded.

    The outputs decide and the layers explain: what is wrong inside and dies out is no failure.
    """
    parity.check_layers()


class Parity:
    """What a test sees of one case on one target; the engine runs when it is first asked."""

    def __init__(self, opened: Opened, case: str, item: pytest.Item, *, required: bool) -> None:
        self._opened, self._case, self._item, self._required = opened, case, item, required
        self._data: Json | None = None

    @property
    def result(self) -> Result:
        """The verdict, with every figure."""
        result = self._opened.judge(self._case)
        if self._data is None:
            self._data = result.to_json()
            self._item.user_properties.append((PROPERTY, self._data))
        return result

    @property
    def actual(self) -> Outputs:
        """The engine's outputs by name. Skips the test when there are none, or fails it when they are required."""
        return self._outputs()[0]

    @property
    def expected(self) -> Outputs:
        """The reference's outputs by name."""
        return self._outputs()[1]

    def check(self) -> None:
        """Raise AssertionError when the engine's outputs failed; skip the test when no verdict could be given."""
        __tracebackhide__ = True
        result = self.result
        if result.verdict == "not_judged":
            self._not_judged(result.reason)
        if result.verdict == "fail":
            from harness.report import text

            raise AssertionError(text.failure(result.to_json()))

    def check_layers(self) -> LayerReport:
        """Look at every value and record it with the result; raise AssertionError when the outputs failed.

        Skips the test, or fails it where the backend is required, when nobody could look or looking changed the engine.
        """
        __tracebackhide__ = True
        from harness import layers
        from harness.report import layers as words
        from harness.report import text

        result = self.result
        if result.verdict == "not_judged":
            self._not_judged(result.reason)
        looked = layers.judge_and_look(self._opened.target_run, self._case)
        report = looked.layers
        assert self._data is not None
        self._data["layers"] = report.to_json() if report else None
        if result.verdict == "fail":
            table = [words.table(report.to_json(), rows=SHOWN_ROWS)] if report else []
            raise AssertionError("\n".join([text.failure(looked.to_json()), *table]))
        if report is None or not report.trusted:
            self._not_judged((report.notes if report else looked.notes)[-1])
        return report

    def check_metric(
        self, name: str, function: Callable[[Outputs], float | torch.Tensor], *, at_most: float
    ) -> MetricResult:
        """Hold a metric of the engine's outputs against that of the reference's, and record it with the result.

        ``function(outputs)`` gives a number or a tensor; of a tensor the largest difference counts. Raises
        AssertionError when the difference is larger than ``at_most`` or not a number.
        """
        __tracebackhide__ = True
        actual, expected = self._outputs()
        metric = _compare_metric(name, function(actual), function(expected), at_most)
        assert self._data is not None
        _record_metric(self._data, metric)
        if metric.verdict == "fail":
            result = self.result
            raise AssertionError(f"{result.subject} [{result.backend} {result.precision}] {name}: {metric.reason}")
        return metric

    def _outputs(self) -> tuple[Outputs, Outputs]:
        __tracebackhide__ = True
        result = self.result
        outputs = self._opened.target_run.outputs(self._case)
        if outputs is None:
            if result.verdict == "fail":
                raise AssertionError(f"{result.subject} [{result.backend} {result.precision}]: {result.reason}")
            self._not_judged(result.reason)
        return outputs

    def _not_judged(self, reason: str) -> NoReturn:
        __tracebackhide__ = True
        if self._required:
            backend = self.result.backend
            pytest.fail(f"required backend {backend} gave no verdict: {reason}", pytrace=False)
        pytest.skip(f"not judged: {reason}")


class Opened:
    """One target while its engine is loaded; a case is judged once, however many tests ask."""

    def __init__(self, target_run: TargetRun) -> None:
        self.target_run = target_run
        self._results: dict[str, Result] = {}

    def judge(self, case: str) -> Result:
        """Return the verdict on a case."""
        if case not in self._results:
            try:
                self._results[case] = self.target_run.judge(case)
            except ParityError as error:
                pytest.fail(str(error), pytrace=False)
        return self._results[case]


def _record_metric(data: Json, metric: MetricResult) -> None:
    row = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(metric).items()}
    data["metrics"].append(row)
    if metric.verdict == "fail" and data["verdict"] != "fail":
        data["verdict"], data["reason"] = "fail", f"{metric.name}: {metric.reason}"


def _compare_metric(name: str, actual: Any, expected: Any, at_most: float) -> MetricResult:
    """Return the verdict on a metric: numbers, or tensors of one shape of which the largest difference counts."""
    import torch

    from harness.results import MetricResult

    left, right = (torch.as_tensor(value, dtype=torch.float64).cpu() for value in (actual, expected))
    if left.shape != right.shape or not left.numel():
        shapes = f"{list(left.shape)}, of the reference's {list(right.shape)}"
        reason = f"shape of the metric is {shapes}; both need the same and at least one element"
        nan = float("nan")
        return MetricResult(name=name, verdict="fail", reason=reason, actual=nan, expected=nan, allowed=at_most)
    differences = (left - right).abs().flatten()
    # NaN counts as the largest difference: argmax finds it first.
    worst = int(differences.argmax())
    found, wanted, difference = (float(t.flatten()[worst]) for t in (left, right, differences))
    reason = f"{found:.6g}, reference {wanted:.6g}: differs by {difference:.3g} (allowed {at_most:.3g})"
    verdict: Verdict = "pass" if difference <= at_most else "fail"
    return MetricResult(name=name, verdict=verdict, reason=reason, actual=found, expected=wanted, allowed=at_most)
