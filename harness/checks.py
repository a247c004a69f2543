"""The standard tests that a suite imports, and what their ``parity`` fixture can do.

Only here does a verdict become a failed or a skipped test.

    from harness.checks import test_latency, test_layers, test_outputs, test_parts

``harness.plugin`` runs them for every target and case of the suite's SUBJECT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from harness.errors import NotJudged, UsageError
from harness.ledger import Ledger, judged, judged_latency
from harness.pytest_endings import expected, failing_in_one_sentence, ledger_lines
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch

    from harness.metrics import Metric
    from harness.records import BringUp, LayerReport, Measured, MetricResult, Result
    from harness.subject import Subject
    from harness.verify import OpenTarget, Outcome

Outputs = Mapping[str, "torch.Tensor"]
Json = dict[str, Any]
PROPERTY = "parity"
"""The name under which a result is kept in ``user_properties``."""
LATENCY_PROPERTY = "parity-latency"
"""The same for a latency."""
PARTS_PROPERTY = "parity-parts"
"""The same for the parts of a model."""


def test_outputs(parity: Parity) -> None:
    """Every output of the engine is as close to the reference as its precision allows."""
    parity.check()


def test_layers(parity: Parity) -> None:
    """The outputs are right, and every value inside the engine is compared and recorded.

    The outputs decide and the layers explain: an error inside that does not reach the outputs is no failure.
    """
    parity.check_layers()


def test_parts(parity: Parity) -> None:
    """Every module of the subject's ``parts`` is right as an engine of its own, on the inputs of the reference."""
    parity.check_parts()


@pytest.mark.latency
def test_latency(parity: Parity) -> None:
    """The engine is not slower than what was accepted on this machine; no baseline is neither pass nor fail."""
    parity.check_latency()


@dataclass(frozen=True, kw_only=True)
class LatencyTiming:
    """How the tests of this run measure latency."""

    processes: int = 5
    record: bool = True
    beside_others: bool = False
    """Whether other tests run at the same time: then nothing is measured."""
    neighbours: tuple[int, ...] = ()
    """The ids of processes that wait meanwhile, and may hold memory of the GPU."""


class Parity:
    """One case on one target, as a test sees it; the engine runs on first use."""

    def __init__(
        self, opened: OpenTarget, case: str, item: pytest.Item, *, required: bool, timing: LatencyTiming | None = None,
        ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        self._opened, self._case, self._item, self._required = opened, case, item, required
        self._timing, self._ledger = timing or LatencyTiming(), ledger or Ledger()
        self._data: Json | None = None

    @property
    def result(self) -> Result:
        """The verdict, with every figure."""
        result = self._outcome().result
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

    @property
    def given(self) -> Outputs:
        """The outputs that come with the case, as in a file of ``--cases``; empty where none do."""
        return self._opened.run.subject.given.get(self._case, dict)()

    @property
    def inputs(self) -> Outputs:
        """The inputs of the case by name."""
        return self._opened.inputs(self._case)

    def run(self, inputs: Mapping[str, Any]) -> Outputs:
        """Return what the engine gives for any inputs, as :meth:`harness.OpenEngine.run` does.

        Skips the test where there is no engine, or fails it under ``--require``; an engine that does not run fails it.
        """
        __tracebackhide__ = True
        return self._running("run", inputs)

    def run_reference(self, inputs: Mapping[str, Any]) -> Outputs:
        """Return what PyTorch FP32 gives for any inputs, as :meth:`harness.OpenEngine.run_reference` does."""
        __tracebackhide__ = True
        return self._running("run_reference", inputs)

    def run_floor(self, inputs: Mapping[str, Any]) -> Outputs:
        """Return what PyTorch gives in the engine's precision, as :meth:`harness.OpenEngine.run_floor` does."""
        __tracebackhide__ = True
        return self._running("run_floor", inputs)

    def beside(self, subject: Subject) -> Parity:
        """Return another subject on this target, opened once: ``run`` and the like of the other engine of a chain."""
        opened = self._opened.beside(subject)
        return Parity(opened, next(iter(subject.cases)), self._item, required=self._required, ledger=self._ledger)

    def check(self) -> None:
        """Raise AssertionError when the engine's outputs failed; skip the test when no verdict could be given.

        A failure that the ledger knows is an expected one of pytest's: ``xfailed``.
        """
        __tracebackhide__ = True
        result = self.result
        if result.verdict == "not_judged":
            self._not_judged(result.reason)
        if result.verdict == "fail":
            from harness.report.text import failure_text

            self._failed(failure_text(result.to_json()))

    def check_layers(self) -> LayerReport:
        """Compare every value and record it with the result; raise AssertionError when the outputs failed.

        Skips the test, or fails it where the backend is required, when the values could not be observed, observing
        changed the outputs, or there was nothing to compare.
        """
        __tracebackhide__ = True
        from harness.layers import judge_with_layers
        from harness.report.text import diagnosis_lines, diagnosis_text, failure_text, values_table

        result = self.result
        if result.verdict == "not_judged":
            self._not_judged(result.reason)
        with failing_in_one_sentence():
            looked = judge_with_layers(self._opened, self._case)
        report = looked.layers
        assert self._data is not None
        self._data["layers"] = report.to_json() if report else None
        if result.verdict == "fail" and report is not None:
            lines = diagnosis_text(diagnosis_lines(looked.to_json()))
            self._failed("\n".join([*lines, *values_table(report.to_json())]))
        if result.verdict == "fail":
            self._failed(failure_text(looked.to_json()))
        if report is None:
            self._not_judged(looked.notes[-1])
        if not report.trusted:
            self._not_judged(diagnosis_lines(looked.to_json())[-1].text)
        if not any(value.status == "compared" for value in report.values):
            self._not_judged(Sentence("no_value_held"))
        return report

    def check_parts(self, *, prefix: str = "", upto: str = "", keep_going: bool = False) -> BringUp:
        """Judge every module under ``prefix`` as an engine of its own, in the order in which they run, and record it.

        The arguments are those of ``parity parts``. Raises AssertionError when a part failed; behind the first one
        nothing is built unless it is to go on. Skips the test, or fails it where the backend is required, when a part
        could not be judged. What the ledger knows of the outputs excuses no part: it has entries for parts.
        """
        __tracebackhide__ = True
        from harness.bringup import Request, bring_up_opened
        from harness.report.text import failed_part_text

        request = Request(prefix=prefix, upto=upto, keep_going=keep_going)
        try:
            with failing_in_one_sentence():
                found = bring_up_opened(self._opened, self._case, request, self._ledger)
        except NotJudged as error:
            self._no_verdict(str(error))
        data = found.to_json()
        self._item.user_properties.append((PARTS_PROPERTY, data))
        if found.verdict == "fail":
            owner = [f"owner: {found.owner}"] if found.owner else []
            raise AssertionError("\n".join([failed_part_text(data), *owner]))
        if found.verdict == "not_judged":
            self._no_verdict(found.reason)
        if found.verdict == "known":
            raise expected(found.reason)
        return found

    def check_latency(self) -> Measured:
        """Time the engine, hold it against the accepted baseline of this machine, record it and return the figures.

        Raises AssertionError when it is slower and a second look, in turns with a control, confirmed it. Skips the
        test, with the figures, where there is no baseline or no clear answer; where nothing could be timed, a required
        backend fails.
        """
        __tracebackhide__ = True
        from harness.history import open_history
        from harness.latency import Options, bench_opened
        from harness.records import NotMeasured
        from harness.report.text import latency_advice, latency_line

        if self._timing.beside_others:
            self._not_judged(Sentence("latency_beside_tests"))
        options = Options(
            processes=self._timing.processes, record=self._timing.record, locator=str(self._item.path),
            neighbours=self._timing.neighbours,
        )  # fmt: skip
        folder = self._opened.run.settings.history
        with failing_in_one_sentence(), open_history(folder=folder) as history:
            found = bench_opened(self._opened, self._case, options, history)
            for note in history.notes:
                self._opened.run.settings.progress(f"history: {note}")
        if isinstance(found, NotMeasured):
            if found.failed:
                raise AssertionError(f"{found.subject} [{found.backend} {found.precision}]: {found.reason}")
            self._not_judged(found.reason)
        data = self._known_latency(found.to_json())
        self._item.user_properties.append((LATENCY_PROPERTY, data))
        known = data["known"] or {"why": "", "verdict": ""}
        if found.comparison.verdict == "regressed" and found.comparison.repeated:
            if known["verdict"] and not known["why"]:
                raise expected(f"{latency_line(data)}: {known['reason']} ({known['issue']})")
            lines = [latency_line(data), found.comparison.rule, *found.comparison.notes, *ledger_lines(data)]
            raise AssertionError("\n".join(lines))
        if known["why"]:
            raise AssertionError("\n".join([latency_line(data), *ledger_lines(data)]))
        if found.session.invalid:
            self._not_judged("; ".join(found.session.invalid))
        words = f"{latency_line(data)}; {latency_advice(data) or found.comparison.rule}"
        if found.comparison.verdict in ("regressed", "invalid_environment"):  # on the command line the status is 3
            self._not_judged(words)
        if found.comparison.verdict not in ("equivalent", "improved"):
            pytest.skip(f"not judged: {words}")
        return found

    def check_metric(
        self,
        metric: Metric | str,
        function: Callable[[Any], float | torch.Tensor] | None = None,
        *,
        at_most: float | None = None,
        of: tuple[Any, Any] | None = None,
    ) -> MetricResult:
        """Hold a metric of the engine's outputs against its limit, and record it with the result.

        ``check_metric(METRIC)`` applies a :class:`harness.metrics.Metric`; ``check_metric(name, function, at_most=1)``
        is short for one that limits the difference: ``function(outputs)`` gives a number or a tensor, of which the
        largest difference from that of the reference's outputs counts. ``of=(actual, expected)`` is measured in the
        place of the outputs: what the test made of runs of the engine and of the reference, such as texts.

        Raises AssertionError when the metric fails or is NaN. Skips the test, or fails it where the backend is
        required, when the metric cannot be computed here.
        """
        __tracebackhide__ = True
        from harness import metrics
        from harness.records import add_metric

        if isinstance(metric, str):
            metric = metrics.limited(metric, function, at_most)
        elif function is not None or at_most is not None:
            raise UsageError(f"check_metric: Metric({metric.name!r}) brings its own function and limit; give it alone")
        outputs = self._outputs()  # without a verdict on these nothing else has one
        actual, expected = of or outputs
        assert self._data is not None
        try:
            found = metrics.measure(metric, actual, expected)
        except Exception as error:
            # The test fails by itself; without this the JSON would still call the result passed.
            add_metric(self._data, metrics.failed(metric, f"raised {type(error).__name__}: {error}"))
            raise
        add_metric(self._data, found)
        if found.verdict == "not_judged":
            self._not_judged(f"{found.name}: {found.reason}")
        if found.verdict == "fail":
            result = self.result
            self._failed(f"{result.subject} [{result.backend} {result.precision}] {found.name}: {found.reason}")
        return found

    def _outputs(self) -> tuple[Outputs, Outputs]:
        __tracebackhide__ = True
        result, outcome = self.result, self._outcome()
        if outcome.repeats is None or outcome.expected is None:
            if result.verdict == "fail":
                self._failed(f"{result.subject} [{result.backend} {result.precision}]: {result.reason}")
            self._not_judged(result.reason)
        return outcome.repeats.worst, outcome.expected

    def _running(self, method: str, inputs: Mapping[str, Any]) -> Outputs:
        __tracebackhide__ = True
        from harness.verify import OpenEngine

        reason = ""
        with failing_in_one_sentence():
            try:
                found: Outputs = getattr(OpenEngine(self._opened), method)(inputs)
            except NotJudged as error:
                reason = str(error)
        if reason:
            self._not_judged(reason)
        return found

    def _outcome(self) -> Outcome:
        from harness.verify import verify_case

        with failing_in_one_sentence():
            return verify_case(self._opened, self._case)

    def _by_ledger(self) -> Json | None:
        """Return what the ledger makes of this result, whose record other tests add to; None without an entry."""
        subject, target = self._opened.run.subject, str(self._opened.target)
        entry = self._ledger.entry_of(subject.name, target, self._case, source=subject.source)
        if entry is None or self._data is None:
            return None
        return judged(self._data, self._ledger, entry, owner=subject.owner)

    def _known_latency(self, data: Json) -> Json:
        subject, target = self._opened.run.subject, str(self._opened.target)
        data = {**data, "owner": subject.owner}
        entry = self._ledger.entry_of(subject.name, target, self._case, source=subject.source, latency=True)
        return judged_latency(data, self._ledger, entry, owner=subject.owner) if entry else data

    def _failed(self, text: str) -> NoReturn:
        """Raise AssertionError, with the owner; where the ledger knows the failure, let pytest expect it."""
        __tracebackhide__ = True
        data = self._by_ledger() or {"verdict": "fail", "owner": self._opened.run.subject.owner, "known": None}
        if data["verdict"] == "known":
            raise expected(data["reason"])
        raise AssertionError("\n".join([text, *ledger_lines(data)]))

    def _not_judged(self, reason: str) -> NoReturn:
        __tracebackhide__ = True
        if (data := self._by_ledger()) and data["verdict"] == "known":
            raise expected(data["reason"])
        self._no_verdict(reason)

    def _no_verdict(self, reason: str) -> NoReturn:
        """Skip the test, or fail it where its backend is required."""
        __tracebackhide__ = True
        if self._required:
            backend = self._opened.target.backend
            pytest.fail(f"required backend {backend} gave no verdict: {reason}", pytrace=False)
        pytest.skip(f"not judged: {reason}")
