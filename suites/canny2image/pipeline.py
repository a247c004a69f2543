"""The pipeline: picture and prompts in, picture out. Reference and variants are this code on different networks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness import NotJudged, UsageError
from harness.errors import EngineRefused, ParityError, first_line
from harness.hackathon import PARAMETERS
from harness.pytorch import tf32_allowed
from suites.canny2image import pictures, sampler
from suites.canny2image.models import control_shapes
from suites.canny2image.modules import scaled
from suites.canny2image.networks import Network, check_finite
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


class Pipeline:
    """The networks of one variant, and the CUDA graphs captured of them."""

    def __init__(self, networks: Mapping[str, Network], variant: Variant, size: Size, device: torch.device) -> None:
        if variant.cuda_graph and device.type != "cuda":
            raise NotJudged(f"variant {variant.name} replays CUDA graphs, and there is no GPU here")
        self.networks, self.variant, self.size, self.device = networks, variant, size, device
        self.stages_ms: dict[str, float] | None = None
        """Where to add each stage's time; None (the default) leaves the GPU's queue alone."""
        self._batches = [slice(0, 2)] if variant.batch == "2 once" else [slice(0, 1), slice(1, 2)]
        """Which of the two prompts go through a network together."""
        self._graphs: dict[Hashable, _Graph] = {}
        self._where = ""
        self._checked = False

    def process(self, input_image: Pixels, *arguments: Any) -> list[Pixels]:
        """Return ``num_samples`` pictures, uint8 [height, width, 3], as the contest asks for them.

        ``arguments`` are the contest's, in the order of ``harness.hackathon.PARAMETERS``. Raises ValueError for another
        number of them.
        """
        return self.generate(input_image, Request(**dict(zip(PARAMETERS, arguments, strict=True))))

    @torch.inference_mode()
    def generate(self, image: Pixels, request: Request) -> list[Pixels]:
        """Return the pictures of a request. Raises EngineFailed when the decoder's picture is not finite."""
        with tf32_allowed(False):
            with self._stage("host"):
                wanted = self.conditions(image, request)
            with self._stage("text encoder"):
                context, hint = self._condition(wanted)
            made = []
            for number in range(len(wanted.starts)):
                with self._stage("controlnet and unet"):
                    latents = self._denoise(wanted, context, hint, number)
                with self._stage("vae decoder"):
                    made.append(self._decode(latents))
            with self._stage("host"):
                return [_pixels(picture) for picture in made]

    @torch.inference_mode()
    def trajectory(
        self, image: Pixels, request: Request, *, forced: Sequence[torch.Tensor] | None = None, checked: bool = False
    ) -> list[torch.Tensor]:
        """Return the start and the latents after every step, without CUDA graphs.

        ``forced`` is a trajectory whose latents each step starts from. With ``checked`` every network's outputs are
        checked, the decoder's too, and EngineFailed names the first that is not finite.
        """
        self._checked, self._where = checked, ""
        try:
            with tf32_allowed(False):
                wanted = self.conditions(image, request)
                context, hint = self._encode(wanted.tokens, wanted.edges)
                seen = [wanted.starts[:1]]
                last = self._sample(wanted, context, hint, 0, seen=lambda x: seen.append(x.clone()), forced=forced)
                if checked:
                    self._where = ""
                    self._call("vae-decoder", {"latents": last})
        finally:
            self._checked = False
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
        context, hint = self._replay("condition", self._encode, tensors)
        return context, hint

    def _encode(self, tokens: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        contexts = [self._call("text-encoder", {"input_ids": tokens[part]})["context"] for part in self._batches]
        hint = self._call("hint", {"edges": edges})["hint"]
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
        latents: torch.Tensor = self._replay(key, denoise, {"start": start, **tensors})[0]
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
        self._where = f"at time step {int(inputs['timestep'][0])}" if self._checked else ""
        if self.variant.combined:
            return self._call("combined", {**inputs, "hint": hint, "scales": scales.contiguous()})["noise"]
        controls = self._call("controlnet", {**inputs, "hint": hint})
        if is_scaled:
            controls = scaled(controls, scales)
        return self._call("unet", {**inputs, **controls})["noise"]

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        outputs = self._replay("decode", lambda **inputs: self._call("vae-decoder", inputs), {"latents": latents})
        picture: torch.Tensor = outputs["picture"].clone()  # a graph writes the next one into the same memory
        return picture

    def _call(self, network: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = self.networks[network](inputs)
        if self._checked:
            check_finite(network, inputs, outputs, where=self._where)
        return outputs

    def _replay(self, key: Hashable, function: Callable[..., Any], tensors: dict[str, torch.Tensor]) -> Any:
        if not self.variant.cuda_graph:
            return function(**tensors)
        if key not in self._graphs:
            self._graphs[key] = _Graph(function, tensors)
        return self._graphs[key](tensors)

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        if self.stages_ms is None:
            yield
            return
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class _Graph:
    """A CUDA graph of a function of tensors; inputs are copied in, outputs stay where they are."""

    def __init__(self, function: Callable[..., Any], tensors: Mapping[str, torch.Tensor]) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in tensors.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is made at a first run (kernels, workspaces) cannot be captured
            for _ in range(2):
                function(**self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.outputs = function(**self.inputs)
        except (ParityError, RuntimeError) as error:  # it ran before, so what is wrong is the capture
            raise EngineRefused(f"no CUDA graph can be captured: {first_line(error)}") from error

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        for name, tensor in tensors.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        return self.outputs


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
