"""Sizes of dynamic dimensions: which are declared, whether an engine holds them, and inputs made to fit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.errors import UsageError, unknown_name
from harness.subject import Subject

if TYPE_CHECKING:
    import torch


Sizes = Mapping[str, int]
"""Size of a dynamic dimension by its symbol; an empty one leaves a case as it is."""


def size_label(sizes: Sizes) -> str:
    """Return ``batch=4 tokens=16``; empty for a case as it is."""
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def batch_symbol(subject: Subject) -> str:
    """Return the symbol of dimension 0 of the inputs. Raises UsageError where there is none, or more than one."""
    if subject.onnx is not None:
        raise UsageError(
            f"the engine of {subject.onnx} is built for the shapes of its inputs; give them as --shape instead of "
            "--batch or --sweep"
        )
    symbols = sorted({dims[0] for dims in subject.dynamic.values() if 0 in dims})
    if len(symbols) > 1:
        raise UsageError(
            f"dimension 0 of {subject.name}'s inputs is {' or '.join(symbols)}; say which: --sweep {symbols[0]}=1,2,4"
        )
    if not symbols:
        example = next(iter(subject.dynamic), "x")
        raise UsageError(
            f"{subject.name} has no dynamic dimension 0; declare it with dynamic={{{example!r}: {{0: 'batch'}}}} and "
            "ranges={'batch': (1, 8)}"
        )
    return symbols[0]


def check_sizes(subject: Subject, sizes: Sizes) -> None:
    """Raise UsageError for a dimension that is not declared, or a size that the engine's profile does not hold."""
    if sizes and subject.onnx is not None:
        batch_symbol(subject)
    for symbol, size in sizes.items():
        if symbol not in subject.ranges:
            raise unknown_name(f"dynamic dimension of {subject.name}", symbol, subject.ranges)
        low, high = subject.ranges[symbol]
        if not low <= size <= high:
            raise UsageError(
                f"{subject.name}: {symbol}={size} is outside {low} to {high}, which its engines are built for; widen "
                f"ranges={{{symbol!r}: ...}} or leave it out"
            )


def resized(
    inputs: Mapping[str, torch.Tensor], dynamic: Mapping[str, Mapping[int, str]], sizes: Sizes
) -> dict[str, torch.Tensor]:
    """Return the inputs with every dynamic dimension that ``sizes`` names repeated, then cut, to its size."""
    import torch

    found = dict(inputs)
    for name, dims in dynamic.items():
        for axis, symbol in dims.items():
            if symbol in sizes and name in found:
                size, tensor = sizes[symbol], found[name]
                times = -(-size // tensor.shape[axis])
                found[name] = torch.cat([tensor] * times, dim=axis).narrow(axis, 0, size).contiguous()
    return found
