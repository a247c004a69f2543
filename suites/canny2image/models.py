"""The networks of Stable Diffusion 1.5 with ControlNet (canny) as subjects: sizes, weights, inputs.

Weights: a checkpoint folder in diffusers layout when ``PARITY_CANNY2IMAGE`` names one, else random with a fixed seed.
``PARITY_CANNY2IMAGE_SIZE`` is ``full`` or ``small``; full without being asked for wants a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import NotJudged, Subject, Target, UsageError, targets
from harness.errors import first_line, install_hint, unknown_name
from suites.canny2image.modules import (
    ControlledUNet,
    ControlNet,
    Hint,
    TextEncoder,
    UNet,
    VaeDecoder,
    VaeEncoder,
    control_name,
)

CHECKPOINT, SIZE = "PARITY_CANNY2IMAGE", "PARITY_CANNY2IMAGE_SIZE"
SEED = 0
TOKENS = 77
TARGETS: tuple[Target, ...] = (
    *targets("trt", "rtx", precisions=("fp32", "tf32", "fp16", "bf16")),
    *targets("torch", precisions=("fp16",)),
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """The sizes of all networks."""

    name: str
    height: int = 256
    """Of the picture, in pixels; the latents are an eighth of it."""
    width: int = 384
    vocabulary: int = 49408
    context: int = 768
    """Width of the text encoder, and so of the cross-attention."""
    text_layers: int = 12
    heads: int = 12
    """Attention heads of the text encoder."""
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Of the UNet and the ControlNet, by level."""
    layers: int = 2
    """Residual blocks per level."""
    unet_heads: int = 8
    groups: int = 32
    hint_channels: tuple[int, ...] = (16, 32, 96, 256)
    """Of the network that embeds the edges."""
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    vae_layers: int = 2

    @property
    def latents(self) -> tuple[int, int, int]:
        """Shape of one picture's latents."""
        return 4, self.height // 8, self.width // 8

    @property
    def levels(self) -> dict[str, Any]:
        """What the UNet and the ControlNet have in common, as diffusers names it."""
        down = ["CrossAttnDownBlock2D"] * (len(self.channels) - 1) + ["DownBlock2D"]
        return {
            "block_out_channels": self.channels,
            "down_block_types": tuple(down),
            "layers_per_block": self.layers,
            "cross_attention_dim": self.context,
            "attention_head_dim": self.unet_heads,
            "norm_num_groups": self.groups,
        }


FULL = Size(name="full")
"""Stable Diffusion 1.5."""
SMALL = Size(
    name="small", height=64, width=64, vocabulary=1000, context=32, text_layers=2, heads=2, channels=(16, 32), layers=1,
    unet_heads=2, groups=8, hint_channels=(4, 4, 8, 8), vae_channels=(8, 8, 16, 16), vae_layers=1,
)  # fmt: skip
"""The same architecture, small enough for a CPU."""
SIZES = {size.name: size for size in (FULL, SMALL)}


def asked_size() -> Size:
    """Return the size that ``PARITY_CANNY2IMAGE_SIZE`` names, by default full. Raises UsageError for another name."""
    name = os.environ.get(SIZE) or FULL.name
    if name not in SIZES:
        raise unknown_name(SIZE, name, SIZES)
    return SIZES[name]


def checkpoint() -> Path | None:
    """Return the folder that ``PARITY_CANNY2IMAGE`` names, or None."""
    folder = os.environ.get(CHECKPOINT)
    return Path(folder) if folder else None


def weights_words() -> dict[str, Any]:
    """Return ``weights`` and ``weights_source`` as a subject declares them."""
    folder = checkpoint()
    if folder is not None:
        return {"weights": "trained", "weights_source": f"checkpoint {folder.name} ({CHECKPOINT})"}
    return {"weights": "random", "weights_source": f"seed {SEED} on {_made_on()}, zero convolutions drawn too"}


def _made_on() -> str:
    """Return where random weights are made: on a GPU it takes seconds less, and the same seed draws others."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def build(kind: str, size: Size) -> torch.nn.Module:
    """Return one network, FP32, in eval mode, on the CPU.

    Raises NotJudged when a package, a GPU for the full size, or a part of the checkpoint is missing.
    """
    folder = checkpoint()
    if size is FULL and not torch.cuda.is_available() and not os.environ.get(SIZE):
        raise NotJudged(f"canny2image at full size wants a GPU; set {SIZE}=small, or {SIZE}=full to wait for the CPU")
    if folder is None:
        with torch.random.fork_rng(), torch.device(_made_on()):
            return _assemble(kind, partial(_random, size=size)).eval().cpu()
    return _assemble(kind, partial(_load, folder=folder, size=size)).float().eval()


def _assemble(kind: str, part: Callable[[str], torch.nn.Module]) -> torch.nn.Module:
    if kind == "combined":
        return ControlledUNet(ControlNet(part("controlnet")), UNet(part("unet")))
    wrapper, name = KINDS[kind]
    return wrapper(part(name))


BATCHED = ("text-encoder", "controlnet", "unet", "combined")
"""Networks that run on both prompts; the others run on one picture."""
KINDS: dict[str, tuple[Callable[[torch.nn.Module], torch.nn.Module], str]] = {
    "text-encoder": (TextEncoder, "text_encoder"),
    "hint": (Hint, "controlnet"),
    "controlnet": (ControlNet, "controlnet"),
    "unet": (UNet, "unet"),
    "vae-encoder": (VaeEncoder, "vae"),
    "vae-decoder": (VaeDecoder, "vae"),
}
"""Networks by name, with the folder of the checkpoint that holds each; ``combined`` is ControlNet and UNet in one."""


def _classes() -> dict[str, Any]:
    try:
        from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
        from transformers import CLIPTextModel
    except ImportError as error:
        raise NotJudged(f"diffusers or transformers is missing: {install_hint('canny2image')}") from error
    return {
        "text_encoder": CLIPTextModel, "controlnet": ControlNetModel, "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }  # fmt: skip


def _load(name: str, *, folder: Path, size: Size) -> torch.nn.Module:
    """Return one network of the checkpoint, checked to be of the size that the inputs are made for."""
    if not (folder / name / "config.json").is_file():
        raise NotJudged(f"{CHECKPOINT}: {folder} has no {name}/config.json; give a folder in diffusers layout")
    try:
        module: torch.nn.Module = _classes()[name].from_pretrained(folder / name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise NotJudged(f"{CHECKPOINT}: {folder / name} cannot be loaded: {first_line(error)}") from error
    width = module.config.hidden_size if name == "text_encoder" else getattr(module.config, "cross_attention_dim", None)
    if name != "vae" and width != size.context:
        raise NotJudged(f"{CHECKPOINT}: {name} has a context of {width}, and size {size.name} one of {size.context}")
    return module


def _random(name: str, *, size: Size) -> torch.nn.Module:
    """Return one network with random weights. What the architecture sets to zero is drawn too: zeros hide errors."""
    torch.manual_seed(SEED)  # per network, so that each has the same weights alone and combined
    module: torch.nn.Module = getattr(_Random(size), name)()
    for child in module.modules():
        if isinstance(child, torch.nn.Conv2d) and not bool(child.weight.any()):
            child.reset_parameters()
    return module


class _Random:
    """The networks from their sizes."""

    def __init__(self, size: Size) -> None:
        self.size, self.classes = size, _classes()

    def text_encoder(self) -> torch.nn.Module:
        from transformers import CLIPTextConfig

        size = self.size
        config = CLIPTextConfig(
            hidden_size=size.context, intermediate_size=4 * size.context, num_hidden_layers=size.text_layers,
            num_attention_heads=size.heads, vocab_size=size.vocabulary, max_position_embeddings=TOKENS,
            bos_token_id=size.vocabulary - 2, eos_token_id=size.vocabulary - 1,
        )  # fmt: skip
        module: torch.nn.Module = self.classes["text_encoder"](config)
        return module

    def controlnet(self) -> torch.nn.Module:
        hint = self.size.hint_channels
        module: torch.nn.Module = self.classes["controlnet"](
            **self.size.levels, conditioning_embedding_out_channels=hint
        )
        return module

    def unet(self) -> torch.nn.Module:
        up = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (len(self.size.channels) - 1)
        module: torch.nn.Module = self.classes["unet"](
            **self.size.levels, up_block_types=tuple(up), sample_size=self.size.height // 8
        )
        return module

    def vae(self) -> torch.nn.Module:
        levels = len(self.size.vae_channels)
        module: torch.nn.Module = self.classes["vae"](
            block_out_channels=self.size.vae_channels,
            layers_per_block=self.size.vae_layers,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            norm_num_groups=self.size.groups,
            latent_channels=4,
        )
        return module


def example(kind: str, size: Size, batch: int) -> dict[str, torch.Tensor]:
    """Return one network's inputs: seeded latents and contexts, token ids of a prompt, a real picture and its edges."""
    generator = torch.Generator().manual_seed(SEED + 1)
    if kind == "text-encoder":
        from suites.canny2image.tokens import tokenize

        return {"input_ids": tokenize(["a bird, best quality", "lowres, bad anatomy"][:batch], size)}
    if kind in ("hint", "vae-encoder"):
        return _example_picture(kind, size)
    if kind == "vae-decoder":
        return {"latents": torch.randn(1, *size.latents, generator=generator)}
    inputs = {
        "sample": torch.randn(batch, *size.latents, generator=generator),
        "timestep": torch.full((batch,), 501),
        "context": torch.randn(batch, TOKENS, size.context, generator=generator),
    }
    if kind == "unet":
        shapes = control_shapes(size)
        controls = {control_name(i): torch.randn(batch, *s, generator=generator) for i, s in enumerate(shapes)}
        return inputs | controls
    inputs["hint"] = torch.randn(batch, size.channels[0], *size.latents[1:], generator=generator)
    return inputs if kind == "controlnet" else {**inputs, "scales": torch.ones(len(control_shapes(size)), batch)}


def _example_picture(kind: str, size: Size) -> dict[str, torch.Tensor]:
    from suites.canny2image import pictures

    picture = next(iter(pictures.load(1, size).values()))
    if kind == "hint":
        return {"edges": pictures.edges_tensor(pictures.canny(picture, 100, 200), torch.device("cpu"))}
    return {"picture": torch.from_numpy(picture).permute(2, 0, 1)[None].float().contiguous() / 127.5 - 1}


def control_shapes(size: Size) -> list[tuple[int, int, int]]:
    """Return the shapes of the ControlNet's outputs without the batch, in their order."""
    _, height, width = size.latents
    shapes = [(size.channels[0], height, width)]
    for level, channels in enumerate(size.channels):
        shapes += [(channels, height, width)] * size.layers
        if level < len(size.channels) - 1:
            height, width = (height + 1) // 2, (width + 1) // 2
            shapes.append((channels, height, width))
    return [*shapes, shapes[-1]]


def subject(kind: str, *, size: Size | None = None, batch: int = 2) -> Subject:
    """Return one network as a subject. Raises UsageError for one that is not known."""
    if kind not in (*KINDS, "combined"):
        raise unknown_name("network of canny2image", kind, (*KINDS, "combined"))
    if batch not in (1, 2):
        raise UsageError(f"canny2image runs batches of 1 or 2, not {batch}")
    size = size or asked_size()
    label = "".join([f"-{size.name}" if size is not FULL else "", "-batch1" if batch == 1 and kind in BATCHED else ""])
    return Subject(
        name=f"canny2image-{kind}{label}",
        build=partial(build, kind, size),
        cases={"one": partial(example, kind, size, batch)},
        targets=TARGETS,
        inputs="real" if kind in ("hint", "vae-encoder") or (kind == "text-encoder" and checkpoint()) else "random",
        **weights_words(),
    )
