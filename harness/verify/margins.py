"""How far a decision was from another one, against the error that PyTorch makes there.

A decision of the reference is excused where it could have come out differently: where its margin is at most the
``reach`` of the deciding values' errors. The reach of a value is ``FACTOR`` times the largest error of the floor among
the values most like it (with :func:`confidence_factor` where those are few), and never less than ``FACTOR`` roundings
of the value itself. ``benchmarks/decisions.py`` measures what that excuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from harness.compare import UNIT_ROUNDOFF
from harness.verify.deciders import COMPARISONS, Decider
from harness.verify.parts import FACTOR
from harness.verify.tolerance import FP32_HOLDS, HOLDS, confidence_factor

ALIKE = 64
"""How many values of the most similar size tell the error of one: by magnitude, along the axis of an ArgMax by rank."""


@dataclass(frozen=True, kw_only=True)
class Deciding:
    """A value that decisions are made of, on the CPU in FP64."""

    reference: torch.Tensor
    floor: torch.Tensor
    """In the plan's precision; the reference itself for a constant."""
    roundoff: float
    """Of one rounding in the format it is computed in; 0 for a constant that the format holds."""

    @property
    def error(self) -> torch.Tensor:
        """What PyTorch loses, by element; infinite where only the floor is not finite."""
        error = (self.floor - self.reference).abs()
        lost = self.reference.isfinite() & ~self.floor.isfinite()
        return torch.where(lost, math.inf, torch.nan_to_num(error, nan=0.0, posinf=0.0))

    @property
    def held(self) -> bool:
        """Whether PyTorch holds the value in the precision at all: an error like the value itself excuses nothing."""
        error = self.error[self.reference.isfinite()].norm()
        limit = FP32_HOLDS if self.roundoff <= UNIT_ROUNDOFF["fp32"] else HOLDS
        return bool(error <= limit * self.reference[self.reference.isfinite()].norm())

    def reach(self, axis: int | None = None) -> torch.Tensor:
        """Return the largest error that may excuse a decision, by element.

        The values most like an element are those of the nearest magnitudes in the tensor, or of the nearest ranks
        along ``axis``.
        """
        error = torch.nan_to_num(self.error, posinf=0.0) if self.held else torch.zeros_like(self.reference)
        by = self.reference.abs() if axis is None else self.reference
        count = self.reference.numel() if axis is None else self.reference.shape[axis]
        nearby = _largest_nearby(error, by, axis) * confidence_factor(min(count, ALIKE))
        rounding = torch.nan_to_num(self.reference.abs(), nan=0.0, posinf=0.0) * self.roundoff
        return FACTOR * torch.maximum(nearby, rounding)


def _largest_nearby(error: torch.Tensor, by: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Return the largest error among the ``ALIKE`` elements that are nearest in the order of ``by``."""
    moved_error, moved_by = (t.reshape(1, -1) if axis is None else t.movedim(axis, -1) for t in (error, by))
    order = moved_by.argsort(dim=-1, stable=True)
    rows = moved_error.gather(-1, order).reshape(-1, 1, order.shape[-1])
    largest = torch.nn.functional.max_pool1d(rows, ALIKE + 1, stride=1, padding=ALIKE // 2).reshape(order.shape)
    found = torch.empty_like(moved_error).scatter_(-1, order, largest)
    return found.reshape(error.shape) if axis is None else found.movedim(-1, axis)


@dataclass(frozen=True, kw_only=True)
class Margin:
    """The distance of decisions from other ones, by element, as FP64."""

    margin: torch.Tensor
    """In the unit of the deciding values; infinite for what can never be decided there, NaN where one of them is."""
    reach: torch.Tensor
    """The largest margin that is excused."""
    loses: torch.Tensor
    """What PyTorch in the engine's precision loses of the deciding values; infinite where it does not hold them."""

    @property
    def tied(self) -> torch.Tensor:
        """Where the other decision is excused."""
        return self.margin <= self.reach


class Weighed(Protocol):
    """The decisions of one node, and what could have been decided instead."""

    decided: torch.Tensor
    """What the reference decides."""

    def alternatives(self) -> Iterator[torch.Tensor]:
        """Yield other decisions for every element, the nearest first."""

    def margin(self, other: torch.Tensor) -> Margin:
        """Return the margin of the reference's decisions over others."""


def weigh(decider: Decider, decided: torch.Tensor, values: Mapping[str, Deciding]) -> Weighed:
    """Return the decisions of a node with the values it reads, by name."""
    read = [values[name] for name in decider.reads]
    if decider.op in COMPARISONS:
        return Comparison(decided, *read)
    if decider.op == "QuantizeLinear":
        axis = decider.node.attributes.get_int("axis", 1)
        return Rounding(decided, read[0], "Round", scale=read[1:], axis=axis)
    if decider.op in ("ArgMax", "ArgMin"):
        axis = decider.node.attributes.get_int("axis", 0)
        kept = bool(decider.node.attributes.get_int("keepdims", 1))
        return Best(decided, read[0], axis=axis, largest=decider.op == "ArgMax", kept=kept)
    if decider.op == "TopK":
        return Placed(decided, read[0], axis=decider.node.attributes.get_int("axis", -1))
    return Rounding(decided, read[0], decider.op)


def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return how far two values are apart: of equal infinities 0, and of NaN NaN, which excuses nothing."""
    return torch.where(one == other, 0.0, (one - other).abs())


def _lost(gap: Deciding, *made_of: Deciding) -> torch.Tensor:
    return gap.error if all(value.held for value in made_of) else torch.full_like(gap.reference, math.inf)


class Comparison:
    """``a > b`` and its kin: the other answer is ``|a - b|`` away."""

    def __init__(self, decided: torch.Tensor, a: Deciding, b: Deciding) -> None:
        self.decided = decided
        reference, floor = a.reference - b.reference, a.floor - b.floor
        self._margin = Margin(
            margin=apart(a.reference, b.reference),
            reach=torch.hypot(a.reach(), b.reach()),
            loses=_lost(Deciding(reference=reference, floor=floor, roundoff=0.0), a, b),
        )

    def alternatives(self) -> Iterator[torch.Tensor]:
        yield ~self.decided

    def margin(self, other: torch.Tensor) -> Margin:
        return self._margin


class Rounding:
    """Rounding to whole numbers, and signs: another code is as far away as the nearest number that gives it."""

    def __init__(
        self, decided: torch.Tensor, x: Deciding, kind: str, *, scale: list[Deciding] | None = None, axis: int = 1
    ) -> None:
        self.decided, self._x, self._kind = decided, x.reference, kind
        self._reach, self._loses = x.reach(), _lost(x, x)
        self._scale, self._zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        limits: torch.finfo | torch.iinfo | None = None
        if scale:
            self._scale, *zero = (_along(it.reference, x.reference, axis) for it in scale)
            self._zero = zero[0] if zero else self._zero
        if decided.dtype not in (torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64):
            limits = torch.iinfo(decided.dtype)
        self._low, self._high = (-math.inf, math.inf) if limits is None else (float(limits.min), float(limits.max))
        self._saturates = scale is not None

    def alternatives(self) -> Iterator[torch.Tensor]:
        if self.decided.dtype == torch.bool:
            yield ~self.decided
            return
        low, high = (-1.0, 1.0) if self._kind == "Sign" else (self._low, self._high)
        for distance in range(1, 3 if self._kind == "Sign" else 129):
            for sign in (1, -1):
                yield (self.decided.double() + sign * distance).clamp(low, high).to(self.decided.dtype)

    def margin(self, other: torch.Tensor) -> Margin:
        low, high = self._interval(other)
        if self._saturates:
            low = torch.where(other.double() <= self._low, -math.inf, low)
            high = torch.where(other.double() >= self._high, math.inf, high)
        x, zero = self._x, self._x.new_zeros(())
        away = torch.maximum(torch.maximum(low * self._scale - x, x - high * self._scale), zero)
        away = torch.where(other == self.decided, 0.0, torch.nan_to_num(away, nan=math.inf, posinf=math.inf))
        away = torch.where(x.isnan(), math.nan, away)
        return Margin(margin=away, reach=self._reach, loses=self._loses)

    def _interval(self, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the least and the largest number, in codes, that is rounded so."""
        code = other.double() - self._zero
        if other.dtype == torch.bool:
            return torch.where(other, -math.inf, 0.0), torch.where(other, math.inf, 0.0)
        if self._kind == "Sign":
            return torch.where(code < 0, -math.inf, 0.0), torch.where(code > 0, math.inf, 0.0)
        if self._kind == "Round":
            return code - 0.5, code + 0.5
        if self._kind == "Floor":
            return code, code + 1
        if self._kind == "Ceil":
            return code - 1, code
        return torch.where(code <= 0, code - 1, code), torch.where(code >= 0, code + 1, code)  # towards zero


def _along(parameter: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return a scale or a zero point shaped so that it meets ``x``: one for all, or one per place of an axis."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * x.dim()
    shape[axis] = parameter.numel()
    return parameter.reshape(shape)


class Best:
    """ArgMax and ArgMin: another index is as far away as its value is from the best one."""

    def __init__(self, decided: torch.Tensor, x: Deciding, *, axis: int, largest: bool, kept: bool) -> None:
        self.decided, self._x, self._axis, self._largest, self._kept = decided, x, axis, largest, kept
        self._reach = x.reach(axis)

    def alternatives(self) -> Iterator[torch.Tensor]:
        ranked = self._x.reference.argsort(dim=self._axis, descending=self._largest, stable=True)
        for rank in range(ranked.shape[self._axis]):
            place = ranked.select(self._axis, rank)
            yield (place.unsqueeze(self._axis) if self._kept else place).to(self.decided.dtype)

    def margin(self, other: torch.Tensor) -> Margin:
        best, place = (t.long() if self._kept else t.long().unsqueeze(self._axis) for t in (self.decided, other))
        found = _between(self._x, self._reach, best, place, self._axis)
        margin, reach, loses = (t if self._kept else t.squeeze(self._axis) for t in found)
        return Margin(margin=margin, reach=reach, loses=loses)


class Placed:
    """The indices of a TopK. Near ties among them are settled for all outputs together: here is only their margin."""

    def __init__(self, decided: torch.Tensor, x: Deciding, *, axis: int) -> None:
        self.decided, self._x, self._axis = decided, x, axis

    def alternatives(self) -> Iterator[torch.Tensor]:
        return iter(())

    def margin(self, other: torch.Tensor) -> Margin:
        found = _between(self._x, self._x.reach(self._axis), self.decided.long(), other.long(), self._axis)
        return Margin(**dict(zip(("margin", "reach", "loses"), found, strict=True)))


def _between(
    x: Deciding, reach: torch.Tensor, chosen: torch.Tensor, other: torch.Tensor, axis: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return margin, reach and loss between the values at two indices along an axis; no margin beyond its end."""
    possible = (other >= 0) & (other < x.reference.shape[axis])
    other = torch.where(possible, other, chosen)

    def gap(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.gather(axis, chosen) - tensor.gather(axis, other)

    margin = apart(x.reference.gather(axis, chosen), x.reference.gather(axis, other))
    loses = _lost(Deciding(reference=gap(x.reference), floor=gap(x.floor), roundoff=0.0), x)
    both = torch.hypot(reach.gather(axis, chosen), reach.gather(axis, other))
    return torch.where(possible, margin, math.inf), both, loses


def roundoff_of(dtype: str, *, tf32: bool = False) -> float:
    """Return the largest relative error of one rounding in a compute dtype (``float16``); 0 beyond FP32."""
    names = {"float32": "tf32" if tf32 else "fp32", "float16": "fp16", "bfloat16": "bf16"}
    return UNIT_ROUNDOFF.get(names.get(dtype, ""), 0.0)
