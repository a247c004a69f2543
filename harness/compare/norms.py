"""Distances of tensors as one number, where no more than that is asked."""

from __future__ import annotations

import math

import torch

from harness.errors import NotJudged
from harness.tensors import Tensors


def relative_l2(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of ``expected``, in float64; inf when either is not finite."""
    difference = (actual.double() - expected.double()).norm().item()
    norm = expected.double().norm().item()
    if not math.isfinite(difference) or not math.isfinite(norm):
        return math.inf
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def finite_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return :func:`relative_l2` over the finite elements; inf when shapes or the places of the others differ."""
    finite = expected.isfinite()
    if actual.shape != expected.shape or not torch.equal(actual.isfinite(), finite):
        return math.inf
    return relative_l2(actual[finite], expected[finite])


def total_error(actual: Tensors, expected: Tensors) -> float:
    """Return the largest relative L2 error of any output; infinite where one is not finite or has another shape."""
    return max((finite_error(actual[name], tensor) for name, tensor in expected.items()), default=math.inf)


def require_close(
    actual: Tensors, expected: Tensors, *, limit: float, sentence: str, error_type: type[NotJudged] = NotJudged
) -> None:
    """Raise ``error_type`` with ``sentence`` (which gets ``{name}`` and ``{error}``) when an output differs by more."""
    for name, tensor in expected.items():
        other = actual[name]
        if torch.equal(other.to(tensor.dtype), tensor):
            continue
        floats = tensor.is_floating_point()
        error = finite_error(other, tensor) if floats else float((other != tensor).double().mean())
        if error > limit:
            raise error_type(sentence.format(name=name, error=f"{error:.3g}"))
