"""UniDiffuser's small decoder with the GroupNorm that overflows in FP16 without a plugin, as its entrants met it.

An engine that has no kernel for GroupNorm computes it as it is written: the mean of squares in the engine's precision.
The trained decoder's activations are hundreds, and FP16 holds no square of more than 255; here random weights give the
same. The engine is PyTorch in FP16: ONNX Runtime on the CPU computes neighbouring FP16 operators in FP32.

    PARITY_UNIDIFFUSER_SIZE=small parity bisect tests/suites/group_norm.py -b torch -p fp16 -o plan.toml
    PARITY_UNIDIFFUSER_SIZE=small parity verify tests/suites/group_norm.py -b torch -p plan.toml
"""

from __future__ import annotations

from dataclasses import replace

import torch

from suites.unidiffuser import models

LARGE = 600.0
"""What the last activations are multiplied by: a few hundred, as in the trained decoder."""


class WrittenOut(torch.nn.Module):
    """GroupNorm of [batch, channels, height, width] as mean and mean of squares over each group."""

    def __init__(self, norm: torch.nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        groups = x.unflatten(1, (self.norm.num_groups, -1))
        apart = groups - groups.mean((2, 3, 4), keepdim=True)
        spread = (apart * apart).mean((2, 3, 4), keepdim=True)
        normal = (apart / torch.sqrt(spread + self.norm.eps)).flatten(1, 2)
        return normal * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]


def build() -> torch.nn.Module:
    """Return the decoder, its last GroupNorm written out and fed with large activations."""
    made = models.Decoder()
    last = made.decoder.up_blocks[-1].resnets[-1]
    with torch.no_grad():
        last.conv2.weight *= LARGE
        last.conv2.bias *= LARGE
    made.decoder.conv_norm_out = WrittenOut(made.decoder.conv_norm_out)
    return made.eval()


SUBJECT = replace(models.subject("decoder"), name="unidiffuser-decoder-group-norm", build=build)
