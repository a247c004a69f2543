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
