"""WeNet's U2 Conformer as the contest of 2022 exported it: an encoder, and a decoder that rescores ten hypotheses.

After the AISHELL configuration (examples/aishell/s0/conf/train_conformer.yaml of wenet-e2e/wenet): 12 blocks of 256
channels with 4 heads, 2048 hidden units and kernels of 15, subsampling by 4, a decoder of 6 blocks, 4233 characters.
``PARITY_WENET_SIZE=full`` takes these sizes; by default it is small. The weights are random.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness import UsageError

MELS = 80
"""Bins of the spectrogram."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the two networks are."""

    width: int
    heads: int
    hidden: int
    encoder_blocks: int
    decoder_blocks: int
    characters: int
    kernel: int


SIZES = {
    "full": Size(width=256, heads=4, hidden=2048, encoder_blocks=12, decoder_blocks=6, characters=4233, kernel=15),
    "small": Size(width=32, heads=2, hidden=64, encoder_blocks=2, decoder_blocks=2, characters=61, kernel=7),
}
CHOSEN = os.environ.get("PARITY_WENET_SIZE", "small")
if CHOSEN not in SIZES:
    raise UsageError(f"PARITY_WENET_SIZE is {CHOSEN!r}; give one of {', '.join(SIZES)}")
SIZE = SIZES[CHOSEN]


def within(lengths: Tensor, size: int) -> Tensor:
    """Return which of ``size`` places lie within each length, bool [batch, size]."""
    return torch.arange(size, device=lengths.device)[None] < lengths[:, None]


def heard(lengths: Tensor, frames: int) -> Tensor:
    """Return which frames of the encoder's lie within speech of these lengths, bool [batch, frames']."""
    return within(lengths, frames)[:, 2::2][:, 2::2][:, : ((frames - 1) // 2 - 1) // 2]


def positions(count: int, width: int) -> Tensor:
    """Return sines and cosines of positions, [1, count, width]."""
    rates = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
    angles = torch.arange(count)[:, None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], -1).reshape(1, count, width)


def feed_forward(size: Size, activation: nn.Module) -> nn.Module:
    """Return the two linear layers of a block."""
    return nn.Sequential(nn.Linear(size.width, size.hidden), activation, nn.Linear(size.hidden, size.width))


class Attention(nn.Module):
    """Attention over what a mask lets through; with relative positions as in Transformer-XL, without its shift."""

    def __init__(self, size: Size, *, relative: bool = False) -> None:
        super().__init__()
        self.heads, self.depth = size.heads, size.width // size.heads
        self.query, self.key, self.value, self.out = (nn.Linear(size.width, size.width) for _ in range(4))
        if relative:
            self.position = nn.Linear(size.width, size.width, bias=False)
            self.bias_u, self.bias_v = (nn.Parameter(torch.randn(size.heads, self.depth) * 0.1) for _ in range(2))

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1, self.heads, self.depth)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, places: Tensor | None = None) -> Tensor:
        query = self.split(self.query(x))
        key, value = (self.split(layer(memory)).transpose(1, 2) for layer in (self.key, self.value))
        if places is None:
            score = query.transpose(1, 2) @ key.transpose(-2, -1)
        else:
            place = self.split(self.position(places)).transpose(1, 2)
            score = (query + self.bias_u).transpose(1, 2) @ key.transpose(-2, -1)
            score = score + (query + self.bias_v).transpose(1, 2) @ place.transpose(-2, -1)
        score = (score / math.sqrt(self.depth)).masked_fill(~mask[:, None], -torch.inf)
        share = torch.softmax(score, -1).masked_fill(~mask[:, None], 0.0)
        return self.out((share @ value).transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    """The convolution of a Conformer block, over the frames of each length alone."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width, kernel = size.width, size.kernel
        self.widen = nn.Conv1d(width, 2 * width, 1)
        self.along = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm, self.mix = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = nn.functional.glu(self.widen(x.transpose(1, 2).masked_fill(~mask[:, None], 0.0)), 1)
        x = self.mix(nn.functional.silu(self.norm(self.along(x))))
        return x.masked_fill(~mask[:, None], 0.0).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, normalised."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.first, self.second = feed_forward(size, nn.SiLU()), feed_forward(size, nn.SiLU())
        self.attention, self.convolution = Attention(size, relative=True), Convolution(size)
        self.norms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(5))

    def forward(self, x: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        x = x + 0.5 * self.first(self.norms[0](x))
        normal = self.norms[1](x)
        x = x + self.attention(normal, normal, mask[:, None], places)
        x = x + self.convolution(self.norms[2](x), mask)
        return self.norms[4](x + 0.5 * self.second(self.norms[3](x)))


class Encoder(nn.Module):
    """speech [batch, frames, MELS], speech_lengths [batch] -> encoder_out [batch, frames', width], encoder_out_lens."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, size.width, 3, 2), nn.Conv2d(size.width, size.width, 3, 2)
        self.project = nn.Linear(size.width * ((MELS - 1) // 2 - 1) // 2, size.width)
        self.blocks = nn.ModuleList(EncoderBlock(size) for _ in range(size.encoder_blocks))
        self.norm, self.scale = nn.LayerNorm(size.width), math.sqrt(size.width)
        self.register_buffer("places", positions(5000, size.width))

    def forward(self, speech: Tensor, speech_lengths: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.second(torch.relu(self.first(speech[:, None]))))
        x = self.project(x.transpose(1, 2).flatten(2)) * self.scale
        mask = heard(speech_lengths, speech.shape[1])
        places = self.get_buffer("places")[:, : x.shape[1]]
        for block in self.blocks:
            x = block(x, mask, places)
        return {"encoder_out": self.norm(x), "encoder_out_lens": mask.sum(1).int()}


class DecoderBlock(nn.Module):
    """Attention over what was said before, attention over the speech, feed-forward."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.own, self.cross, self.feed = Attention(size), Attention(size), feed_forward(size, nn.ReLU())
        self.norms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        normal = self.norms[0](x)
        x = x + self.own(normal, normal, mask)
        x = x + self.cross(self.norms[1](x), memory, memory_mask)
        return x + self.feed(self.norms[2](x))


class Decoder(nn.Module):
    """Scores ten hypotheses of 63 characters: decoder_out [batch, 10, 63, characters], and the best one of each."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(size.characters, size.width), nn.Linear(size.width, size.characters)
        self.blocks = nn.ModuleList(DecoderBlock(size) for _ in range(size.decoder_blocks))
        self.norm, self.scale = nn.LayerNorm(size.width), math.sqrt(size.width)
        self.register_buffer("places", positions(128, size.width))

    def forward(
        self, encoder_out: Tensor, encoder_out_lens: Tensor, hyps_pad_sos_eos: Tensor, hyps_lens_sos: Tensor,
        ctc_score: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        batch, frames, width = encoder_out.shape
        count, length = hyps_pad_sos_eos.shape[1], hyps_pad_sos_eos.shape[2] - 1
        memory = encoder_out[:, None].expand(batch, count, frames, width).reshape(batch * count, frames, width)
        heard = within(encoder_out_lens, frames)[:, None].expand(batch, count, frames).reshape(-1, 1, frames)
        said, given = hyps_pad_sos_eos.reshape(-1, length + 1), within(hyps_lens_sos.reshape(-1), length)
        before = torch.ones(length, length, dtype=torch.bool, device=said.device).tril()[None]
        x = self.embed(said[:, :-1]) * self.scale + self.get_buffer("places")[:, :length]
        for block in self.blocks:
            x = block(x, given[:, None] & before, memory, heard)
        out = torch.log_softmax(self.out(self.norm(x)), -1)
        likely = (out.gather(2, (said[:, 1:] * given)[..., None]).squeeze(2) * given).sum(1).view(batch, count)
        best = (likely + 0.3 * ctc_score).argmax(1)
        return {"decoder_out": out.view(batch, count, length, -1), "best_index": best}
