"""The pipeline: picture and prompts in, picture out. Reference and variants are this code on different networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness import UsageError, systems
from harness.hackathon import PARAMETERS
from harness.systems import Network, Step, check_finite
from suites.canny2image import pictures, sampler
from suites.canny2image.models import control_shapes
from suites.canny2image.modules import scaled
from suites.canny2image.pictures import Pixels
from suites.canny2image.sizes import Size
from suites.canny2image.tokens import tokenize
from suites.canny2image.variants import Variant

GUESS_DECAY = 0.825
"""In guess mode each output of the ControlNet counts for so much of the next, from the middle outwards."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a picture is asked for with: the parameters of the contest's ``process``, under their names."""

    prompt: str
    a_prompt: str
    n_prompt: str
    num_samples: int
    image_resolution: int
    ddim_steps: int
    guess_mode: bool
    strength: float
    scale: float
    seed: int
    eta: float
    low_threshold: int
    high_threshold: int


CONTEST = Request(**PARAMETERS)
"""The contest's public values."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """A request made ready, on the device."""

    tokens: torch.Tensor
    """int64 [2, 77]: the prompt with what is added to it, and the negative prompt."""
    edges: torch.Tensor
    """[1, 3, height, width] in 0..1."""
    starts: torch.Tensor
    """[samples, 4, height / 8, width / 8]."""
    fresh: torch.Tensor | None
    """[steps, samples, ...], the noise that eta asks for."""
    steps: list[sampler.Step]
    scale: float
    scales: torch.Tensor
    """[controls, 2]: what the ControlNet's outputs count, for the prompt and for the negative prompt."""
    is_scaled: bool
    """Whether any of them is not 1."""


class Pipeline(systems.Pipeline):
    """The networks of one variant, and the CUDA graphs captured of them."""

    variant: Variant

    def __init__(self, networks: Mapping[str, Network], variant: Variant, size: Size, device: torch.device) -> None:
        super().__init__(networks, variant, device)
        self.size = size
        self._batches = [slice(0, 2)] if variant.batch == "2 once" else [slice(0, 1), slice(1, 2)]
        """Which of the two prompts go through a network together."""

    @property
    def request(self) -> Request:
        """The contest's, at this size and with the variant's steps."""
        resolution = min(self.size.height, self.size.width)
        return dataclasses.replace(CONTEST, image_resolution=resolution, ddim_steps=self.variant.steps)

    def make(self, case: Pixels) -> Pixels:
        """Return the picture of the contest's request."""
        return self.generate(case, self.request)[0]

    def process(self, input_image: Pixels, *arguments: Any) -> list[Pixels]:
        """Return ``num_samples`` pictures, uint8 [height, width, 3], as the contest asks for them.

        ``arguments`` are the contest's, in the order of ``harness.hackathon.PARAMETERS``. Raises ValueError for another
        number of them.
        """
        return self.generate(input_image, Request(**dict(zip(PARAMETERS, arguments, strict=True))))

    @torch.inference_mode()
    def generate(self, image: Pixels, request: Request) -> list[Pixels]:
        """Return the pictures of a request. Raises EngineFailed when the decoder's picture is not finite."""
        with self.stage("host"):
            wanted = self.conditions(image, request)
        with self.stage("text encoder"):
            context, hint = self._condition(wanted)
        made = []
        for number in range(len(wanted.starts)):
            with self.stage("controlnet and unet"):
                latents = self._denoise(wanted, context, hint, number)
            self.where = ""
            with self.stage("vae decoder"):
                made.append(self._decode(latents))
        with self.stage("host"):
            return [_pixels(picture) for picture in made]

    def trajectory(
        self, case: Pixels, *, forced: Sequence[Step] | None = None, request: Request | None = None
    ) -> list[Step]:
        """Return the latents after every step, without CUDA graphs."""
        wanted = self.conditions(case, request or self.request)
        context, hint = self._encode(wanted.tokens, wanted.edges)
        seen: list[Step] = []

        def look(latents: torch.Tensor) -> None:
            seen.append(Step(number=wanted.steps[len(seen)].timestep, value=latents.clone()))

        starts = None if forced is None else [wanted.starts[:1], *(step.value for step in forced)]
        self._sample(wanted, context, hint, 0, seen=look, forced=starts)
        return seen

    def conditions(self, image: Pixels, request: Request) -> Conditions:
        """Return a request made ready. Raises UsageError for a picture of another size than the engines'."""
        fitted = pictures.fit(image, request.image_resolution)
        if fitted.shape[:2] != (self.size.height, self.size.width):
            wanted = f"{self.size.height}x{self.size.width}"
            raise UsageError(f"the picture becomes {fitted.shape[0]}x{fitted.shape[1]}, and the engines take {wanted}")
        edges = pictures.canny(fitted, request.low_threshold, request.high_threshold)
        computed = self.variant.compute_steps
        steps = sampler.schedule(request.ddim_steps, eta=request.eta, compute_steps=computed)
        shape = (request.num_samples, *self.size.latents)
        starts, fresh = sampler.draw(request.seed, shape, len(steps), request.eta)
        scales = control_scales(request, len(control_shapes(self.size)))
        prompts = [f"{request.prompt}, {request.a_prompt}", request.n_prompt]
        return Conditions(
            tokens=tokenize(prompts, self.size).to(self.device),
            edges=pictures.edges_tensor(edges, self.device),
            starts=starts.to(self.device),
            fresh=None if fresh is None else fresh.to(self.device),
            steps=steps,
            scale=request.scale,
            scales=scales.to(self.device),
            is_scaled=bool((scales != 1).any()),
        )

    def _condition(self, wanted: Conditions) -> tuple[torch.Tensor, torch.Tensor]:
        """Return context and hint: what no step changes."""
        tensors = {"tokens": wanted.tokens, "edges": wanted.edges}
        context, hint = self.replay("condition", self._encode, tensors)
        return context, hint

    def _encode(self, tokens: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        contexts = [self.call("text-encoder", {"input_ids": tokens[part]})["context"] for part in self._batches]
        hint = self.call("hint", {"edges": edges})["hint"]
        return torch.cat(contexts), hint.repeat(len(tokens), 1, 1, 1)

    def _denoise(self, wanted: Conditions, context: torch.Tensor, hint: torch.Tensor, number: int) -> torch.Tensor:
        if wanted.fresh is not None:  # a graph would have to take the fresh noise in too; eta is 0 wherever time counts
            return self._sample(wanted, context, hint, number)

        def denoise(start: torch.Tensor, **tensors: torch.Tensor) -> tuple[torch.Tensor]:
            return (sampler.sample(self._noise(wanted, **tensors), start, wanted.steps),)

        # Whatever is a tensor goes in as one: a graph reads the memory that it was captured with.
        tensors = {"context": context, "hint": hint, "scales": wanted.scales}
        key = ("denoise", len(wanted.steps), wanted.scale, wanted.is_scaled)
        start = wanted.starts[number : number + 1]
        latents: torch.Tensor = self.replay(key, denoise, {"start": start, **tensors})[0]
        return latents

    def _sample(
        self, wanted: Conditions, context: torch.Tensor, hint: torch.Tensor, number: int, **options: Any
    ) -> torch.Tensor:
        fresh = None if wanted.fresh is None else wanted.fresh[:, number : number + 1]
        noise_of = self._noise(wanted, context=context, hint=hint, scales=wanted.scales)
        return sampler.sample(noise_of, wanted.starts[number : number + 1], wanted.steps, fresh=fresh, **options)

    def _noise(
        self, wanted: Conditions, *, context: torch.Tensor, hint: torch.Tensor, scales: torch.Tensor
    ) -> sampler.Noise:
        """Return the function that gives the guided noise."""

        def rows(part: slice, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            count = len(context[part])
            inputs = {
                "sample": latents.repeat(count, 1, 1, 1),
                "timestep": timestep.repeat(count),
                "context": context[part],
            }
            return self._predict(inputs, hint[part], scales[:, part], is_scaled=wanted.is_scaled)

        def noise_of(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            both = torch.cat([rows(part, latents, timestep) for part in self._batches])
            return sampler.guide(both[:1], both[1:], wanted.scale)

        return noise_of

    def _predict(
        self, inputs: dict[str, torch.Tensor], hint: torch.Tensor, scales: torch.Tensor, *, is_scaled: bool
    ) -> torch.Tensor:
        self.where = f"at time step {int(inputs['timestep'][0])}" if self.is_checked else ""  # else it would wait
        if self.variant.combined:
            return self.call("combined", {**inputs, "hint": hint, "scales": scales.contiguous()})["noise"]
        controls = self.call("controlnet", {**inputs, "hint": hint})
        if is_scaled:
            controls = scaled(controls, scales)
        return self.call("unet", {**inputs, **controls})["noise"]

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        outputs = self.replay("decode", lambda **inputs: self.call("vae-decoder", inputs), {"latents": latents})
        picture: torch.Tensor = outputs["picture"].clone()  # a graph writes the next one into the same memory
        return picture


def control_scales(request: Request, count: int) -> torch.Tensor:
    """Return [controls, 2]: in guess mode falling from the middle outwards, and nothing for the negative prompt."""
    if not request.guess_mode:
        return torch.full((count, 2), float(request.strength))
    counts = [request.strength * GUESS_DECAY ** (count - 1 - index) for index in range(count)]
    return torch.tensor([[value, 0.0] for value in counts])


def _pixels(picture: torch.Tensor) -> Pixels:
    """Return a picture [1, 3, h, w] in -1..1 as uint8 [h, w, 3], truncated as the original does."""
    check_finite("vae-decoder", {}, {"picture": picture}, where="of the finished picture")
    values = (picture[0].permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255)
    pixels: Pixels = values.to(torch.uint8).cpu().numpy()
    return pixels
