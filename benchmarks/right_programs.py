"""Small networks, and ways of computing them in a format that are all equally right.

Everything is computed in float64; :class:`Arithmetic` says where and how a value is rounded to the format. PyTorch's
way rounds to nearest after every operation. An engine may keep values wide (it fuses), split a matrix product into
partial sums that it rounds, add in another order, or round stochastically.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

Tensor = torch.Tensor
FORMATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(kw_only=True)
class Arithmetic:
    """One way of computing in a format; the default is PyTorch's, and without a format nothing is rounded."""

    dtype: torch.dtype | None = None
    keep: float = 0.0
    """Share of the values that are kept wide."""
    splits: int = 1
    """Partial sums of a matrix product."""
    stochastic: bool = False
    seed: int = 0
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, x: Tensor) -> Tensor:
        """Round a value."""
        if self.dtype is None or (self.keep and float(torch.rand((), generator=self.generator)) < self.keep):
            return x
        near = x.to(self.dtype)
        if not self.stochastic:
            return near.double()
        value = near.double()
        up = torch.nextafter(near, torch.full_like(near, math.inf)).double()
        down = torch.nextafter(near, torch.full_like(near, -math.inf)).double()
        other = torch.where(x > value, up, down)
        step = (other - value).abs()
        chance = torch.where(step > 0, (x - value).abs() / step, 0.0)
        return torch.where(torch.rand(x.shape, generator=self.generator).double() < chance, other, value)

    def product(self, x: Tensor, w: Tensor, over: Callable[[Tensor, Tensor], Tensor] = torch.matmul) -> Tensor:
        """Return a product over the last axis of x and the second to last of w, its parts rounded and then added."""
        if self.splits == 1 or self.dtype is None:
            return self(over(x, w))
        order = torch.randperm(x.shape[-1], generator=self.generator)
        parts = [over(x[..., k], w[..., k, :]) for k in order.chunk(self.splits)]
        total = self(parts[0])
        for part in parts[1:]:
            total = self(total + self(part))
        return total

    def conv(self, x: Tensor, w: Tensor, groups: int = 1) -> Tensor:
        """Return a convolution that keeps the size."""
        pad = w.shape[-1] // 2
        conv = torch.nn.functional.conv2d
        if self.splits == 1 or self.dtype is None or groups > 1:
            return self(conv(x, w, padding=pad, groups=groups))
        parts = torch.randperm(x.shape[1], generator=self.generator).chunk(self.splits)
        total = self(conv(x[:, parts[0]], w[:, parts[0]], padding=pad))
        for k in parts[1:]:
            total = self(total + self(conv(x[:, k], w[:, k], padding=pad)))
        return total


def right_engine(dtype: torch.dtype, seed: int) -> Arithmetic:
    """Return one of the ways an engine may compute, drawn by the seed."""
    draw = torch.Generator().manual_seed(seed)
    pick = torch.rand(3, generator=draw).tolist()
    return Arithmetic(
        dtype=dtype, keep=pick[0] * 0.6, splits=1 + int(3 * pick[1]), stochastic=pick[2] < 0.3, seed=seed + 1
    )


class Weights:
    """Random weights and inputs by seed, in the format: they cost nobody anything."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.seed, self.dtype = seed, dtype
        self.restart()

    def restart(self) -> None:
        """Give the same numbers again."""
        self.generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, *shape: int, gain: float = 1.0) -> Tensor:
        fan = shape[-2] if len(shape) == 2 else math.prod(shape[1:]) if len(shape) == 4 else 1
        return self.normal(*shape) * (gain / math.sqrt(fan))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.dtype).double()

    def heavy(self, *shape: int) -> Tensor:
        """Return Student t of 2 degrees of freedom."""
        chi = torch.randn(2, *shape, generator=self.generator).square().mean(0).sqrt()
        return (torch.randn(shape, generator=self.generator) / chi).to(self.dtype).double()


def norm(r: Arithmetic, x: Tensor, dims: int | tuple[int, ...] = -1, *, centred: bool = True) -> Tensor:
    """Normalise in single steps, each rounded: a statistic that is off moves all it is applied to."""
    if centred:
        x = r(x - r(x.mean(dims, keepdim=True)))
    return r(x * r(torch.rsqrt(r(r(x * x).mean(dims, keepdim=True)) + 1e-5)))


def gelu(r: Arithmetic, x: Tensor) -> Tensor:
    return r(torch.nn.functional.gelu(x))


def mlp(r: Arithmetic, w: Weights, depth: int, width: int = 64, rows: int = 16, norms: bool = False) -> Tensor:
    x = w.normal(rows, width)
    for _ in range(depth):
        y = norm(r, x) if norms else x
        x = r(x + r.product(gelu(r, r(r.product(y, w(width, width)) + w(width) * 0.1)), w(width, width)))
    return x


def convnet(r: Arithmetic, w: Weights, *, groups: int = 0, head: int = 0) -> Tensor:
    x = w.normal(2, 8, 12, 12)
    for _ in range(3):
        y = r.conv(x, w(8, 8, 3, 3, gain=1.4))
        scaled = r(y * (1 + 0.2 * w.normal(1, 8, 1, 1)))
        y = norm(r, y.reshape(2, groups, -1)).reshape(x.shape) if groups else scaled
        x = r(torch.relu(y) + x)
    return r.product(r(x.mean((2, 3))), w(8, head)) if head else x


def attention(r: Arithmetic, w: Weights, x: Tensor, *, mask: float = 0.0, gain: float = 1.0) -> Tensor:
    width = x.shape[-1]
    q, k, v = (r.product(x, w(width, width, gain=gain)) for _ in range(3))
    scores = r(r.product(q, k.transpose(-1, -2)) / math.sqrt(width))
    if mask:
        scores = r(scores + torch.full(scores.shape[-2:], mask, dtype=torch.float64).triu(1))
    return r.product(r(scores.softmax(-1)), v)


def transformer(r: Arithmetic, w: Weights, *, mask: float = 0.0, rms: bool = False, sink: float = 0.0) -> Tensor:
    x = w.normal(2, 24, 48)
    if sink:
        x[:, 0] *= sink
    for _ in range(2):
        x = r(x + attention(r, w, norm(r, x, centred=not rms), mask=mask))
        y = norm(r, x, centred=not rms)
        if rms:
            y = r(r(torch.nn.functional.silu(r.product(y, w(48, 96)))) * r.product(y, w(48, 96)))
        else:
            y = gelu(r, r.product(y, w(48, 96)))
        x = r(x + r.product(y, w(96, 48)))
    return x if sink else norm(r, x, centred=not rms)


def logits(r: Arithmetic, w: Weights, rows: int = 8, classes: int = 256, width: int = 32) -> Tensor:
    return r.product(w.normal(rows, width), w(width, classes))


def detector(r: Arithmetic, w: Weights) -> Tensor:
    x = gelu(r, r.product(w.normal(1, 400, 32), w(32, 32)))
    boxes = r(r(torch.sigmoid(r.product(x, w(32, 4)))) * 640)
    scores = r(torch.sigmoid(r(r.product(x, w(32, 12)) * 1.5 - 6)))
    return torch.cat([boxes, scores], -1).transpose(1, 2)


def lstm(r: Arithmetic, w: Weights) -> Tensor:
    x, a, b = w.normal(20, 4, 16), w(16, 128), w(32, 128)
    h = c = torch.zeros(4, 32, dtype=torch.float64)
    out = []
    for step in x:
        i, f, g, o = r(r.product(step, a) + r.product(h, b)).chunk(4, -1)
        c = r(r(r(torch.sigmoid(f)) * c) + r(r(torch.sigmoid(i)) * r(torch.tanh(g))))
        h = r(r(torch.sigmoid(o)) * r(torch.tanh(c)))
        out.append(h)
    return torch.stack(out, 1)


def gru(r: Arithmetic, w: Weights) -> Tensor:
    x, a, b = w.normal(20, 4, 16), w(16, 96), w(32, 96)
    h = torch.zeros(4, 32, dtype=torch.float64)
    for step in x:
        (z, s, n), (hz, hs, hn) = r.product(step, a).chunk(3, -1), r.product(h, b).chunk(3, -1)
        z, s = r(torch.sigmoid(r(z + hz))), r(torch.sigmoid(r(s + hs)))
        n = r(torch.tanh(r(n + r(s * hn))))
        h = r(r((1 - z) * n) + r(z * h))
    return h


def masked_logits(r: Arithmetic, w: Weights, fill: float) -> Tensor:
    y = logits(r, w, 8, 128) * 3
    y[:, 96:] = fill
    return y


def outlier(r: Arithmetic, w: Weights) -> Tensor:
    scale = torch.ones(96, dtype=torch.float64)
    scale[5] = 1000
    return r(r.product(gelu(r, r.product(w.normal(32, 48), w(48, 48))), w(48, 96)) * scale)


def embedding(r: Arithmetic, w: Weights, rows: int = 2) -> Tensor:
    x = w.normal(rows, 24, 48)
    x = norm(r, r(x + attention(r, w, x)))
    x = r(x.mean(1))
    return r(x / r(x.square().sum(-1, keepdim=True).sqrt()))


def bottleneck(r: Arithmetic, w: Weights) -> Tensor:
    return r.product(gelu(r, r.product(w.normal(16, 64), w(64, 4))), w(4, 256))


def picture(r: Arithmetic, w: Weights) -> Tensor:
    x = convnet(r, w)
    x = r(torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear"))
    return r(torch.sigmoid(r.conv(x, w(3, 8, 3, 3))))


def depthwise(r: Arithmetic, w: Weights) -> Tensor:
    x = w.normal(2, 16, 10, 10)
    for _ in range(3):
        y = r.conv(x, w.normal(16, 1, 3, 3) / 3, groups=16)
        x = r(x + r.conv(r(torch.nn.functional.silu(y)), w(16, 16, 1, 1)))
    return x


def heavy(r: Arithmetic, w: Weights) -> Tensor:
    x = r.product(w.normal(16, 64), w.heavy(64, 64) / 8)
    return r.product(r(torch.relu(x)), w.heavy(64, 64) / 8)


def cumulative(r: Arithmetic, w: Weights) -> Tensor:
    steps = r.product(w.normal(4, 40, 16), w(16, 16))
    total, out = torch.zeros(4, 16, dtype=torch.float64), []
    for step in steps.unbind(1):
        total = r(total + step)
        out.append(total)
    return torch.stack(out, 1)


NETWORKS: dict[str, Callable[[Arithmetic, Weights], Tensor]] = {
    "MLP of 1 block": lambda r, w: mlp(r, w, 1),
    "MLP of 8 blocks": lambda r, w: mlp(r, w, 8),
    "MLP with layer norm": lambda r, w: norm(r, mlp(r, w, 3, norms=True)),
    "MLP, 1 row of 1000": lambda r, w: r.product(mlp(r, w, 2, rows=1), w(64, 1000)),
    "MLP, heavy-tailed weights": heavy,
    "convnet": convnet,
    "convnet, group norm": lambda r, w: convnet(r, w, groups=4),
    "convnet, instance norm": lambda r, w: convnet(r, w, groups=8),
    "convnet, 10 classes": lambda r, w: convnet(r, w, head=10),
    "depthwise convnet": depthwise,
    "picture": picture,
    "attention": lambda r, w: attention(r, w, w.normal(4, 32, 32)),
    "attention, sharp": lambda r, w: attention(r, w, w.normal(4, 32, 32), gain=2.0),
    "transformer, layer norm": transformer,
    "transformer, RMS norm": lambda r, w: transformer(r, w, rms=True),
    "transformer, causal mask -1e4": lambda r, w: transformer(r, w, mask=-1e4),
    "transformer, one token x100": lambda r, w: transformer(r, w, sink=100.0),
    "embedding, 2 sentences": embedding,
    "embedding, 64 sentences": lambda r, w: embedding(r, w, 64),
    "logits": logits,
    "logits, mask -1e4": lambda r, w: masked_logits(r, w, -1e4),
    "logits beside 2500": lambda r, w: torch.cat([r(logits(r, w) + 2500), logits(r, w)], 1),
    "log-softmax": lambda r, w: r(logits(r, w).log_softmax(-1)),
    "softmax(z)": lambda r, w: r(logits(r, w).softmax(-1)),
    "softmax(10z)": lambda r, w: r(r(10 * logits(r, w)).softmax(-1)),
    "softmax(10z), 1 row of 1000": lambda r, w: r(r(10 * logits(r, w, 1, 1000)).softmax(-1)),
    "exp(2z)": lambda r, w: r(torch.exp(r(2 * logits(r, w)))),
    "exp(4z)": lambda r, w: r(torch.exp(r(4 * logits(r, w) - 8))),
    "softplus(4z)": lambda r, w: r(torch.nn.functional.softplus(r(4 * logits(r, w)))),
    "sigmoid(2z - 6)": lambda r, w: r(torch.sigmoid(r(2 * logits(r, w) - 6))),
    "ReLU of a ReLU": lambda r, w: r(torch.relu(r.product(r(torch.relu(logits(r, w, 16, 64))), w(64, 64)))),
    "cube": lambda r, w: r(r(logits(r, w) ** 2) * logits(r, w)),
    "detector": detector,
    "LSTM": lstm,
    "GRU": gru,
    "running sum": cumulative,
    "one channel x1000": outlier,
    "bottleneck of 4": bottleneck,
    "3 numbers": lambda r, w: r.product(mlp(r, w, 2, rows=1), w(64, 3)),
    "4 rows of 2": lambda r, w: r.product(mlp(r, w, 2, rows=4), w(64, 2)),
}
