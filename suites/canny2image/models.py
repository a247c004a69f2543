"""The networks of Stable Diffusion 1.5 with ControlNet (canny) as subjects: their weights and inputs.

Weights come from the checkpoint that ``PARITY_CANNY2IMAGE`` names, or are random with a fixed seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import NotJudged, Subject, Target, UsageError, targets
from harness.errors import first_line, install_hint, unknown_name
from suites.canny2image import pictures
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
from suites.canny2image.sizes import CHECKPOINT, FULL, SIZE, TOKENS, Size, asked_size, checkpoint
from suites.canny2image.tokens import tokenize

SEED = 0
TARGETS: tuple[Target, ...] = (
    *targets("trt", "rtx", precisions=("fp32", "tf32", "fp16", "bf16")),
    *targets("torch", precisions=("fp16",)),
)


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
    module = _of_size(name, size)
    for child in module.modules():
        if isinstance(child, torch.nn.Conv2d) and not bool(child.weight.any()):
            child.reset_parameters()
    return module


def _of_size(name: str, size: Size) -> torch.nn.Module:
    """Return one network with the weights that its class draws."""
    module: torch.nn.Module
    if name == "text_encoder":
        from transformers import CLIPTextConfig

        config = CLIPTextConfig(
            hidden_size=size.context, intermediate_size=4 * size.context, num_hidden_layers=size.text_layers,
            num_attention_heads=size.heads, vocab_size=size.vocabulary, max_position_embeddings=TOKENS,
            bos_token_id=size.vocabulary - 2, eos_token_id=size.vocabulary - 1,
        )  # fmt: skip
        module = _classes()[name](config)
    elif name == "controlnet":
        module = _classes()[name](**size.levels, conditioning_embedding_out_channels=size.hint_channels)
    elif name == "unet":
        up = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(size.channels) - 1)
        module = _classes()[name](**size.levels, up_block_types=up, sample_size=size.height // 8)
    else:
        levels = len(size.vae_channels)
        module = _classes()[name](
            block_out_channels=size.vae_channels, layers_per_block=size.vae_layers, norm_num_groups=size.groups,
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=4,
        )  # fmt: skip
    return module


def example(kind: str, size: Size, batch: int) -> dict[str, torch.Tensor]:
    """Return one network's inputs: seeded latents and contexts, token ids of a prompt, a real picture and its edges."""
    generator = torch.Generator().manual_seed(SEED + 1)
    if kind == "text-encoder":
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
