"""The study of a system's variants: quality and latency of each, against PyTorch FP32 on the same machine."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.compare import relative_l2
from harness.errors import EngineFailed, NotJudged, ParityError, first_line
from harness.metrics import collect_remarks
from harness.pytorch import tf32_allowed
from harness.records import MetricResult, StepError, StudyResult, VariantResult, Verdict, mean_latency
from harness.sentences import Sentence
from harness.settings import Settings
from harness.systems.networks import Networks
from harness.systems.pipeline import Pipeline, Step
from harness.systems.products import Made
from harness.systems.system import CaseMetric, System
from harness.systems.variant import Variant, choose

STAGE_RUNS = 3
NO_LIMIT = Sentence("no_limit_set")
_KINDS = {"pictures": Sentence("kind_pictures"), "texts": Sentence("kind_texts")}


def run_study(
    system: System,
    *,
    variants: Sequence[str] = (),
    cases: int = 4,
    steps: int | None = None,
    backend: str = "rtx",
    settings: Settings,
    folder: Path,
    networks: Networks | None = None,
) -> Iterator[StudyResult]:
    """Yield the study after the reference and after every variant, each time with all that is known.

    ``steps`` takes the place of the reference's in it and in every variant that has as many. Files are written to
    ``folder`` and named relative to its parent. ``networks`` are those of an earlier study, to make nothing twice. What
    is wrong with one variant is that variant's verdict. Raises UsageError for what is not known, NotJudged when the
    reference itself cannot be had.
    """
    reference = _with_steps(system, system.reference, steps)
    chosen = [_with_steps(system, variant, steps) for variant in choose(variants, system.variants)]
    for variant in (reference, *chosen):
        system.check(variant)
    inputs = system.cases(cases)
    networks = networks or Networks(system, settings)
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(networks.open(reference, backend))
            study = _Study(system, reference, networks, backend, folder, inputs, opened)
            settings.progress(f"{system.name}: the reference, PyTorch FP32 on {networks.device.type}")
            results = [study.of_reference()]
        except (EngineFailed, torch.cuda.OutOfMemoryError) as error:
            raise NotJudged(Sentence("no_study_reference", said=first_line(error))) from error
        yield study.result(results)
        for variant in chosen:
            settings.progress(f"{system.name}: variant {variant.name}")
            results.append(study.of_variant(variant))
            settings.progress(f"{system.name}: variant {variant.name}: {results[-1].verdict.replace('_', ' ')}")
            yield study.result(results)


def _with_steps(system: System, variant: Variant, steps: int | None) -> Variant:
    if steps is None or variant.steps != system.reference.steps or variant.keeps_steps:
        return variant
    return dataclasses.replace(variant, steps=steps)


@dataclass
class _Study:
    """What all variants of a study share."""

    system: System
    reference: Variant
    """With the steps that the study was asked for."""
    networks: Networks
    backend: str
    folder: Path
    inputs: Mapping[str, Any]
    reference_networks: Mapping[str, Any]
    expected: dict[str, Any] = field(default_factory=dict)
    """What the reference makes, by case, once it has run."""
    reference_ms: float | None = None
    notes: list[str] = field(default_factory=list)
    unjudged: dict[str, str] = field(default_factory=dict)
    """Why a metric was not judged and what to do, by its name."""
    trajectories: dict[int, list[Step]] = field(default_factory=dict)
    """The reference's on the first case, by the number of steps."""

    def result(self, results: Sequence[VariantResult]) -> StudyResult:
        """Return the study so far."""
        system, on_gpu = self.system, self.networks.device.type == "cuda"
        return StudyResult(
            name=system.name, weights=system.weights, weights_source=system.weights_source, inputs=system.inputs,
            device=torch.cuda.get_device_name() if on_gpu else "CPU", score_rule=system.score_rule,
            variants=tuple(results), notes=(*system.notes, *dict.fromkeys(self.notes)),
        )  # fmt: skip

    def of_reference(self) -> VariantResult:
        """Make what all variants are held against; twice, so that its own noise is known."""
        variant = self.reference
        pipeline = self._pipeline(self.reference_networks, variant)
        first = self._checked(pipeline)
        self.expected, latencies = self._timed(pipeline)
        self.reference_ms = mean_latency(list(latencies.values()))
        same = all(self._is_same(first[name], made) for name, made in self.expected.items())
        return VariantResult(
            name=variant.name, settings=variant.to_json(self.system.networks(variant)), verdict="not_judged",
            reason=Sentence("is_the_reference"), latency_ms=self.reference_ms, speed_up=1.0,
            stages_ms=self._stages(pipeline), **self._products(variant, self.expected, {}, latencies),
            notes=(_runs_words(same, self.system.product.kind),),
        )  # fmt: skip

    def of_variant(self, variant: Variant) -> VariantResult:
        """Return the result of one variant; an error of its own is its verdict, and the study goes on."""
        settings = {**variant.to_json(self.system.networks(variant)), "backend": variant.backend or self.backend}
        bare = VariantResult(name=variant.name, settings=settings, verdict="not_judged", reason="")
        try:
            with self.networks.open(variant, self.backend) as opened:
                return self._measured(variant, self._pipeline(opened, variant), bare)
        except EngineFailed as error:
            return dataclasses.replace(bare, verdict="fail", reason=str(error))
        except torch.cuda.OutOfMemoryError as error:
            return dataclasses.replace(bare, reason=f"out of GPU memory: {first_line(error)}")
        except NotJudged as error:
            return dataclasses.replace(bare, reason=str(error))
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _measured(self, variant: Variant, pipeline: Pipeline, bare: VariantResult) -> VariantResult:
        first = self._checked(pipeline)
        self._make(pipeline, next(iter(self.inputs.values())))  # kernels and graphs are made before the clock runs
        made, latencies = self._timed(pipeline)
        others = [name for name in made if not self._is_same(first[name], made[name])]
        found = {name: self._figures(made[name], self.expected[name]) for name in made}
        metrics = self._summary(found)
        latency_ms = mean_latency(list(latencies.values()))
        assert latency_ms is not None
        values = {metric.name: [row[metric.name] for row in found.values()] for metric in self.system.metrics}
        verdict, reason, score = self.system.judge(metrics, values, latency_ms)
        steps, notes = self._step_errors(variant, pipeline)
        notes += [Sentence("two_runs_differ", others=list(others))] if others else []
        return dataclasses.replace(
            bare, verdict=verdict, reason=reason, latency_ms=latency_ms, score=score, metrics=metrics, steps=steps,
            speed_up=self.reference_ms / latency_ms if self.reference_ms else None, stages_ms=self._stages(pipeline),
            notes=tuple(notes), **self._products(variant, made, found, latencies),
        )  # fmt: skip

    @staticmethod
    def _make(pipeline: Pipeline, case: Any) -> Any:
        with torch.inference_mode(), tf32_allowed(False):
            return pipeline.make(case)

    @staticmethod
    def _trajectory(pipeline: Pipeline, case: Any, forced: Sequence[Step] | None = None) -> list[Step]:
        with torch.inference_mode(), tf32_allowed(False):
            return pipeline.trajectory(case, forced=forced)

    def _pipeline(self, networks: Mapping[str, Any], variant: Variant) -> Pipeline:
        return self.system.pipeline(networks, variant, self.networks.device)

    def _is_same(self, actual: Any, expected: Any) -> bool:
        return self.system.product.is_same(actual, expected)

    def _checked(self, pipeline: Pipeline) -> dict[str, Any]:
        """Make every case, with the outputs of every network looked at: NaN has an argmax, and shows in no text."""
        made = {}
        for name, case in self.inputs.items():
            try:
                with pipeline.checked():
                    made[name] = self._make(pipeline, case)
            except EngineFailed as error:
                raise EngineFailed(f"{name}: {error}", failure=error.failure) from error
        return made

    def _timed(self, pipeline: Pipeline) -> tuple[dict[str, Any], dict[str, float]]:
        """Return what is made, and milliseconds: wall clock around the whole of it."""
        made, latencies = {}, {}
        for name, case in self.inputs.items():
            started = time.perf_counter()
            try:
                made[name] = self._make(pipeline, case)
            except EngineFailed as error:
                changed = Sentence("finite_one_by_one")
                raise EngineFailed(
                    Sentence("network_changed", name=name, error=error, changed=changed), failure=error.failure
                ) from error
            latencies[name] = (time.perf_counter() - started) * 1e3
        return made, latencies

    def _products(
        self, variant: Variant, made: Mapping[str, Any], found: Mapping[str, Any], latencies: Mapping[str, float]
    ) -> dict[str, Any]:
        """Write what a variant made, and return its records as the field of a variant's."""
        records = [
            self.system.product.record(Made(
                variant=variant.name, name=name, case=self.inputs[name], actual=actual, expected=self.expected[name],
                metrics=found.get(name, {}), latency_ms=latencies[name], folder=self.folder,
                title=f"{self.system.weights} weights",
            ))
            for name, actual in made.items()
        ]  # fmt: skip
        return {self.system.product.kind: tuple(records)}

    def _figures(self, actual: Any, expected: Any) -> dict[str, float | None]:
        """Return every metric of one case, None where it was not judged; why is a note of the study."""
        found: dict[str, float | None] = {}
        for metric in self.system.metrics:
            try:
                with collect_remarks() as remarks:
                    value = float(metric.function(actual, expected))
                found[metric.name] = value if math.isnan(value) else min(value, metric.largest)
                self.notes += [Sentence("of", name=metric.name, reason=remark) for remark in remarks]
            except NotJudged as error:
                found[metric.name] = None
                self.unjudged[metric.name] = str(error)
                self.notes.append(Sentence("was_not_judged_since", name=metric.name, error=error))
            except ParityError as error:  # of what this variant made: another shape, say
                raise EngineFailed(Sentence("of", name=metric.name, reason=error)) from error
        return found

    def _summary(self, found: Mapping[str, Mapping[str, float | None]]) -> tuple[MetricResult, ...]:
        """Return the mean of every metric over the cases, and the worst where it has a limit."""
        results = []
        for metric in self.system.metrics:
            values = [value for row in found.values() if (value := row[metric.name]) is not None]
            why, kind = self.unjudged.get(metric.name, ""), self.system.product.kind
            mean = statistics.fmean(values) if values else None
            if metric.limit is None:
                results.append(_metric(metric, metric.name, mean, why, kind))
                continue
            lower = metric.better == "lower"
            worst = mean if mean is None or math.isnan(mean) else max(values) if lower else min(values)
            for name, value in (("mean", mean), ("max" if lower else "min", worst)):
                results.append(_metric(metric, f"{metric.name} {name}", value, why, kind))
        return tuple(results)

    def _step_errors(self, variant: Variant, pipeline: Pipeline) -> tuple[tuple[StepError, ...], list[str]]:
        """Return the error after every step on the first case, against the reference with as many steps."""
        case = next(iter(self.inputs.values()))
        if variant.steps not in self.trajectories:
            same = dataclasses.replace(self.reference, steps=variant.steps)
            again = self._pipeline(self.reference_networks, same)
            self.trajectories[variant.steps] = self._trajectory(again, case)
        expected = self.trajectories[variant.steps]
        if not expected:
            return (), []
        free, forced = self._trajectory(pipeline, case), self._trajectory(pipeline, case, expected)
        errors = tuple(
            StepError(
                step=number, timestep=right.number, free=relative_l2(alone.value, right.value),
                forced=relative_l2(led.value, right.value),
            )
            for number, (right, alone, led) in enumerate(zip(expected, free, forced, strict=False))
        )  # fmt: skip
        notes: list[str] = []
        if len(free) != len(expected):
            notes.append(Sentence("steps_count", count=len(free), count_2=len(expected)))
        if variant.steps != self.reference.steps:
            notes.append(Sentence("steps_against", steps=variant.steps))
        return errors, notes

    def _stages(self, pipeline: Pipeline) -> dict[str, float]:
        """Return mean times per stage, from runs of their own that wait for the GPU between stages."""
        case = next(iter(self.inputs.values()))
        pipeline.stages_ms = {}
        for _ in range(STAGE_RUNS):
            self._make(pipeline, case)
        stages = {name: total / STAGE_RUNS for name, total in pipeline.stages_ms.items()}
        pipeline.stages_ms = None
        return stages


def _runs_words(same: bool, kind: str) -> str:
    return Sentence("same_two_runs", kind=_KINDS[kind]) if same else Sentence("different_two_runs", kind=_KINDS[kind])


def _metric(metric: CaseMetric, name: str, value: float | None, why: str, kind: str) -> MetricResult:
    """Return a metric over the cases with its verdict; None is one that was not judged, for the reason ``why``.

    A figure without a limit is shown and not judged; NaN fails, with a limit or without.
    """
    lower = metric.better == "lower"
    verdict: Verdict = "not_judged"
    if value is None:
        reason = why
    else:
        limit = NO_LIMIT
        if metric.limit is not None:
            most = Sentence("allowed_at_most", limit=metric.limit)
            limit = most if lower else Sentence("allowed_at_least", limit=metric.limit)
        reason = Sentence("value_over", value=value, kind=_KINDS[kind], limit=limit)
        within = metric.limit is None or (value <= metric.limit if lower else value >= metric.limit)
        verdict = "fail" if math.isnan(value) or not within else "not_judged" if metric.limit is None else "pass"
    return MetricResult(
        name=name, verdict=verdict, reason=reason, actual=math.nan if value is None else value, expected=math.nan,
        allowed=math.inf if metric.limit is None else metric.limit, bound="at_most" if lower else "at_least",
        direction=metric.better,
    )  # fmt: skip
