"""The image encoder and the mask decoder as one system: a picture and three points to three masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from harness import systems
from harness.metrics.vision import mask_iou
from harness.systems import CaseMetric, Pictures, Variant
from suites.sam import models
from suites.shared import photographs

Masks = Mapping[str, torch.Tensor]


class Pipeline(systems.Pipeline):
    """Encodes a picture once, and decodes masks (logits [3, height, width]) and scores [3] for its points."""

    def make(self, case: Any) -> Masks:
        """Return masks and scores on the CPU."""
        with self.stage("image encoder"):
            encoded = self.replay("encode", self._encode, self._here(models.picture(case)))
        with self.stage("mask decoder"):
            found = self.replay("decode", self._decode, {**encoded, **self._here(models.points(3))})
        return {name: tensor[0, 0].cpu() for name, tensor in found.items()}

    def _here(self, tensors: Masks) -> Masks:
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def _encode(self, **inputs: torch.Tensor) -> Masks:
        return self.call("image-encoder", inputs)

    def _decode(self, **inputs: torch.Tensor) -> Masks:
        return self.call("mask-decoder", inputs)


def _drawn(made: Masks) -> Any:
    """Return the three masks as red, green and blue."""
    return ((made["masks"] > 0).permute(1, 2, 0) * 255).to(torch.uint8).numpy()


class Sam(systems.System):
    """Segment Anything."""

    name, inputs, pipeline_type = "sam", "real", Pipeline
    variants = (
        Variant(name="pytorch-fp16", backend="torch"),
        *(Variant(name=precision, precision=precision) for precision in ("fp32", "tf32", "fp16", "bf16")),
        Variant(name="fp16-graph", cuda_graph=True),
        Variant(name="encoder-fp16", precision="fp32", precisions={"image-encoder": "fp16"}),
    )
    product = Pictures(draw=_drawn, panels=lambda case: {"input": case}, prompt="3 points", seed=models.SEED)

    def __init__(self) -> None:
        self.subjects = {name: models.subject(name) for name in ("image-encoder", "mask-decoder")}
        self.weights, self.weights_source = models.weights_words(models.CHECKPOINT).values()
        self.notes = ["random weights: the masks are of nothing"] if self.weights == "random" else []
        self.metrics = (
            CaseMetric(name="mask iou", function=lambda one, other: mask_iou(one["masks"], other["masks"]).mean(),
                       better="higher", limit=models.LEAST_IOU[models.size()]),
            CaseMetric(name="score difference", better="lower", limit=models.SCORE_DIFFERENCE,
                       function=lambda one, other: (one["scores"] - other["scores"]).abs().max()),
        )  # fmt: skip
        self.notes += ["size small: not ViT-H"] if models.size() == "small" else []

    def cases(self, count: int) -> Mapping[str, Any]:
        """Return photographs."""
        return photographs(count, models.SIDES[models.size()])


SYSTEM = Sam
