"""Sizes of dynamic dimensions: combined, checked against the subject's ranges, and inputs resized to them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch

from harness.dimensions import dimensions
from harness.errors import UsageError, unknown_name
from harness.subject import Subject

Sizes = Mapping[str, int]
"""Size of a dynamic dimension by its symbol; an empty one keeps the sizes of a case."""
Sweep = tuple[str | None, Sequence[int]]
"""A dynamic dimension, by its symbol or None for dimension 0 of the inputs, and its sizes."""


def size_label(sizes: Sizes) -> str:
    """Return ``batch=4 tokens=16``; empty for the sizes of the case."""
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def case_label(case: str, sizes: Sizes) -> str:
    """Return the case and the sizes: ``short batch=4``."""
    return f"{case} {size_label(sizes)}".rstrip()


def combinations(subject: Subject, sweeps: Sequence[Sweep]) -> list[dict[str, int]]:
    """Return every combination of the sizes; without sweeps one empty combination.

    Raises UsageError for a dimension that the subject does not declare, or a size outside its range.
    """
    axes: dict[str, Sequence[int]] = {}
    for name, sizes in sweeps:
        symbol = batch_symbol(subject) if name is None else name
        if symbol in axes:
            raise UsageError(f"the sizes of {symbol} are given twice; use --batch or --sweep for it")
        axes[symbol] = sizes
    found = [dict(zip(axes, sizes, strict=True)) for sizes in itertools.product(*axes.values())]
    for one in found:
        check_sizes(subject, one)
    return found


def batch_symbol(subject: Subject) -> str:
    """Return the symbol of dimension 0 of the inputs. Raises UsageError for none or several."""
    if subject.onnx is not None:
        raise UsageError(
            f"the engine of {subject.onnx_file} is built for the shapes of its inputs; give them as --shape instead of "
            "--batch or --sweep"
        )
    symbols = sorted({dim.symbol for _, axis, dim in dimensions(subject.dynamic) if axis == 0})
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
    """Raise UsageError for a dimension that is not declared, or a size outside its range."""
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
    inputs: Mapping[str, torch.Tensor], dynamic: Mapping[str, Mapping[int, str | None]], sizes: Sizes
) -> dict[str, torch.Tensor]:
    """Return the inputs with every dynamic dimension that ``sizes`` names repeated, then cut, to its size."""
    found = dict(inputs)
    for name, axis, dim in dimensions(dynamic):
        if dim.symbol in sizes and name in found:
            size, tensor = dim.size(sizes[dim.symbol]), found[name]
            if size and not tensor.shape[axis]:
                raise UsageError(
                    f"input {name!r} is empty in dimension {axis}; time another case at {dim.symbol}={size}"
                )
            times = -(-size // max(tensor.shape[axis], 1))
            found[name] = torch.cat([tensor] * max(times, 1), dim=axis).narrow(axis, 0, size).contiguous()
    return found
