"""Text to picture as one system: the text's embedding, a sampler of DPM-Solver steps, the decoder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness import EngineFailed, UsageError, systems
from harness.metrics.image import psnr, ssim
from harness.systems import CaseMetric, Pictures, Step, Variant, of_pictures
from suites.shared import SEED
from suites.unidiffuser import models

GUIDANCE, STEPS, MOST_TIME = 8.0, 50, 1000


def scheduler(steps: int) -> Any:
    """Return the sampler of UniDiffuser, ready for so many steps."""
    from diffusers import DPMSolverMultistepScheduler

    made = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=3
    )  # fmt: skip
    made.set_timesteps(steps)
    return made


class Pipeline(systems.Pipeline):
    """A prompt to a picture. Latents and the picture's embedding are sampled together, as one row."""

    def make(self, case: torch.Tensor) -> Any:
        """Return the picture, uint8 [height, width, 3]."""
        with self.stage("text"):
            text = self._text(case)
        with self.stage("u-vit"):
            row = self._sample(text)[-1].value
        self.where = ""
        with self.stage("decoder"):
            found = self.call("decoder", {"latents": self._split(row)[0]})["picture"][0]
        if not bool(found.isfinite().all()):
            raise EngineFailed("the finished picture is not finite")
        return (found.permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255).to(torch.uint8).cpu().numpy()

    def trajectory(self, case: torch.Tensor, *, forced: Sequence[Step] | None = None) -> list[Step]:
        """Return latents and embedding after every step; the sampler remembers earlier steps, so it is the state."""
        return self._sample(self._text(case), forced)

    def _text(self, case: torch.Tensor) -> torch.Tensor:
        return self.call("text", {"input_ids": case.to(self.device)})["text"]

    def _sample(self, text: torch.Tensor, forced: Sequence[Step] | None = None) -> list[Step]:
        side, width = models.LATENTS[models.size()], models.CLIP[models.size()]
        row, sampler = models.noise(1, 4 * side**2 + width, seed=SEED).to(self.device), scheduler(self.variant.steps)
        taken: list[Step] = []
        for place, time in enumerate(sampler.timesteps.tolist()):
            self.where = f"at time step {time}"
            row = sampler.step(self._noise(row, text, time, place), time, row, return_dict=False)[0]
            taken.append(Step(number=time, value=row, state=copy.deepcopy(sampler)))
            if forced is not None:
                row, sampler = forced[place].value, copy.deepcopy(forced[place].state)
        return taken

    def _noise(self, row: torch.Tensor, text: torch.Tensor, time: int, place: int) -> torch.Tensor:
        """Return the guided noise: with the text, against noise in its place, in one batch."""
        latents, clip = self._split(row)
        empty = models.noise(*text.shape, seed=SEED + 1 + place).to(self.device)
        times = torch.tensor([[time, time], [0, MOST_TIME]], device=self.device)
        found = self.call("uvit", {
            "latents": latents.repeat(2, 1, 1, 1), "clip_image": clip.repeat(2, 1, 1), "text": torch.cat([text, empty]),
            "time_image": times[0], "time_text": times[1],
            "data_type": torch.ones(2, dtype=torch.int32, device=self.device),
        })  # fmt: skip
        both = torch.cat([found["latents_noise"].flatten(1), found["clip_noise"].flatten(1)], 1)
        return GUIDANCE * both[:1] + (1 - GUIDANCE) * both[1:]

    def _split(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        side, width = models.LATENTS[models.size()], models.CLIP[models.size()]
        return row[:, :-width].view(-1, 4, side, side), row[:, -width:].view(-1, 1, width)


class UniDiffuser(systems.System):
    """Text to picture."""

    name, pipeline_type, inputs = "unidiffuser", Pipeline, "random"
    reference = Variant(name="pytorch-fp32", backend="torch", precision="fp32", steps=STEPS)
    variants = (
        Variant(name="pytorch-fp16", backend="torch", steps=STEPS),
        *(Variant(name=name, precision=name, steps=STEPS) for name in ("fp32", "tf32", "fp16", "bf16")),
        Variant(name="fp16-decoder-fp32", precisions={"decoder": "fp32"}, steps=STEPS),
        Variant(name="steps-25", steps=25),
    )
    product = Pictures(prompt="a prompt", seed=SEED)
    metrics = (
        CaseMetric(name="psnr", function=of_pictures(psnr), better="higher", largest=103.0),
        CaseMetric(name="ssim", function=of_pictures(ssim), better="higher"),
    )

    def __init__(self) -> None:
        self.subjects = {kind: models.subject(kind) for kind in models.KINDS}
        self.weights, self.weights_source = models.weights_words(models.CHECKPOINT).values()
        self.notes = ["size small: not UniDiffuser v1"] if models.size() == "small" else []
        if self.weights == "random":
            self.notes += ["random weights: the pictures show no scene", "prompts: random token ids"]

    def cases(self, count: int) -> Mapping[str, torch.Tensor]:
        """Return token ids of prompts."""
        if count > len(models.PROMPTS):
            raise UsageError(f"there are {len(models.PROMPTS)} prompts; ask for no more")
        return {f"prompt-{number}": models.prompt_ids(number) for number in range(count)}


SYSTEM = UniDiffuser
