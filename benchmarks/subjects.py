"""Large subjects with random weights, for benchmarks and examples: ``parity verify benchmarks.subjects:CLIP -b rtx``.

The architectures and sizes are those of Stable Diffusion 1.5. They need ``pip install transformers diffusers``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from harness import Subject, targets

TARGETS = targets("rtx", "torch", precisions=("fp32", "tf32", "fp16", "bf16"))


def random_subject(name: str, **fields: Any) -> Subject:
    """Return a subject whose weights and inputs are random, and labelled so."""
    fields = {"targets": TARGETS, "weights": "random", "weights_source": "seed 0", **fields}
    return Subject(name=name, **fields)


def clip(layers: int = 12, hidden: int = 768, vocabulary: int = 49408) -> torch.nn.Module:
    """Return a CLIP text encoder with heads of 64 elements."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        vocab_size=vocabulary,
        bos_token_id=0,
        eos_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config).eval()


def tokens(vocabulary: int = 49408) -> dict[str, torch.Tensor]:
    """Return seeded token ids, int64 [2, 77]."""
    return {"input_ids": torch.randint(0, vocabulary, (2, 77), generator=torch.Generator().manual_seed(1))}


class UNet(torch.nn.Module):
    """A UNet of diffusers whose forward takes and returns tensors."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.unet = UNet2DConditionModel(**config)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return the predicted noise, shaped like ``sample``."""
        noise: torch.Tensor = self.unet(sample, timestep, encoder_hidden_states=context, return_dict=False)[0]
        return noise


def unet(**config: Any) -> torch.nn.Module:
    """Return a UNet; its weights are made on the GPU where there is one, which takes seconds less."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return UNet(**config).eval().cpu()


def latents(height: int = 32, width: int = 48, context: int = 768) -> dict[str, torch.Tensor]:
    """Return seeded latents, float32 [2, 4, height, width], a time step for each, and a text of 77 tokens."""
    generator = torch.Generator().manual_seed(2)
    return {
        "sample": torch.randn(2, 4, height, width, generator=generator),
        "timestep": torch.tensor([501, 501]),
        "context": torch.randn(2, 77, context, generator=generator),
    }


SMALL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
}

CLIP = random_subject("clip", build=clip, cases={"one": tokens})
"""The text encoder: 12 layers, 768 wide."""
SMALL_CLIP = random_subject("small-clip", build=partial(clip, 2, 128, 1000), cases={"one": partial(tokens, 1000)})
UNET = random_subject("unet", build=partial(unet, cross_attention_dim=768), cases={"one": latents})
"""860 million parameters, latents of 32 x 48."""
SMALL_UNET = random_subject("small-unet", build=partial(unet, **SMALL), cases={"one": partial(latents, 16, 16, 64)})


class Decoder(torch.nn.Module):
    """The decoder of a KL autoencoder: latents [batch, 4, h, w] to a picture [batch, 3, 8 h, 8 w]."""

    def __init__(self, widths: tuple[int, ...], groups: int) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        blocks = ("UpDecoderBlock2D",) * len(widths)
        downs = ("DownEncoderBlock2D",) * len(widths)
        autoencoder = AutoencoderKL(
            block_out_channels=widths, up_block_types=blocks, down_block_types=downs, norm_num_groups=groups
        )
        self.decoder = autoencoder.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the picture."""
        picture: torch.Tensor = self.decoder(latents)
        return picture


def decoder(widths: tuple[int, ...] = (128, 256, 512, 512), groups: int = 32, largest: float = 2e5) -> torch.nn.Module:
    """Return a decoder in one of whose blocks the residual stream grows to ``largest``, beyond the end of FP16.

    GroupNorm hides it from what follows, as in the decoder of SDXL, whose trained weights do the same.
    """
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        module = Decoder(widths, groups).eval()
    block = module.decoder.up_blocks[1].resnets[0]
    seen: list[float] = []
    hook = block.conv2.register_forward_hook(lambda _, __, made: seen.append(float(made.abs().max())))
    with torch.no_grad():
        module(decoder_latents(1, 16)["latents"].to(block.conv2.weight.device))
        block.conv2.weight *= largest / seen[0]
        block.conv2.bias *= largest / seen[0]
    hook.remove()
    return module.cpu()


def decoder_latents(batch: int = 1, size: int = 32) -> dict[str, torch.Tensor]:
    """Return seeded latents, float32 [batch, 4, size, size]."""
    return {"latents": torch.randn(batch, 4, size, size, generator=torch.Generator().manual_seed(3))}


class Swamped(torch.nn.Module):
    """A sum whose FP16 rounding is larger than what is added: ``(h + big) - big`` is 0 in FP16 and h in FP32."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first, self.big, self.last = (torch.nn.Linear(width, width) for _ in range(3))
        torch.nn.init.constant_(self.big.bias, 3e4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, width] of ``x`` [batch, width]."""
        big = self.big(x)
        small = 0.1 * torch.tanh(self.first(x))
        return self.last((small + big) - big)


def swamped() -> torch.nn.Module:
    torch.manual_seed(0)
    return Swamped().eval()


DECODER = random_subject("decoder", build=decoder, cases={"one": decoder_latents})
"""49 million parameters, GroupNorm throughout; a residual stream of 2e5 in one block."""
SMALL_DECODER = random_subject(
    "small-decoder", build=partial(decoder, (16, 32, 32), 8), cases={"one": partial(decoder_latents, 1, 16)}
)
SWAMPED = random_subject(
    "swamped", build=swamped,
    cases={"one": lambda: {"x": torch.randn(8, 64, generator=torch.Generator().manual_seed(4))}},
)  # fmt: skip
