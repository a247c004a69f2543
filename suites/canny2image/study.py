"""The system whose variants ``parity study suites/canny2image`` tries (docs/canny2image.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from harness import MetricResult, Subject, systems
from harness.hackathon import RULES, Rules
from harness.metrics.image import psnr, ssim
from harness.metrics.lpips import lpips
from harness.metrics.perceptual_distance import perceptual_distance
from harness.records import Verdict
from harness.systems import CaseMetric, Network, Pictures, of_pictures
from suites.canny2image import models, sampler
from suites.canny2image.pictures import Pixels, canny, fit, load
from suites.canny2image.pipeline import CONTEST, Pipeline
from suites.canny2image.sizes import Size, asked_size, checkpoint
from suites.canny2image.tokens import STAND_IN
from suites.canny2image.variants import REFERENCE, VARIANTS, Variant

METRICS = {"pd": perceptual_distance, "lpips": lpips, "psnr": psnr, "ssim": ssim}
PSNR_MOST = 103.0
"""dB: identical pictures count as this, more than one grey level in one of 256 x 384 x 3 values gives."""
RANDOM = "random weights: the pictures show no scene; their distances are the engines' errors"


class Canny2Image(systems.System):
    """Stable Diffusion 1.5 with ControlNet, judged by the contest's rules."""

    name, inputs, reference = "canny2image", "real", REFERENCE

    def __init__(
        self, size: Size | None = None, *, variants: Sequence[Variant] = VARIANTS, rules: Rules = RULES
    ) -> None:
        self.size, self.variants, self.rules = size or asked_size(), variants, rules
        self.weights, self.weights_source = models.weights_words().values()
        small = [] if self.size.name == "full" else [f"size {self.size.name}: not Stable Diffusion 1.5"]
        self.notes = [*small, *([RANDOM, STAND_IN] if checkpoint() is None else [])]
        self.score_rule = rules.words
        self.product = Pictures(panels=self._panels, prompt=CONTEST.prompt, seed=CONTEST.seed)
        self.metrics = [
            CaseMetric(
                name=name, function=of_pictures(METRICS[name]), better="lower" if name in ("pd", "lpips") else "higher",
                limit=rules.pd_limit if name == "pd" else None, largest=PSNR_MOST if name == "psnr" else float("inf"),
            )
            for name in METRICS
        ]  # fmt: skip

    def networks(self, variant: Variant) -> Sequence[str]:
        """Return the engines that a variant has."""
        return variant.networks()

    def subject(self, network: str, variant: Variant) -> Subject:
        """Return one network for one prompt or both."""
        batch = 1 if variant.batch == "1 twice" or network not in models.BATCHED else 2
        return models.subject(network, size=self.size, batch=batch)

    def cases(self, count: int) -> Mapping[str, Pixels]:
        """Return photographs."""
        return load(count, self.size)

    def pipeline(self, networks: Mapping[str, Network], variant: Variant, device: torch.device) -> Pipeline:
        """Return the pipeline on these networks."""
        return Pipeline(networks, variant, self.size, device)

    def check(self, variant: Variant) -> None:
        """Raise UsageError for a number of steps that cannot be sampled."""
        sampler.schedule(variant.steps, compute_steps=variant.compute_steps)

    def judge(
        self, metrics: Sequence[MetricResult], values: Mapping[str, Sequence[float | None]], latency_ms: float
    ) -> tuple[Verdict, str, float | None]:
        """Return verdict and score by the contest's rules."""
        distances = [value for value in values["pd"] if value is not None]
        complete = len(distances) == len(values["pd"])
        verdict, reason, score = self.rules.judge(distances if complete else (), latency_ms)
        if verdict == "not_judged" and not complete:
            reason = f"PD was not judged: {metrics[0].reason}"
        return verdict, reason, score

    def _panels(self, image: Pixels) -> Mapping[str, Pixels]:
        fitted = fit(image, min(self.size.height, self.size.width))
        return {"input": image, "edges": canny(fitted, CONTEST.low_threshold, CONTEST.high_threshold)}


SYSTEM = Canny2Image
