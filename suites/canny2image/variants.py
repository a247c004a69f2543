"""Variants of the pipeline, as data: what a study tries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.errors import unknown_name

ENGINES = ("text-encoder", "hint", "controlnet", "unet", "vae-decoder")
"""The networks that the pipeline runs; ``combined`` stands for ControlNet and UNet where they are one."""
CONTEST_STEPS = (19, 18, 17, 16, 15, 14, 13, 11, 8, 4)
"""Ten of twenty steps that contestants computed: close together at the start, where the picture takes shape."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run the pipeline."""

    name: str
    precision: str = "fp16"
    """Of every engine that ``precisions`` does not name: a plain precision or the path of a plan."""
    precisions: Mapping[str, str] = field(default_factory=dict)
    """By engine (see ``ENGINES``, and ``combined``)."""
    backend: str = ""
    """Empty for the one the study is asked for; ``torch`` runs the PyTorch modules."""
    batch: Literal["1 twice", "2 once"] = "2 once"
    """How the two prompts go through text encoder, ControlNet and UNet."""
    combined: bool = False
    """ControlNet and UNet as one engine."""
    cuda_graph: bool = False
    """Replay CUDA graphs of the text encoder, of all steps, and of the decoder; only on a GPU."""
    steps: int = 20
    compute_steps: tuple[int, ...] | None = None
    """The steps that run the networks, counted down from ``steps - 1``; the others reuse the last noise."""

    def networks(self) -> tuple[str, ...]:
        """Return the networks it runs."""
        if not self.combined:
            return ENGINES
        return "text-encoder", "hint", "combined", "vae-decoder"

    def precision_of(self, network: str) -> str:
        """Return the precision of one network."""
        return self.precisions.get(network, self.precision)

    def to_json(self) -> dict[str, Any]:
        """Return plain data without the name; ``precisions`` holds the engines whose precision is another, if any."""
        others = {name: own for name in self.networks() if (own := self.precision_of(name)) != self.precision}
        data = {**dataclasses.asdict(self), "name": None, "precisions": others or None}
        return {key: value for key, value in data.items() if value is not None}


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


def choose(names: Sequence[str], known: Sequence[Variant] = VARIANTS) -> tuple[Variant, ...]:
    """Return the variants asked for, in that order, or all. Raises UsageError for one that is not known."""
    by_name = {variant.name: variant for variant in known}
    for name in names:
        if name not in by_name:
            raise unknown_name("variant", name, by_name)
    return tuple(by_name[name] for name in dict.fromkeys(names)) or tuple(known)
