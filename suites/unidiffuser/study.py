"""Text to picture as one system: the text's embedding, a sampler of DPM-Solver steps, the decoder.

A picture passes with 30 dB and an SSIM of 0.95 against PyTorch FP32 of the same prompt and noise: below, it is seen.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness import UsageError, systems
from harness.metrics.image import psnr, ssim
from harness.systems import CaseMetric, Pictures, Step, Variant, of_pictures
from suites.shared import SEED
from suites.unidiffuser import models

GUIDANCE, STEPS, MOST_TIME = 8.0, 50, 1000


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
        return (found.permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255).to(torch.uint8).cpu().numpy()

    def trajectory(self, case: torch.Tensor, *, forced: Sequence[Step] | None = None) -> list[Step]:
        """Return latents and embedding after every step; the sampler remembers earlier steps, so it is the state."""
        return self._sample(self._text(case), forced)

    def _text(self, case: torch.Tensor) -> torch.Tensor:
        return self.call("text", {"input_ids": case.to(self.device)})["text"]

    def _sample(self, text: torch.Tensor, forced: Sequence[Step] | None = None) -> list[Step]:
        from diffusers import DPMSolverMultistepScheduler

        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        (sampler := DPMSolverMultistepScheduler(**betas, solver_order=3)).set_timesteps(self.variant.steps)
        many = 4 * models.LATENTS[models.size()] ** 2 + models.CLIP[models.size()]
        row, taken = models.noise(1, many, seed=SEED).to(self.device), list[Step]()
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
        kind = torch.ones(2, dtype=torch.int32, device=self.device)
        found = self.call("uvit", {
            "latent_image_embeds": latents.repeat(2, 1, 1, 1), "image_embeds": clip.repeat(2, 1, 1), "data_type": kind,
            "prompt_embeds": torch.cat([text, empty]), "timestep_img": times[0], "timestep_text": times[1],
        })  # fmt: skip
        both = torch.cat([found["output_0"].flatten(1), found["output_1"].flatten(1)], 1)
        return GUIDANCE * both[:1] + (1 - GUIDANCE) * both[1:]

    def _split(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latents, clip = row.split([row.shape[1] - models.CLIP[models.size()], models.CLIP[models.size()]], 1)
        return latents.unflatten(1, (4, models.LATENTS[models.size()], -1)), clip[:, None]


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
        CaseMetric(name="psnr", function=of_pictures(psnr), better="higher", largest=103.0, limit=30.0),
        CaseMetric(name="ssim", function=of_pictures(ssim), better="higher", limit=0.95),
    )

    def __init__(self) -> None:
        self.subjects = {kind: models.subject(kind) for kind in models.KINDS}
        self.weights, self.weights_source = models.weights_words(models.CHECKPOINT).values()
        small, random = ["size small: not UniDiffuser v1"], ["random weights and token ids: the pictures show no scene"]
        self.notes = small * (models.size() == "small") + random * (self.weights == "random")

    def cases(self, count: int) -> Mapping[str, torch.Tensor]:
        """Return token ids of prompts."""
        if count > len(models.PROMPTS):
            raise UsageError(f"there are {len(models.PROMPTS)} prompts; ask for no more")
        return {f"prompt-{number}": models.prompt_ids(number) for number in range(count)}


SYSTEM = UniDiffuser
