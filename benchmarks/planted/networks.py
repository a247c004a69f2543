"""Small networks of many architectures, with random weights, and networks that FP16 cannot compute.

All of them take a few milliseconds, and hold nothing whose order or size depends on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.planted.pictures import Decoder, Detector, Mobilenet, Resnet, Unet

Tensors = dict[str, Tensor]
WIDTH, HEADS = 32, 4


def normal(*shape: int, seed: int = 1, gain: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * gain


def codes(*shape: int, below: int = 50) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(3))


def separate(x: Tensor) -> Tensor:
    """Return heads: [batch, heads, length, features]."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Softmax attention with three projections; ``causal`` hides what comes later."""

    def __init__(self, width: int = WIDTH, *, causal: bool = False, length: int = 8) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.causal = causal
        mask = torch.full((length, length), -1e4).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = separate(self.query(x)), separate(self.key(x)), separate(self.value(x))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.causal:
            scores = scores + self.mask
        return self.out((torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """A layer of a transformer, normalised first."""

    def __init__(self, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention(causal=causal)
        self.norm2, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(Encoder() for _ in range(depth)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class PostNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm1 = Attention(), nn.LayerNorm(WIDTH)
        self.up, self.down, self.norm2 = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.down(functional.gelu(self.up(x))))


class Bert(nn.Module):
    """Tokens in, the states and a pooled vector out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.norm = nn.Embedding(50, WIDTH), nn.Embedding(8, WIDTH), nn.LayerNorm(WIDTH)
        self.layers, self.pooler = nn.ModuleList(PostNorm() for _ in range(2)), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.words(tokens) + self.places.weight)
        for layer in self.layers:
            x = layer(x)
        return {"hidden": x, "pooled": torch.tanh(self.pooler(x[:, 0]))}


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.layers = nn.Embedding(50, WIDTH), nn.ModuleList(Encoder(causal=True) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 50, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, WIDTH, 8, 8), nn.Parameter(normal(1, 1, WIDTH))
        self.places, self.layers = nn.Parameter(normal(1, 17, WIDTH)), nn.ModuleList(Encoder() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class Recurrent(nn.Module):
    """LSTM and GRU behind each other, with projections around."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.lstm = nn.Linear(16, WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.between, self.gru = nn.Linear(WIDTH, WIDTH), nn.GRU(WIDTH, 16, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lstm(torch.tanh(self.enter(x)))[0]
        return self.head(self.gru(functional.gelu(self.between(x)))[0])


class Mixture(nn.Module):
    """Four experts: the best two of each token by top-k, then one by argmax."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.router, self.second = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)
        self.experts, self.scales = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4)), nn.Embedding(4, WIDTH)
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        weights, chosen = torch.topk(torch.softmax(3 * self.router(normed), -1), 2, -1)
        every = torch.stack([functional.gelu(expert(normed)) for expert in self.experts], -2)
        picked = torch.gather(every, -2, chosen.unsqueeze(-1).expand(-1, -1, -1, WIDTH))
        x = x + (picked * weights.unsqueeze(-1)).sum(-2)
        return self.head(x * self.scales(self.second(x).argmax(-1)))


class RmsNorm(nn.Module):
    def __init__(self, width: int = WIDTH, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(1 + normal(width, gain=0.1)), epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


class Rotary(nn.Module):
    """Attention with rotary positions and a causal mask, as in LLaMA."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        angle = torch.arange(8)[:, None] / 100 ** (torch.arange(4) / 4)
        self.register_buffer("cos", torch.cat([angle, angle], -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angle, angle], -1).sin(), persistent=False)
        self.register_buffer("seen", torch.ones(8, 8, dtype=torch.bool).tril(), persistent=False)

    def turn(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return x * self.cos + torch.cat([-right, left], -1) * self.sin

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.turn(separate(self.query(x))), self.turn(separate(self.key(x))), separate(self.value(x))
        scores = torch.where(self.seen, q @ k.transpose(-1, -2) * 8**-0.5, -1e4)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm1, self.attention, self.norm2 = nn.Embedding(50, WIDTH), RmsNorm(), Rotary(), RmsNorm()
        self.gate, self.up, self.down = (nn.Linear(*sizes, bias=False) for sizes in ((32, 64), (32, 64), (64, 32)))
        self.norm, self.head = RmsNorm(), nn.Linear(WIDTH, 50, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return self.head(self.norm(x + self.down(functional.silu(self.gate(y)) * self.up(y))))


class Conformer(nn.Module):
    """Half a feed-forward, attention, a gated depthwise convolution in time, the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm1, self.up1, self.down1 = nn.Linear(20, 32), nn.LayerNorm(32), *_pair()
        self.norm2, self.attention, self.norm3 = nn.LayerNorm(32), Attention(), nn.LayerNorm(32)
        self.wide, self.depth = nn.Conv1d(32, 64, 1), nn.Conv1d(32, 32, 5, padding=2, groups=32, bias=False)
        self.batch, self.narrow = nn.BatchNorm1d(32), nn.Conv1d(32, 32, 1)
        self.norm4, self.up2, self.down2, self.norm5 = nn.LayerNorm(32), *_pair(), nn.LayerNorm(32)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.enter(frames)
        x = x + 0.5 * self.down1(functional.silu(self.up1(self.norm1(x))))
        x = x + self.attention(self.norm2(x))
        y = functional.glu(self.wide(self.norm3(x).transpose(1, 2)), 1)
        x = x + self.narrow(functional.silu(self.batch(self.depth(y)))).transpose(1, 2)
        return self.norm5(x + 0.5 * self.down2(functional.silu(self.up2(self.norm4(x)))))


def _pair() -> tuple[nn.Linear, nn.Linear]:
    return nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)


class Gated(nn.Module):
    """One projection for Q, K and V, one for gate and value: everything is a chunk of something."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(WIDTH, 128) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(64, WIDTH) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in range(2):
            q, k, v = self.qkv[layer](self.norms[2 * layer](x)).chunk(3, -1)
            x = x + (q @ k.transpose(-1, -2) / math.sqrt(WIDTH)).softmax(-1) @ v
            value, gate = self.gates[layer](self.norms[2 * layer + 1](x)).chunk(2, -1)
            x = x + self.downs[layer](value * functional.gelu(gate))
        return x


class Spectrogram(nn.Module):
    """Power of a filter bank, logarithm, a small network, exponential."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.bank = nn.Conv1d(1, 32, 16, 8, bias=False), nn.Linear(16, 20, bias=False)
        self.norm, self.body, self.head = nn.LayerNorm(20), nn.Linear(20, 32), nn.Linear(32, 20)
        self.bank.weight.data.abs_()

    def forward(self, wave: Tensor) -> Tensor:
        real, imaginary = self.filters(wave.unsqueeze(1)).chunk(2, 1)
        power = (real.square() + imaginary.square()).transpose(1, 2)
        decibels = torch.log(self.bank(power) + 1e-3)
        return torch.exp(0.3 * self.head(functional.leaky_relu(self.body(self.norm(decibels)), 0.1)))


class Towers(nn.Module):
    """Two encoders of one size, each with an output of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = (nn.Sequential(Encoder(), nn.LayerNorm(WIDTH)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensors:
        return {"image": self.image(x).mean(1), "text": self.text(x.flip(-1)).mean(1)}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network and its inputs."""

    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[], Tensors]
    seed: int = 0

    def other_inputs(self) -> Tensors:
        """Return inputs of the same sizes: the batch in the other order."""
        return {name: tensor.flip(0) for name, tensor in self.inputs().items()}

    def build(self) -> nn.Module:
        """Return the module; norms have weights and statistics that are not 1 and 0, or a fault in them would hide."""
        torch.manual_seed(self.seed)
        module = self.module().eval()
        norms = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)
        for number, norm in enumerate(part for part in module.modules() if isinstance(part, norms)):
            norm.weight.data += normal(*norm.weight.shape, seed=number, gain=0.2)
            norm.bias.data += normal(*norm.bias.shape, seed=number + 1, gain=0.2)
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean += normal(*norm.weight.shape, seed=number + 2, gain=0.2)
                norm.running_var *= 1 + normal(*norm.weight.shape, seed=number + 3, gain=0.2).abs()
        return module


def _states() -> Tensors:
    return {"x": normal(2, 8, WIDTH)}


def _tokens() -> Tensors:
    return {"tokens": codes(2, 8)}


NETWORKS = {
    network.name: network
    for network in (
        Network(name="transformer", module=Transformer, inputs=_states),
        Network(name="deep", module=partial(Transformer, 8), inputs=_states),
        Network(name="bert", module=Bert, inputs=_tokens),
        Network(name="gpt", module=Gpt, inputs=_tokens),
        Network(name="vit", module=Vit, inputs=lambda: {"image": normal(2, 3, 32, 32)}),
        Network(name="resnet", module=Resnet, inputs=lambda: {"image": normal(2, 3, 32, 32)}),
        Network(name="unet", module=Unet, inputs=lambda: {"image": normal(2, 3, 16, 16)}),
        Network(name="decoder", module=Decoder, inputs=lambda: {"latents": normal(2, 4, 8, 8)}),
        Network(name="recurrent", module=Recurrent, inputs=lambda: {"x": normal(2, 6, 16)}),
        Network(name="mixture", module=Mixture, inputs=_states),
        Network(name="llama", module=Llama, inputs=_tokens),
        Network(name="mobilenet", module=Mobilenet, inputs=lambda: {"image": normal(2, 3, 16, 16)}),
        Network(name="conformer", module=Conformer, inputs=lambda: {"frames": normal(2, 8, 20)}),
        Network(name="gated", module=Gated, inputs=_states),
        Network(name="spectrogram", module=Spectrogram, inputs=lambda: {"wave": normal(2, 128)}),
        Network(name="towers", module=Towers, inputs=_states),
        Network(name="detector", module=Detector, inputs=lambda: {"image": normal(2, 3, 16, 16)}),
    )
}
"""The architectures, by name."""
