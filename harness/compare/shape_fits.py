"""A value beside the one it should be, and how well a kind of error fits what lies between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch

from harness.compare.formats import UNIT_ROUNDOFF
from harness.lazy import special
from harness.records import ErrorShape

MOST = 2**20
"""Elements that are looked at: of a larger value every third, seventh, ... entry of its longest axes."""
EXPLAINS = 0.9
"""Share of the squared error that a kind must explain."""
ALONE = 0.99
"""The same where what remains is more than rounding."""
NEAR = 4.0
"""What remains may be so many times the rounding that is expected there."""
UNKNOWN_ROUNDING = 8.0
"""Roundings of an element that are expected where PyTorch's value in the precision is not known."""
CHANCE = 1e-8
"""Largest chance that an error without any structure is fitted as well."""
FEWEST = 4
"""Elements that must be left beside the numbers that were fitted."""
EXACT = 2.0**-48
"""Share of the squared error that counts as left where nothing is."""
CONSTANT = 1e-10
"""A tensor whose variance is below this share of its mean square is constant."""


def total(values: torch.Tensor, dims: Sequence[int] | None = None) -> torch.Tensor:
    """Return a sum of everything or over some axes; of none the values as they are."""
    return values.sum() if dims is None else values.sum(tuple(dims)) if dims else values


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A value of floats beside the one it should be, all finite."""

    actual: torch.Tensor
    expected: torch.Tensor
    error: torch.Tensor
    """``actual - expected``."""
    lost: torch.Tensor | None
    """What PyTorch loses of each element in the engine's precision; None where it is not known."""
    precision: str

    @classmethod
    def of(cls, actual: torch.Tensor, expected: torch.Tensor, low: torch.Tensor | None, precision: str) -> Self:
        """Return the pair; elements that are not finite on both sides are taken for 0 on both."""
        actual, expected = actual.to(expected.device, torch.float64), expected.double()
        both = actual.isfinite() & expected.isfinite()
        if not bool(both.all()):
            actual, expected = actual.where(both, 0.0), expected.where(both, 0.0)
        lost = None
        if low is not None:
            lost = low.to(expected.device, torch.float64) - expected
            lost = lost.where(lost.isfinite() & both, 0.0)
        return cls(actual=actual, expected=expected, error=actual - expected, lost=lost, precision=precision)

    def part(self, axis: int, entries: torch.Tensor) -> Pair:
        """Return some entries of an axis."""
        actual, expected, error = (t.index_select(axis, entries) for t in (self.actual, self.expected, self.error))
        lost = None if self.lost is None else self.lost.index_select(axis, entries)
        return replace(self, actual=actual, expected=expected, error=error, lost=lost)

    @property
    def elements(self) -> int:
        return self.error.numel()

    @property
    def roundoff(self) -> float:
        """Relative error of an element that is expected of the engine in any case."""
        return UNIT_ROUNDOFF[self.precision] * (UNKNOWN_ROUNDING if self.lost is None else 1.0)

    @cached_property
    def squared(self) -> float:
        """The squared error."""
        return float(total(self.error.square()))

    @cached_property
    def norms(self) -> tuple[float, float]:
        """Squared norms of the actual and of the expected value."""
        return float(total(self.actual.square())), float(total(self.expected.square()))

    @cached_property
    def noise(self) -> float:
        """The squared error that rounding is expected to make."""
        lost = 0.0 if self.lost is None else float(total(self.lost.square()))
        return lost + self.roundoff**2 * self.norms[1]

    @cached_property
    def variances(self) -> tuple[float, float]:
        """Squared distances of the actual and of the expected value from their means."""
        return spread(self.actual), spread(self.expected)

    @cached_property
    def is_constant(self) -> bool:
        """Whether the expected value has no shape of its own that anything could be told by."""
        return self.variances[1] <= CONSTANT * self.norms[1]


class Whole:
    """A value as it is; pairs are taken from it, of no more than MOST elements where there is an axis to thin."""

    def __init__(self, actual: torch.Tensor, expected: torch.Tensor, low: torch.Tensor | None, precision: str) -> None:
        self.actual, self.expected, self.precision = actual, expected, precision
        self.low = low if low is not None and low.shape == expected.shape else None
        self._pairs: dict[tuple[int, ...], Pair] = {}

    @property
    def shape(self) -> torch.Size:
        return self.expected.shape

    def pair(self, axis: int | None = None) -> Pair:
        """Return the elements to look at, all entries of an axis among them."""
        steps = self._steps(axis)
        if steps not in self._pairs:
            low = None if self.low is None else self.thin(self.low, axis)
            actual, expected = self.thin(self.actual, axis), self.thin(self.expected, axis)
            self._pairs[steps] = Pair.of(actual, expected, low, self.precision)
        return self._pairs[steps]

    def thin(self, tensor: torch.Tensor, axis: int | None = None) -> torch.Tensor:
        """Return the elements of another tensor of this shape that :meth:`pair` has."""
        return tensor[tuple(slice(None, None, step) for step in self._steps(axis))]

    def _steps(self, axis: int | None) -> tuple[int, ...]:
        steps, left = [1] * len(self.shape), list(self.shape)
        others = [k for k in range(len(left)) if k != axis]
        while math.prod(left) > MOST and any(left[k] > 1 for k in others):
            longest = max(others, key=left.__getitem__)
            steps[longest] = 2 * steps[longest] + 1
            left[longest] = -(-self.shape[longest] // steps[longest])
        return tuple(steps)


def spread(values: torch.Tensor) -> float:
    """Return the squared distance of values from their mean."""
    return float(total((values - total(values) / values.numel()).square())) if values.numel() else 0.0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well one kind of error fits."""

    shape: ErrorShape
    residual: float
    """Squared error that remains."""
    squared: float
    """Squared error that there is."""
    noise: float
    """Squared error that rounding makes there."""
    elements: int
    own: float | None
    """Squared deviation that must be explained as well, so that a constant is no likeness; None where nothing must."""
    parameters: int = 1
    """Numbers that were chosen to fit; 0 for what is a fact and no fit."""

    @property
    def explained(self) -> float:
        return 1 - self.residual / self.squared if self.squared else 0.0

    @property
    def is_near(self) -> bool:
        """Whether what remains is rounding."""
        return self.residual <= NEAR**2 * self.noise

    @property
    def holds(self) -> bool:
        """Whether the kind may be named: it explains nearly all, and chance would not."""
        least, degrees = EXPLAINS if self.is_near else ALONE, self.elements - self.parameters
        if not self.explained >= least:
            return False
        if self.own is not None and not (self.residual <= (1 - least) * self.own or self.residual <= self.noise):
            return False
        if not self.parameters:
            return self.elements > 1
        if degrees < FEWEST:
            return False
        share = min(max(self.residual / self.squared, self.noise / self.squared, EXACT), 1.0)
        return bool(special.betainc(degrees / 2, self.parameters / 2, share) <= CHANCE)

    def named(self) -> ErrorShape:
        """Return the shape with the share that it explains."""
        return replace(self.shape, explained=max(0.0, min(1.0, self.explained)))


def first_fit(fits: Iterable[Fit]) -> Fit | None:
    """Return the first that leaves nothing but rounding, else the first that explains nearly all; None without any."""
    less = None
    for fit in fits:
        if fit.holds:
            if fit.is_near:
                return fit
            less = less or fit
    return less
