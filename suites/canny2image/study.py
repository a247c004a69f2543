"""The study of the pipeline's variants: ``parity study suites/canny2image`` calls ``run`` (docs/canny2image.md)."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness import EngineFailed, MetricResult, NotJudged, Settings
from harness.compare import relative_l2
from harness.errors import first_line
from harness.files import file_name
from harness.hackathon import RULES, Rules, mean_latency
from harness.metrics import collect_remarks
from harness.metrics.image import psnr, ssim
from harness.metrics.lpips import lpips
from harness.metrics.perceptual_distance import perceptual_distance
from harness.records import Picture, StepError, StudyResult, VariantResult, Verdict
from harness.report.plots import amplified, save_picture, save_sheet
from suites.canny2image import sampler
from suites.canny2image.models import weights_words
from suites.canny2image.networks import Networks
from suites.canny2image.pictures import Pixels, canny, fit, load
from suites.canny2image.pipeline import CONTEST, Pipeline, Request
from suites.canny2image.sizes import Size, asked_size, checkpoint
from suites.canny2image.tokens import STAND_IN
from suites.canny2image.variants import REFERENCE, VARIANTS, Variant, choose

METRICS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "pd": perceptual_distance,
    "lpips": lpips,
    "psnr": psnr,
    "ssim": ssim,
}
STAGE_RUNS = 3
PSNR_MOST = 103.0
"""dB: identical pictures count as this, more than one grey level in one of 256 x 384 x 3 values gives."""
RANDOM = "random weights: the pictures show no scene; their distances are the engines' errors"


@dataclass(kw_only=True)
class _Shared:
    """What all variants of a study share."""

    networks: Networks
    size: Size
    backend: str
    folder: Path
    rules: Rules
    steps: int | None
    inputs: Mapping[str, Pixels]
    request: Request
    reference: Pipeline
    expected: dict[str, Pixels] = field(default_factory=dict)
    """The reference's pictures, once it has run."""
    panels: dict[str, dict[str, Pixels]] = field(default_factory=dict)
    """By picture: what is shown of it with every variant, once the reference has run."""
    reference_ms: float | None = None
    notes: list[str] = field(default_factory=list)
    unjudged: dict[str, str] = field(default_factory=dict)
    """Why a metric was not judged and what to do, by its name."""
    trajectories: dict[int, list[torch.Tensor]] = field(default_factory=dict)

    def file(self, folder: str, *names: str) -> Path:
        return self.folder / file_name(folder) / f"{file_name(*names)}.png"

    def named(self, path: Path) -> str:
        """Return a file's name as the JSON has it: relative to the folder's parent, where the JSON lies."""
        return path.relative_to(self.folder.parent).as_posix()

    def trajectory(self, steps: int) -> list[torch.Tensor]:
        """Return the reference's latents on the first picture with so many steps, all computed."""
        if steps not in self.trajectories:
            request = dataclasses.replace(self.request, ddim_steps=steps)
            self.trajectories[steps] = self.reference.trajectory(next(iter(self.inputs.values())), request)
        return self.trajectories[steps]


def variants() -> list[str]:
    """Return the names that ``run`` knows."""
    return [variant.name for variant in VARIANTS]


def run(
    *,
    variants: Sequence[str],
    pictures: int,
    steps: int | None,
    backend: str,
    settings: Settings,
    folder: Path,
    rules: Rules = RULES,
    known: Sequence[Variant] = VARIANTS,
    networks: Networks | None = None,
) -> Iterator[StudyResult]:
    """Yield the study after the reference and after every variant, each time with all that is known.

    ``steps`` takes the place of 20 in the reference and in every variant that leaves them at 20 and computes them all.
    Pictures are written to ``folder`` and named relative to its parent. ``networks`` are those of an earlier study, to
    make nothing twice. What is wrong with one variant is that variant's verdict. Raises UsageError for what is not
    known, NotJudged when the reference itself cannot be had.
    """
    chosen, size = choose(variants, known), asked_size()
    networks = networks or Networks(size, settings)
    reference = _with_steps(REFERENCE, steps)
    sampler.schedule(reference.steps)  # a number that cannot be sampled is refused before any network is made
    inputs = load(pictures, size)
    request = dataclasses.replace(CONTEST, image_resolution=min(size.height, size.width), ddim_steps=reference.steps)
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(networks.open(reference, "torch"))
            shared = _Shared(
                networks=networks, size=size, backend=backend, folder=folder, rules=rules, steps=steps, inputs=inputs,
                request=request, reference=Pipeline(opened, reference, size, networks.device),
            )  # fmt: skip
            settings.progress(f"canny2image: the reference, PyTorch FP32 on {networks.device.type}")
            results = [_reference(shared, reference)]
        except (EngineFailed, torch.cuda.OutOfMemoryError) as error:
            raise NotJudged(f"the reference, PyTorch FP32, cannot be had: {first_line(error)}") from error
        yield _study(shared, results)
        for variant in chosen:
            settings.progress(f"canny2image: variant {variant.name}")
            results.append(_variant(shared, _with_steps(variant, steps)))
            settings.progress(f"canny2image: variant {variant.name}: {results[-1].verdict.replace('_', ' ')}")
            yield _study(shared, results)


def _with_steps(variant: Variant, steps: int | None) -> Variant:
    own = variant.steps != REFERENCE.steps or variant.compute_steps is not None
    return variant if steps is None or own else dataclasses.replace(variant, steps=steps)


def _study(shared: _Shared, results: Sequence[VariantResult]) -> StudyResult:
    words = weights_words()
    notes = [RANDOM, STAND_IN] if checkpoint() is None else []
    small = [] if shared.size.name == "full" else [f"size {shared.size.name}: not Stable Diffusion 1.5"]
    return StudyResult(
        name="canny2image", weights=words["weights"], weights_source=words["weights_source"], inputs="real",
        device=torch.cuda.get_device_name() if shared.networks.device.type == "cuda" else "CPU",
        score_rule=shared.rules.words, variants=tuple(results), notes=(*small, *notes, *dict.fromkeys(shared.notes)),
    )  # fmt: skip


def _reference(shared: _Shared, variant: Variant) -> VariantResult:
    """Make the pictures that all variants are held against; twice, so that its own noise is known."""
    first, _ = _generate(shared, shared.reference, shared.request)
    shared.expected, latencies = _generate(shared, shared.reference, shared.request)
    apart = max(int(amplified(first[name], shared.expected[name])[0].max()) for name in first)
    shared.reference_ms = mean_latency(list(latencies.values()))
    words = "different pictures" if apart else "the same pictures"
    _keep_panels(shared)
    found = [_picture(shared, variant, name, latencies[name], shared.expected[name], {}) for name in shared.inputs]
    return VariantResult(
        name=variant.name, settings=variant.to_json(), verdict="not_judged",
        reason="the reference: every variant is held against it", latency_ms=shared.reference_ms, speed_up=1.0,
        pictures=tuple(found), stages_ms=_stages(shared, shared.reference, shared.request),
        notes=(f"two runs of the reference gave {words}",),
    )  # fmt: skip


def _variant(shared: _Shared, variant: Variant) -> VariantResult:
    """Return the result of one variant; an error of its own is its verdict, and the study goes on."""
    settings = {**variant.to_json(), "backend": variant.backend or shared.backend}
    bare = VariantResult(name=variant.name, settings=settings, verdict="not_judged", reason="")
    try:
        with shared.networks.open(variant, shared.backend) as opened:
            pipeline = Pipeline(opened, variant, shared.size, shared.networks.device)
            return _measure(shared, variant, pipeline, bare)
    except EngineFailed as error:
        return dataclasses.replace(bare, verdict="fail", reason=str(error))
    except torch.cuda.OutOfMemoryError as error:
        return dataclasses.replace(bare, reason=f"out of GPU memory: {first_line(error)}")
    except NotJudged as error:
        return dataclasses.replace(bare, reason=str(error))
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _measure(shared: _Shared, variant: Variant, pipeline: Pipeline, bare: VariantResult) -> VariantResult:
    request = dataclasses.replace(shared.request, ddim_steps=variant.steps)
    _made(pipeline, *next(iter(shared.inputs.items())), request)  # kernels and graphs are made before the clock runs
    made, latencies = _generate(shared, pipeline, request)
    judged = {name: _metrics(shared, made[name], shared.expected[name]) for name in made}
    latency_ms = mean_latency(list(latencies.values()))
    distances = [found["pd"] for found in judged.values() if found["pd"] is not None]
    complete = len(distances) == len(judged)
    verdict, reason, score = shared.rules.judge(distances if complete else (), latency_ms)
    if verdict == "not_judged" and not complete:
        reason = f"PD was not judged: {shared.unjudged['pd']}"
    steps, notes = _step_errors(shared, pipeline, request)
    return dataclasses.replace(
        bare, verdict=verdict, reason=reason, latency_ms=latency_ms, score=score,
        speed_up=shared.reference_ms / latency_ms if shared.reference_ms and latency_ms else None,
        metrics=_summary(judged, shared.rules, shared.unjudged),
        pictures=tuple(_picture(shared, variant, name, latencies[name], made[name], judged[name]) for name in made),
        steps=steps, stages_ms=_stages(shared, pipeline, request), notes=notes,
    )  # fmt: skip


def _generate(shared: _Shared, pipeline: Pipeline, request: Request) -> tuple[dict[str, Pixels], dict[str, float]]:
    """Return pictures and latencies: wall clock around the whole of it, as the contest takes it."""
    made, latencies = {}, {}
    for name, image in shared.inputs.items():
        started = time.perf_counter()
        made[name] = _made(pipeline, name, image, request)
        latencies[name] = (time.perf_counter() - started) * 1e3
    return made, latencies


def _made(pipeline: Pipeline, name: str, image: Pixels, request: Request) -> Pixels:
    """Return one picture. Raises EngineFailed, which names the picture and the network, when it is not finite."""
    try:
        return pipeline.generate(image, request)[0]
    except EngineFailed as error:
        raise EngineFailed(f"{name}: {_where_not_finite(pipeline, image, request, error)}") from error


def _where_not_finite(pipeline: Pipeline, image: Pixels, request: Request, error: EngineFailed) -> str:
    """Return the sentence that names the first network whose output is not finite."""
    try:
        pipeline.trajectory(image, request, checked=True)
    except EngineFailed as found:
        return str(found)
    return f"{error}; run step by step, every output of every network is finite: observing changes the result"


def _metrics(shared: _Shared, actual: Pixels, expected: Pixels) -> dict[str, float | None]:
    """Return every metric of one picture, None where it was not judged; why is a note of the study."""
    left, right = (torch.from_numpy(pixels).permute(2, 0, 1) for pixels in (actual, expected))
    found: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        try:
            with collect_remarks() as remarks:
                value = float(metric(left, right))
            found[name] = min(value, PSNR_MOST) if name == "psnr" else value
            shared.notes += [f"{name}: {remark}" for remark in remarks]
        except NotJudged as error:
            found[name] = None
            shared.unjudged[name] = str(error)
            shared.notes.append(f"{name} was not judged: {error}")
    return found


def _summary(
    judged: Mapping[str, Mapping[str, float | None]], rules: Rules, unjudged: Mapping[str, str]
) -> tuple[MetricResult, ...]:
    """Return the mean of every metric, and the worst PD; PD has a limit, the others are shown."""
    results = []
    for name in METRICS:
        found = [value for row in judged.values() if (value := row[name]) is not None]
        allowed = rules.pd_limit if name == "pd" else math.inf
        figures = {"pd mean": statistics.fmean, "pd max": max} if name == "pd" else {name: statistics.fmean}
        for what, figure in figures.items():
            results.append(_metric(what, figure(found) if found else None, allowed, unjudged.get(name, "")))
    return tuple(results)


def _metric(name: str, value: float | None, allowed: float, why: str) -> MetricResult:
    """Return a metric over the pictures with its verdict; None is one that was not judged, for the reason ``why``.

    A figure without a limit is shown and not judged; NaN fails, with a limit or without.
    """
    best = {"psnr": math.inf, "ssim": 1.0}.get(name, 0.0)
    if value is None:
        return MetricResult(
            name=name, verdict="not_judged", reason=why, actual=math.nan, expected=best, allowed=allowed
        )
    limit = "no limit is set" if math.isinf(allowed) else f"allowed {allowed:g}"
    within: Verdict = "not_judged" if math.isinf(allowed) else "pass"
    return MetricResult(
        name=name, verdict=within if abs(value) <= allowed else "fail",
        reason=f"{value:.4g} over the pictures, {limit}", actual=value, expected=best, allowed=allowed,
    )  # fmt: skip


def _step_errors(
    shared: _Shared, pipeline: Pipeline, request: Request
) -> tuple[tuple[StepError, ...], tuple[str, ...]]:
    """Return the error after every step on the first picture, against the reference with as many steps."""
    image = next(iter(shared.inputs.values()))
    expected = shared.trajectory(request.ddim_steps)
    free = pipeline.trajectory(image, request)
    forced = pipeline.trajectory(image, request, forced=expected)
    errors = tuple(
        StepError(
            step=number, timestep=step.timestep,
            free=relative_l2(free[number + 1], expected[number + 1]),
            forced=relative_l2(forced[number + 1], expected[number + 1]),
        )
        for number, step in enumerate(sampler.schedule(request.ddim_steps))
    )  # fmt: skip
    if request.ddim_steps == shared.request.ddim_steps:
        return errors, ()
    return errors, (f"error over steps: against the reference with {request.ddim_steps} steps",)


def _stages(shared: _Shared, pipeline: Pipeline, request: Request) -> dict[str, float]:
    """Return mean times per stage, from runs of their own that wait for the GPU between stages."""
    image = next(iter(shared.inputs.values()))
    pipeline.stages_ms = {}
    for _ in range(STAGE_RUNS):
        pipeline.generate(image, request)
    stages = {name: total / STAGE_RUNS for name, total in pipeline.stages_ms.items()}
    pipeline.stages_ms = None
    return stages


def _keep_panels(shared: _Shared) -> None:
    """Write what every variant shows of a picture, the input, its edges and the reference's, and keep it for sheets."""
    request = shared.request
    for name, source in shared.inputs.items():
        edges = canny(fit(source, request.image_resolution), request.low_threshold, request.high_threshold)
        shared.panels[name] = {"input": source, "edges": edges, "reference": shared.expected[name]}
        for what, pixels in shared.panels[name].items():
            save_picture(pixels, shared.file("all", name, what))


def _picture(
    shared: _Shared,
    variant: Variant,
    name: str,
    latency_ms: float,
    made: Pixels,
    metrics: Mapping[str, float | None],
) -> Picture:
    """Write a picture and its sheet, and return what is known of it."""
    difference, factor = amplified(made, shared.expected[name])
    files = {what: shared.file("all", name, what) for what in shared.panels[name]}
    for what, pixels in (("engine", made), ("difference", difference)):
        files[what] = shared.file(variant.name, name, what)
        save_picture(pixels, files[what])
    files["sheet"] = shared.file(variant.name, name, "sheet")
    panels = {**shared.panels[name], "engine": made, f"difference x {factor}": difference}
    weights = "random weights" if checkpoint() is None else "trained weights"
    save_sheet(panels, files["sheet"], title=f"{variant.name}: {name} ({weights})")
    return Picture(
        case=name, prompt=shared.request.prompt, seed=shared.request.seed, metrics=dict(metrics),
        latency_ms=latency_ms, files={what: shared.named(path) for what, path in files.items()},
    )  # fmt: skip
