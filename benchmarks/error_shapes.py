"""How well an error is named from the tensors alone: every kind planted in tensors as networks have them.

    python benchmarks/error_shapes.py                 # 100 seeds of each kind: the confusion matrix
    python benchmarks/error_shapes.py --seeds 20

A seed chooses the tensor (hidden states with outlying channels, heads, probabilities, images, logits), the
precision, whose rounding lies on top of everything, and the figures of the error. What has no name of its own is
planted too: unrelated values, noise, smooth and sparse errors, those of two faults at once.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import torch
from torch.nn import functional

from harness.compare import UNIT_ROUNDOFF, error_shape
from harness.records import ErrorShape, ShapeKind

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SEEDS, FIRST = 100, 10_000
"""How many, and the first: the thresholds were chosen on smaller ones."""
FEWEST = 8
"""Elements that an entry has at least where errors are planted by entry."""


@dataclass(kw_only=True)
class Dice:
    """Random choices that a seed makes."""

    seed: int
    generator: torch.Generator = field(init=False)
    precision: str = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        self.precision = self.one_of("fp32", "fp16", "bf16")

    def number(self, low: float, high: float) -> float:
        """Return a number between two."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def one_of(self, *choices: Any) -> Any:
        """Return one of the choices."""
        return choices[self.whole(0, len(choices) - 1)]

    def normal(self, *shape: int) -> torch.Tensor:
        """Return normal numbers in float64."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def tensor(self) -> torch.Tensor:
        """Return a value as networks have them."""
        return cast("torch.Tensor", self.one_of(hidden, hidden, heads, probabilities, image, logits, small)(self))

    def fault(self) -> float:
        """Return a relative size that stands out from the rounding of the precision, of either sign."""
        least = {"fp32": 1e-3, "fp16": 0.03, "bf16": 0.2}[self.precision]
        return self.number(least, 4 * least) * self.one_of(-1, 1)

    def rounded(self, value: torch.Tensor) -> torch.Tensor:
        """Return what a kernel of the precision gives: sums of rounded terms, rounded."""
        roundoff = UNIT_ROUNDOFF[self.precision]
        noise = self.normal(*value.shape) * (0.4 * roundoff) * value.abs()
        return (value + noise).to(DTYPES[self.precision])


def hidden(dice: Dice) -> torch.Tensor:
    """Hidden states of a transformer: some channels are far larger, some lie beside zero."""
    channels = dice.one_of(32, 96, 256)
    size = 1 + 10 * (dice.normal(channels).abs() > 2)
    return dice.normal(dice.whole(1, 3), dice.whole(5, 40), channels) * size + dice.normal(channels) / 2


def heads(dice: Dice) -> torch.Tensor:
    """Queries, by head."""
    return dice.normal(dice.whole(1, 2), dice.one_of(4, 12), dice.whole(6, 24), dice.one_of(16, 32))


def probabilities(dice: Dice) -> torch.Tensor:
    """What an attention looks at."""
    tokens = dice.whole(8, 32)
    return torch.softmax(2 * dice.normal(dice.whole(1, 2), dice.one_of(4, 8), tokens, tokens), -1)


def image(dice: Dice) -> torch.Tensor:
    """Features of a convolution: smooth, behind a ReLU or not."""
    side = dice.one_of(12, 24, 32)
    rough = dice.normal(dice.whole(1, 2), dice.one_of(8, 24), side + 2, side + 2)
    smooth = functional.avg_pool2d(rough, 3, stride=1)
    return dice.one_of(smooth, smooth.relu())


def logits(dice: Dice) -> torch.Tensor:
    """Scores of classes."""
    return 3 * dice.normal(dice.whole(1, 4), dice.one_of(100, 1000))


def small(dice: Dice) -> torch.Tensor:
    """A small value: of a toy network, or pooled."""
    return cast("torch.Tensor", dice.one_of(dice.normal(2, 64), dice.normal(4, 8, 8), dice.normal(1, 3, 10, 10)))


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A value with a fault, and what is known beside it."""

    actual: torch.Tensor
    expected: torch.Tensor
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What must be found beside the kind."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What the function is told beside the tensors."""
    is_rounded: bool = True
    """Whether the rounding of the precision lies on top."""


def scale(dice: Dice) -> Planted:
    value, factor = dice.tensor(), 1 + dice.one_of(dice.fault(), dice.fault(), -2.0, 1.0)
    return Planted(actual=value * factor, expected=value, figures={"factor": factor})


def offset(dice: Dice) -> Planted:
    value = dice.tensor()
    constant = float(value.square().mean().sqrt()) * dice.fault() * 4
    return Planted(actual=value + constant, expected=value, figures={"factor": constant})


def constant_per_channel(dice: Dice) -> Planted:
    value, axis = with_axis(dice)
    shape = [size if k == axis else 1 for k, size in enumerate(value.shape)]
    constants = dice.normal(*shape) * value.square().mean().sqrt() * dice.fault() * 8
    return Planted(actual=value + constants, expected=value, figures={"axis": axis})


def scale_per_channel(dice: Dice) -> Planted:
    value, axis = with_axis(dice)
    shape = [size if k == axis else 1 for k, size in enumerate(value.shape)]
    factors = 1 + dice.normal(*shape) * dice.fault() * 8
    return Planted(actual=value * factors, expected=value, figures={"axis": axis})


def with_axis(dice: Dice) -> tuple[torch.Tensor, int]:
    """Return a value and one of its axes, of several entries with several elements each."""
    while True:
        value = dice.tensor()
        axes = [k for k, size in enumerate(value.shape) if 3 <= size <= value.numel() // FEWEST]
        if axes:
            return value, dice.one_of(*axes)


def some_entries(dice: Dice) -> tuple[torch.Tensor, int, int, int]:
    """Return a value, an axis, and the first and last of at most a third of its entries."""
    while True:
        value, axis = with_axis(dice)
        size = value.shape[axis]
        first = dice.whole(0, size - 1)
        last = dice.whole(first, min(first + size // 3 - 1, size - 1))
        if value.narrow(axis, first, last - first + 1).norm() > value.norm() / 100:
            return value, axis, first, last


def slice_(dice: Dice) -> Planted:
    value, axis, first, last = some_entries(dice)
    actual = value.clone()
    part = actual.narrow(axis, first, last - first + 1)
    kind = dice.one_of("scale", "zeros", None)
    figures: dict[str, Any] = {"axis": axis, "entries": ((first, last),), "part": kind}
    if kind == "scale":
        factor = dice.one_of(0.5, 1.5, -1.0)
        part.mul_(factor)
        figures["factor"] = factor
    elif kind == "zeros":
        part.zero_()
    else:
        part.copy_(dice.normal(*part.shape) * part.std())
    return Planted(actual=actual, expected=value, figures=figures)


def shift(dice: Dice) -> Planted:
    value = dice.tensor()
    axis = dice.one_of(*[k for k, size in enumerate(value.shape) if size >= 8])
    steps = dice.one_of(1, 1, -1, 2, -3)
    actual = value.roll(steps, axis)
    if dice.one_of(False, True):  # what runs over the edge is lost
        actual.narrow(axis, 0 if steps > 0 else value.shape[axis] + steps, abs(steps)).zero_()
    return Planted(actual=actual, expected=value, figures={"axis": axis, "steps": steps})


def transposed(dice: Dice) -> Planted:
    value = dice.one_of(probabilities, image, heads)(dice)
    order = dice.one_of((0, 1, 3, 2), (0, 2, 3, 1), (0, 2, 1, 3))
    return Planted(actual=value.permute(order).reshape(value.shape), expected=value, figures={"permutation": order})


def other_axis(dice: Dice) -> Planted:
    scores = 2 * dice.normal(dice.whole(1, 2), dice.one_of(4, 8), dice.whole(8, 32), dice.whole(8, 32))
    axis, right = dice.one_of((2, 3), (3, 2), (1, 3))
    actual, expected = torch.softmax(scores, axis), torch.softmax(scores, right)
    return Planted(actual=actual, expected=expected, figures={"axis": axis, "instead_of": right})


def saturation(dice: Dice) -> Planted:
    value = dice.tensor()
    end = float(value.flatten().quantile(dice.number(0.9, 0.98)))
    both = float(value.min()) < -end and dice.one_of(False, True)
    actual = value.clamp(-end if both else None, end)
    return Planted(actual=actual, expected=value, figures={} if both else {"factor": end})


def swapped(dice: Dice) -> Planted:
    value = dice.tensor()
    other = dice.normal(*value.shape) * value.std() + value.mean()
    given = {"others": {"first": dice.normal(*value.shape), "other": other, "last": dice.normal(3)}}
    return Planted(actual=other, expected=value, given=given, figures={"other": "other"})


def stale(dice: Dice) -> Planted:
    value = dice.tensor()
    before = value + dice.normal(*value.shape) * value.std() * dice.number(0.5, 2)
    given = {"previous": {"other": dice.normal(*value.shape), "before": before}}
    return Planted(actual=before, expected=value, given=given, figures={"other": "before"})


def random(dice: Dice) -> Planted:
    value = dice.tensor()

    def run() -> torch.Tensor:
        return value + dice.normal(*value.shape) * value.std() * (dice.normal(*value.shape) > 1)

    return Planted(actual=run(), expected=value, given={"runs": (value, run())})


def tf32_rounding(dice: Dice) -> Planted:
    dice.precision = "fp32"
    kept, first, second = dice.one_of(64, 512), dice.whole(8, 40), dice.one_of(24, 96)
    left, right = dice.normal(2, first, kept), dice.normal(kept, second)
    short = [_short(t, 2.0**-11, dice.one_of(False, True)) for t in (left, right)]
    return Planted(actual=short[0] @ short[1], expected=left @ right)


def _short(value: torch.Tensor, roundoff: float, towards_zero: bool) -> torch.Tensor:
    """Return a value with fewer bits."""
    part, exponent = value.frexp()
    steps = part / roundoff
    return torch.ldexp((steps.trunc() if towards_zero else steps.round()) * roundoff, exponent)


def fp16_rounding(dice: Dice) -> Planted:
    dice.precision = dice.one_of("fp32", "fp32", "fp16")
    if dice.precision == "fp32":
        value = dice.tensor()
        return Planted(actual=value.half().double(), expected=value)
    left, right = dice.normal(dice.whole(24, 64), 512), dice.normal(512, dice.one_of(48, 96))
    kept = torch.zeros(len(left), right.shape[1], dtype=torch.float16)
    for k in range(512):  # a sum that is kept in FP16
        kept += (left[:, k, None] * right[k]).half()
    return Planted(actual=kept.double(), expected=left @ right)


def bf16_rounding(dice: Dice) -> Planted:
    dice.precision = dice.one_of("fp32", "fp16")
    value = dice.tensor()
    if dice.precision == "fp32" and dice.one_of(False, True):
        kept, first, second = dice.one_of(64, 512), dice.whole(8, 40), dice.one_of(24, 96)
        left, right = dice.normal(2, first, kept), dice.normal(kept, second)
        return Planted(actual=left.bfloat16().double() @ right.bfloat16().double(), expected=left @ right)
    return Planted(actual=value.bfloat16().double(), expected=value, is_rounded=dice.precision == "fp32")


def non_finite(dice: Dice) -> Planted:
    value, axis, first, last = some_entries(dice)
    actual, figures = value.clone(), {}
    if dice.one_of(False, True):
        actual.narrow(axis, first, last - first + 1).fill_(float("nan"))
        figures = {"axis": axis, "entries": ((first, last),)}
    else:
        actual[dice.normal(*value.shape) > dice.one_of(1.5, -9.0)] = dice.one_of(float("nan"), float("inf"))
        actual.flatten()[0] = float("nan")
    return Planted(actual=actual, expected=value, figures={**figures, "count": int((~actual.isfinite()).sum())})


def zeros(dice: Dice) -> Planted:
    value = dice.tensor()
    return Planted(actual=torch.zeros_like(value), expected=value)


def decision(dice: Dice) -> Planted:
    scores = dice.normal(dice.whole(2, 8), dice.whole(8, 32))
    kind = dice.one_of("off", "some", "negated")
    if kind == "negated":
        return Planted(actual=scores <= 0, expected=scores > 0, figures={"part": "scale", "factor": -1.0})
    chosen = scores.argsort(1)
    if kind == "off":
        return Planted(actual=chosen + 1, expected=chosen, figures={"part": "offset", "factor": 1.0})
    actual = chosen.clone()
    actual[0, :3] = actual[0, [1, 2, 0]]
    return Planted(actual=actual, expected=chosen, figures={"count": 3, "elements": chosen.numel()})


def another_function(dice: Dice) -> Planted:
    value = dice.one_of(hidden, heads)(dice)
    choices = [
        (functional.gelu, torch.relu), (torch.relu, torch.nn.Identity()), (torch.tanh, functional.hardtanh),
        (functional.silu, functional.gelu), (functional.silu, torch.relu),
        (torch.sigmoid, functional.hardsigmoid), (torch.nn.Identity(), torch.tanh), (functional.elu, torch.selu),
    ]  # fmt: skip
    if dice.precision != "bf16":
        choices.append((torch.relu, functional.leaky_relu))
    if dice.precision == "fp32":
        choices.append((functional.gelu, lambda x: functional.gelu(x, approximate="tanh")))
        choices.append((functional.gelu, lambda x: x * torch.sigmoid(1.702 * x)))
    right, wrong = dice.one_of(*choices)
    return Planted(actual=wrong(value), expected=right(value))


def unknown(dice: Dice) -> Planted:
    value = dice.tensor()
    size = value.std() * dice.number(0.2, 0.5)
    noise = dice.normal(*value.shape) * size
    kind = dice.one_of("unrelated", "noise", "sparse", "smooth", "low rank", "two", "faint")
    if kind == "unrelated":
        return Planted(actual=dice.normal(*value.shape) * value.std(), expected=value)
    if kind == "faint":
        return Planted(actual=dice.normal(*value.shape) * value.std() * 0.02, expected=value)
    if kind == "sparse":
        noise = noise * (dice.normal(*value.shape) > 0.5)
    elif kind == "smooth":
        noise = size * torch.ones_like(value)
        for axis, entries in enumerate(value.shape):
            most = dice.number(2, 5) if entries > 4 else 1.0
            wave = torch.linspace(0, most, entries, dtype=torch.float64).cos()
            noise *= wave.view([-1 if k == axis else 1 for k in range(value.dim())])
    elif kind == "low rank":
        last = value.shape[-1]
        noise = size * (dice.normal(value.numel() // last, 2) @ dice.normal(2, last)).view(value.shape)
    elif kind == "two":
        noise = 0.3 * value + noise
    return Planted(actual=value + noise, expected=value)


PLANTS: Mapping[ShapeKind, Callable[[Dice], Planted]] = {
    kind: globals()["slice_" if kind == "slice" else kind] for kind in get_args(ShapeKind)
}


def found(kind: ShapeKind, seed: int) -> tuple[ErrorShape, Planted, str]:
    """Return what a planted error is named, what was planted, and in which precision."""
    dice = Dice(seed=seed)
    planted = PLANTS[kind](dice)
    actual, expected, low = planted.actual, planted.expected, None
    if actual.is_floating_point():
        actual = dice.rounded(actual) if planted.is_rounded else actual.to(DTYPES[dice.precision])
        low = dice.rounded(expected)
    return error_shape(actual, expected, low, precision=dice.precision, **planted.given), planted, dice.precision


def main() -> None:
    """Print the confusion matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    right = 0
    for kind in PLANTS:
        named = Counter(found(kind, FIRST + seed)[0].kind for seed in range(seeds))
        right += named[kind]
        rest = ", ".join(f"{count} {other}" for other, count in named.most_common() if other != kind)
        print(f"{kind:22}{named[kind]:5} of {seeds}{f'; {rest}' if rest else ''}")
    print(f"{right} of {seeds * len(PLANTS)} errors are named by their kind")


if __name__ == "__main__":
    main()
