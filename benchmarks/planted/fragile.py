"""Networks that FP16 cannot compute, since PyTorch itself loses too much in it; each module is one unit of a plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.planted.networks import Network, Tensors, normal

WIDTH = 16


class Own(nn.Module):
    """A module with weights of its own and no module inside."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(normal(*it, seed=it[0] + 7 * n)) for n, it in enumerate(shapes))

    def product(self, x: Tensor, number: int = 0) -> Tensor:
        return x @ self.weights[number] / math.sqrt(self.weights[number].shape[0])


class Layer(Own):
    """What is healthy: normalise, multiply, GELU, add."""

    def __init__(self, number: int) -> None:
        super().__init__((WIDTH, WIDTH), (WIDTH, WIDTH))
        for weight in self.weights:
            weight.data.copy_(normal(*weight.shape, seed=100 + number))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.product(functional.layer_norm(x, (WIDTH,))))
        return x + self.product(y, 1)


class Attention(Own):
    """Queries and keys so large that their product is beyond FP16, before it is scaled."""

    def __init__(self, gain: float = 120.0) -> None:
        super().__init__(*3 * ((WIDTH, WIDTH),))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.product(x, number) for number in range(3))
        scores = (self.gain * q) @ (self.gain * k).transpose(-1, -2) / self.gain**2
        return x + scores.softmax(-1) @ v


class Rms(nn.Module):
    """Mean square of numbers of ``gain``: above 256 their squares are beyond FP16."""

    def __init__(self, gain: float = 400.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        y = self.gain * x
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)


class Normalised(nn.Module):
    """Squares that are summed beyond FP16, though each of them is within it."""

    def forward(self, x: Tensor) -> Tensor:
        y = 100.0 * x.flatten(1)
        return (40.0 * y / y.square().sum(-1, keepdim=True).sqrt()).reshape(x.shape)


class Variance(nn.Module):
    """E[x^2] - E[x]^2 of numbers that lie close together, far from zero."""

    def __init__(self, mean: float = 30.0) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.mean
        variance = (y * y).mean(-1, keepdim=True) - y.mean(-1, keepdim=True) ** 2
        return x * torch.rsqrt(variance.abs() + 1e-3)


class Swamped(nn.Module):
    """Added to something large, which is subtracted again."""

    def __init__(self, by: float = 2048.0) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.by) - self.by


class Logarithm(nn.Module):
    """The logarithm of powers that are zero in FP16."""

    def __init__(self, gain: float = 1e-4) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        power = (self.gain * x).square()
        return x + 0.1 * torch.log(power.clamp_min(1e-12))


class Forgotten(nn.Module):
    """The logarithm of a small power and a constant that PyTorch's exporter takes for zero, and leaves out."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.log((1e-4 * x).square() + 1e-9)


class Exponentials(nn.Module):
    """Exponentials beyond FP16, divided by their sum."""

    def __init__(self, gain: float = 6.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        y = torch.exp(self.gain * x)
        return x + y / y.sum(-1, keepdim=True)


class Reciprocal(nn.Module):
    """One over numbers that FP16 has only a few bits for."""

    def __init__(self, gain: float = 3e-6) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        small = self.gain * (1.0 + torch.sigmoid(x))
        return x * (self.gain / small)


class Phase(nn.Module):
    """The sine of a large angle."""

    def __init__(self, turns: float = 2000.0) -> None:
        super().__init__()
        self.turns = turns

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(0.3 * x + self.turns)


class LogSigmoid(nn.Module):
    """The odds of a probability that FP16 rounds to 1."""

    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(2.0 * x + 8.0)
        return 0.5 * (torch.log(p) - torch.log((1.0 + 2.0**-14) - p)) - 4.0


class Smooth(nn.Module):
    """The square root of a small square and a smaller constant."""

    def forward(self, x: Tensor) -> Tensor:
        small = 3e-4 * x
        return x * (small / torch.sqrt(small * small + 1e-7))


class Router(Own):
    """Two scores whose weights differ by less than FP16 can tell; the larger one chooses."""

    def __init__(self) -> None:
        super().__init__((WIDTH, 1), (2, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        score = 8.0 + self.product(x)
        chosen = torch.cat([score, score + 1e-3 * torch.sign(x.sum(-1, keepdim=True))], -1).argmax(-1)
        return x * (1.0 + 0.5 * self.weights[1][chosen])


class Stream(Own):
    """Adds a projection of x and an offset that the next one makes larger: what comes later rounds coarser."""

    def __init__(self, offset: float) -> None:
        super().__init__((WIDTH, WIDTH))
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return x + (0.1 * self.product(x - x.mean(-1, keepdim=True)) + self.offset)


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True)


class Cumulative(nn.Module):
    """A running sum that grows until the next number is lost, and its differences."""

    def __init__(self, offset: float = 300.0) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        total = torch.cumsum(x + self.offset, -1)
        return torch.cat([total[..., :1], total[..., 1:] - total[..., :-1]], -1) - self.offset


class Chain(nn.Module):
    """Modules one behind the other."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


class Flat(Chain):
    """The same, all of it at the root: every value is a unit of its own."""

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part.forward(x)
        return x


class Either(nn.Module):
    """The product of what two modules lose: one that loses nothing is enough."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.early, self.late = Layer(0), Swamped(), Swamped()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + 2.0 * (self.early(x) - x) * (self.late(y) - y)


class Cancelling(nn.Module):
    """Two modules whose losses cancel as long as both are in FP16, and one that loses alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.bad, self.left, self.right = Layer(0), Swamped(), Swamped(), Swamped()

    def forward(self, x: Tensor) -> Tensor:
        return self.bad(self.body(x)) + (self.left(x) - self.right(x))


class Branches(nn.Module):
    """Three modules beside each other; those that lose are all needed."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.third = parts
        self.body = Layer(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.first(x) + self.second(x) + self.third(x))


def _chain(*parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Chain([part() for part in parts])


def _flat(*parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Flat([part() for part in parts])


def _inputs(shape: tuple[int, ...] = (2, 8, WIDTH)) -> Tensors:
    return {"x": normal(*shape)}


def layer(number: int) -> Callable[[], nn.Module]:
    return partial(Layer, number)


def around(weak: Callable[[], nn.Module], before: int = 1, after: int = 2) -> Callable[[], nn.Module]:
    """Return a chain of healthy layers with a weak module between them."""
    return _chain(*map(layer, range(before)), weak, *map(layer, range(before, before + after)))


WEAK: dict[str, Callable[[], nn.Module]] = {
    "attention": Attention, "rms": Rms, "normalised": Normalised, "variance": Variance, "swamped": Swamped,
    "logarithm": Logarithm, "exponentials": Exponentials, "reciprocal": Reciprocal, "phase": Phase,
    "odds": LogSigmoid, "smooth": Smooth, "router": Router, "cumulative": Cumulative,
}  # fmt: skip
LARGE = ("variance", "cumulative")
"""Those of which so many values are needed that all sets can be tried only where there is nothing else."""
FRAGILE = {
    network.name: network
    for network in (
        *(Network(name=name, module=around(weak), inputs=_inputs) for name, weak in WEAK.items()),
        *(Network(name=f"{name}-first", module=around(weak, 0, 3), inputs=_inputs) for name, weak in WEAK.items()),
        *(Network(name=f"{name}-last", module=around(weak, 4, 0), inputs=_inputs) for name, weak in WEAK.items()),
        *(
            Network(name=f"{name}-flat", module=_flat(weak, *[layer(0)] * (name not in LARGE)), inputs=_inputs)
            for name, weak in WEAK.items()
        ),
        Network(name="two-flat", module=_flat(Swamped, Phase), inputs=_inputs),
        Network(name="stream-flat", module=_flat(partial(Stream, 256.0), Centre), inputs=_inputs),
        Network(name="forgotten", module=around(Forgotten), inputs=_inputs),
        Network(name="either", module=Either, inputs=_inputs),
        Network(name="cancelling", module=Cancelling, inputs=_inputs),
        Network(name="two-apart", module=_chain(layer(0), Swamped, layer(1), Rms, layer(2)), inputs=_inputs),
        Network(name="two-together", module=_chain(layer(0), Logarithm, Rms, layer(1)), inputs=_inputs),
        Network(name="three-apart", module=_chain(Variance, layer(0), Swamped, layer(1), Phase), inputs=_inputs),
        Network(name="two-beside", module=lambda: Branches(Swamped(), Centre(), Phase()), inputs=_inputs),
        Network(name="three-beside", module=lambda: Branches(Swamped(), Variance(), Phase()), inputs=_inputs),
        Network(
            name="stream",
            module=_chain(layer(0), *(partial(Stream, 4.0 * 4**n) for n in range(4)), Centre),
            inputs=_inputs,
        ),
        Network(
            name="two-swamped", module=_chain(Swamped, layer(0), partial(Swamped, 4096.0), layer(1)), inputs=_inputs
        ),
    )
}
"""By name."""
