"""Sizes of the networks, and what the environment asks for.

``PARITY_CANNY2IMAGE`` names a checkpoint folder in diffusers layout; ``PARITY_CANNY2IMAGE_SIZE`` is ``full`` or
``small``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import unknown_name

CHECKPOINT, SIZE = "PARITY_CANNY2IMAGE", "PARITY_CANNY2IMAGE_SIZE"
TOKENS = 77
"""Length of a prompt as the text encoder takes it."""


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
