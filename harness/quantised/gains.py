"""Results that no code comes after: what they lose in a whole slice alike, which rounding hides in each element."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from harness.lazy import special
from harness.sentences import Sentence
from harness.tensors import Tensors

CHANCE = 1e-6
"""How often the slices of a right result may be called wrong."""


class Gains:
    """By how much slices of a result are too large or too small, held against runs moved by their rounding.

    The gain of a slice is the slope of error on value, sum(error * value) / sum(value^2). In it rounding averages out,
    and a wrong scale or axis does not. A kernel may round to one side, so explained are the rounding of all elements
    with one sign, sum(|value| * deviation) / sum(value^2), and beside it the spread of the gains of the moved runs.
    """

    def __init__(self, exact: Mapping[str, torch.Tensor]) -> None:
        self._exact = {name: tensor.double() for name, tensor in exact.items() if tensor.is_floating_point()}
        self._squares = {name: torch.zeros_like(tensor) for name, tensor in self._exact.items()}
        self._gains = {name: [0.0 * it for it in _slices(tensor, tensor)] for name, tensor in self._exact.items()}
        self._runs = 0

    def add(self, moved: Tensors) -> None:
        """Count a run in which every value was moved by its rounding."""
        self._runs += 1
        for name, exact in self._exact.items():
            error = moved[name].double() - exact
            self._squares[name] += error**2
            self._gains[name] = [
                total + gain**2 for total, gain in zip(self._gains[name], _slices(error, exact), strict=True)
            ]

    def wrong(self, name: str, actual: torch.Tensor) -> str:
        """Return what is wrong with a result, the worst slice; empty where nothing is."""
        exact = self._exact.get(name)
        if exact is None or not exact.numel() or not self._runs or actual.shape != exact.shape:
            return ""
        gains = list(_slices(actual.to(exact.device).double() - exact, exact))
        one_sided = _slices((self._squares[name] / self._runs).sqrt(), exact.abs())
        slices = max(sum(it.numel() for it in gains), 1)
        window = float(-special.stdtrit(self._runs, CHANCE / (2 * slices)))
        worst = 1.0
        words: str = ""
        for axis, (gain, most, spread) in enumerate(zip(gains, one_sided, self._gains[name], strict=True)):
            limit = most + window * (spread / self._runs).sqrt()
            ratio = (gain.abs() / limit).nan_to_num(nan=0.0, posinf=0.0)
            at = int(ratio.argmax())
            if float(ratio[at]) > worst:
                worst, size = float(ratio[at]), float(gain[at])
                figures = {"at": at, "axis": axis, "size": abs(size), "limit": float(limit[at])}
                words = Sentence("gain_too_large", **figures) if size > 0 else Sentence("gain_too_small", **figures)
        return words


def _slices(error: torch.Tensor, value: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the gains of all slices along each axis; NaN for a slice of zeros."""
    fine = error.isfinite() & value.isfinite()
    error, value = torch.where(fine, error, 0.0), torch.where(fine, value, 0.0)
    for axis in range(value.ndim):
        others = [dim for dim in range(value.ndim) if dim != axis]
        products, squares = error * value, value**2
        yield (products.sum(others) / squares.sum(others)) if others else products / squares
