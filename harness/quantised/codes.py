"""Codes on their grid: how far two lie apart, and how far a value lies from the tie between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness.operators import CARRIED, RANGES, codes, kind_of_codes, spread


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a ``QuantizeLinear`` may give for one tensor: its scale and zero point in the shape of the tensor."""

    kind: str
    """The ONNX type of the codes: ``INT8``, ``FLOAT8E4M3FN``..."""
    scale: torch.Tensor
    zero: torch.Tensor | None

    @staticmethod
    def of(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, settings: Mapping[str, Any]) -> Grid:
        """Return the grid of a node with these inputs and attributes."""
        axis, block = settings.get("axis", 1), settings.get("block_size", 0)
        kind = kind_of_codes(zero, settings["input_types"], settings.get("output_dtype_type"))
        by = spread(scale.double(), x, axis, block)
        return Grid(kind=kind, scale=by, zero=None if zero is None else spread(zero, x, axis, block))

    def ratio(self, x: torch.Tensor, *, reciprocal: bool = False) -> torch.Tensor:
        """Return a tensor in units of its scale, in FP64."""
        return x.double() * (1 / self.scale).float().double() if reciprocal else x.double() / self.scale

    def codes(self, ratio: torch.Tensor) -> torch.Tensor:
        """Return the codes of numbers in units of the scale: clipped to the range, ties to even; FP8 keeps NaN."""
        return codes(ratio, self.zero, self.kind)

    def places(self, found: torch.Tensor) -> torch.Tensor:
        """Return the place of every code among all codes in order, so that neighbours are 1 apart."""
        if self.kind in RANGES:
            return found.long()
        bits = found.view(torch.uint8).long()
        size = bits & 0x7F
        return torch.where(bits > 0x7F, -size, size)

    def to_ties(self, ratio: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how far numbers in units of the scale are above the tie below a code, and below the tie above it.

        At an end of the range there is no tie, and the distance is infinite.
        """
        here = self._numbers(places)
        below, above = self._numbers(places - 1), self._numbers(places + 1)
        return ratio - (below + here) / 2, (here + above) / 2 - ratio

    def _numbers(self, places: torch.Tensor) -> torch.Tensor:
        """Return what codes stand for in units of the scale; minus and plus infinity beyond the ends."""
        if self.kind in RANGES:
            low, high = RANGES[self.kind]
            numbers = places.double()
            numbers = torch.where(places < low, -torch.inf, torch.where(places > high, torch.inf, numbers))
            return numbers if self.zero is None else numbers - self.zero.double()
        dtype = CARRIED[self.kind]
        last = int(torch.tensor(torch.finfo(dtype).max).to(dtype).view(torch.uint8))
        size = places.abs().clamp(max=last)
        numbers = size.to(torch.uint8).view(dtype).double()
        numbers = torch.where(places.abs() > last, torch.inf, numbers)
        return torch.where(places < 0, -numbers, numbers)

    def not_numbers(self, found: torch.Tensor) -> torch.Tensor:
        """Return where codes are NaN or infinity, which integers never are."""
        if self.kind in RANGES:
            return torch.zeros_like(found, dtype=torch.bool)
        return ~found.float().isfinite()
