"""Networks with a weakness that follows from the number formats; the weights of each have a seed of their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
WIDTH = 32


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(seed: int, *, scale: float = 1.0, bias: float | None = None) -> nn.Linear:
    """Return a square layer whose outputs have about ``scale`` times the RMS of its inputs, plus ``bias``."""
    layer = nn.Linear(WIDTH, WIDTH, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(WIDTH, WIDTH, generator=seeded(seed)))
        layer.weight.mul_(scale / math.sqrt(WIDTH))
        if bias is not None:
            layer.bias.fill_(bias)
    return layer


def normal() -> Tensors:
    """Return seeded inputs, float32 [2, 8, 32]."""
    return {"x": torch.randn(2, 8, WIDTH, generator=seeded(0))}


def image() -> Tensors:
    """Return seeded inputs of standard deviation 10, float32 [2, 8, 16, 16]."""
    return {"x": 10 * torch.randn(2, 8, 16, 16, generator=seeded(0))}


class OnePassNorm(nn.Module):
    """Layer norm by E[x^2] - E[x]^2: in float16 inf - inf once the inputs exceed 256."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = x.pow(2).mean(-1, keepdim=True) - mean.pow(2)
        return (x - mean) * torch.rsqrt(variance + 1e-3)


class NormBlock(nn.Module):
    def __init__(self, body: nn.Linear) -> None:
        super().__init__()
        self.norm, self.linear = OnePassNorm(), body

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class Overflow(nn.Module):
    """Only what block 1 makes is large: 400 with a standard deviation of 50."""

    def __init__(self) -> None:
        super().__init__()
        bodies = linear(0), linear(1, scale=50.0, bias=400.0), linear(2), linear(3)
        self.blocks = nn.Sequential(*(NormBlock(body) for body in bodies))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class ThroughOffset(nn.Module):
    """Add 2048 and take it away again: the spacing of float16 there is 2, so nothing of x is left."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        return (2048.0 + x) - 2048.0 if self.sign > 0 else (-2048.0 - x) + 2048.0


class Swamping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.accumulate, self.after = linear(0), ThroughOffset(), linear(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.accumulate(self.before(x)))


class LargeSoftmax(nn.Module):
    """Logits around 30000, where the spacing of float16 is 16 and everything within 16 becomes equal."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x + 30000.0, -1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score, self.select, self.value = linear(0), LargeSoftmax(), linear(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.select(self.score(x)))


class SummedGroupNorm(nn.Module):
    """Group norm over 1024 elements of about 10: their squares sum up to 1e5, beyond float16."""

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(2, 2, -1)
        centred = groups - groups.mean(-1, keepdim=True)
        variance = centred.pow(2).sum(-1, keepdim=True) * (1 / groups.shape[-1])
        return (centred * torch.rsqrt(variance + 1e-3)).reshape(x.shape)


class Convolutions(nn.Module):
    """Takes [2, 8, 16, 16]: two groups of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = pointwise(0), SummedGroupNorm(), pointwise(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))


def pointwise(seed: int) -> nn.Conv2d:
    """Return a 1x1 convolution of 8 channels that keeps the RMS of its inputs."""
    layer = nn.Conv2d(8, 8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(nn.init.orthogonal_(torch.empty(8, 8), generator=seeded(seed)).reshape(8, 8, 1, 1))
    return layer


class Residual(nn.Linear):
    """Add a projection of x and an offset to the stream."""

    def __init__(self, seed: int, offset: float) -> None:
        super().__init__(WIDTH, WIDTH)
        self.load_state_dict(linear(seed, bias=offset).state_dict())

    def forward(self, stream: Tensor, x: Tensor) -> Tensor:
        return stream + super().forward(x)


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True)


class GrowingStream(nn.Module):
    """Every block makes the offset of the stream four times as large, and so the rounding of all it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(block, 4.0 * 4**block) for block in range(5))
        self.centre = Centre()

    def forward(self, x: Tensor) -> Tensor:
        stream = x
        for block in self.blocks:
            stream = block(stream, x)
        return self.centre(stream)


class Residue(ThroughOffset):
    """What :class:`ThroughOffset` loses: nothing in float32, all of x in float16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x


class TwoCulprits(nn.Module):
    """The product of two residues: one that vanishes is enough."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(linear(seed) for seed in range(3))
        self.early, self.late = Residue(), Residue()

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        for layer in self.body:
            x = layer(x)
        return x + 2 * early * self.late(x)


class Cancelling(nn.Module):
    """Left and right lose x alike, and their sum is zero; keep one of them in FP32, and the loss shows."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.bad, self.left, self.right = linear(0), ThroughOffset(), ThroughOffset(), ThroughOffset(-1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.bad(self.body(x)) + (self.left(x) + self.right(x))


class ScaledSoftmax(nn.Module):
    """Rows that reach 100 become infinite in float16, and their softmax NaN; float32 holds them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x * 1000.0, -1)


class SquareRoot(nn.Module):
    """NaN for negative elements, in every precision."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)


class Masked(nn.Module):
    """What the branch makes of large rows or negative elements is never used."""

    def __init__(self, branch: nn.Module, *, rows: bool) -> None:
        super().__init__()
        self.branch, self.head, self.rows = branch, linear(0), rows

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.amax(-1, keepdim=True) > 50 if self.rows else x < 0
        return self.head(torch.where(hidden, x * 0.01, self.branch(x)))


def with_large_rows() -> Tensors:
    """Return inputs of which every other row has one element of 100; the rest keeps a softmax of x * 1000 decided."""
    x = (torch.arange(2 * 8 * WIDTH).reshape(2, 8, WIDTH) * 7 % 31) / 32
    x[:, ::2, 3] = 100.0
    return {"x": x}


class Router(nn.Linear):
    """Two scores whose weights differ by 2**-13: float16 rounds them to the same, and argmax takes the first."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 2, bias=False)
        with torch.no_grad():
            self.weight.copy_(torch.tensor([[1.0], [1.0 + 2.0**-13]]).expand(2, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(-1)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts, self.head = Router(), nn.Embedding(2, WIDTH), linear(1)
        with torch.no_grad():
            self.experts.weight.copy_(torch.randn(2, WIDTH, generator=seeded(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * self.experts(self.router(x)))


def signed_rows() -> Tensors:
    """Return rows of one sign each, three of four positive, exact in float16."""
    signs = torch.tensor([1.0, 1.0, -1.0, 1.0] * 4).reshape(2, 8, 1)
    return {"x": signs * (1 + torch.arange(2 * 8 * WIDTH).reshape(2, 8, WIDTH) % 5) / 4}


class Block(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.norm, self.linear, self.act = nn.LayerNorm(WIDTH), linear(seed), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.linear(self.norm(x)))


class Healthy(nn.Module):
    """Nothing is wrong with it: its values are layer_norm, linear, gelu, add, then layer_norm_1, ..., add_3."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(seed) for seed in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)
