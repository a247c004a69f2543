"""Variants of the pipeline, as data: what a study tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness import systems

ENGINES = ("text-encoder", "hint", "controlnet", "unet", "vae-decoder")
"""The networks that the pipeline runs; ``combined`` stands for ControlNet and UNet where they are one."""
CONTEST_STEPS = (19, 18, 17, 16, 15, 14, 13, 11, 8, 4)
"""Ten of twenty steps that contestants computed: close together at the start, where the picture takes shape."""


@dataclass(frozen=True, kw_only=True)
class Variant(systems.Variant):
    """One way to run the pipeline; ``precisions`` are by engine (see ``ENGINES``, and ``combined``)."""

    batch: Literal["1 twice", "2 once"] = "2 once"
    """How the two prompts go through text encoder, ControlNet and UNet."""
    combined: bool = False
    """ControlNet and UNet as one engine."""
    steps: int = 20
    compute_steps: tuple[int, ...] | None = None
    """The steps that run the networks, counted down from ``steps - 1``; the others reuse the last noise."""

    def networks(self) -> tuple[str, ...]:
        """Return the networks it runs."""
        if not self.combined:
            return ENGINES
        return "text-encoder", "hint", "combined", "vae-decoder"

    @property
    def keeps_steps(self) -> bool:
        """Whether it names the steps that it computes."""
        return self.compute_steps is not None


REFERENCE = Variant(name="pytorch-fp32", backend="torch", precision="fp32")
"""PyTorch FP32 with TF32 off: what every variant is held against, and the first of every study."""
VARIANTS: tuple[Variant, ...] = (
    Variant(name="pytorch-fp16", backend="torch"),
    Variant(name="fp32", precision="fp32"),
    Variant(name="tf32", precision="tf32"),
    Variant(name="fp16"),
    Variant(name="fp16-unet-tf32", precisions={"unet": "tf32", "combined": "tf32"}),
    Variant(name="fp16-unet-tf32-graph", precisions={"unet": "tf32", "combined": "tf32"}, cuda_graph=True),
    Variant(name="fp16-unet-tf32-batch1", precisions={"unet": "tf32"}, batch="1 twice"),
    Variant(name="fp16-combined", combined=True, cuda_graph=True),
    Variant(name="tf32-combined", precision="fp16", precisions={"combined": "tf32"}, combined=True, cuda_graph=True),
    Variant(name="bf16", precision="bf16"),
    Variant(name="steps-10", precisions={"unet": "tf32"}, cuda_graph=True, steps=10),
    Variant(name="compute-10-of-20", precisions={"unet": "tf32"}, cuda_graph=True, compute_steps=CONTEST_STEPS),
    Variant(name="pytorch-fp16-graph", backend="torch", cuda_graph=True),
)
