"""Distances of tensors as one number, where no more than that is asked."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from harness.errors import NotJudged
from harness.tensors import Tensors

FAITHFUL = 2.0**-14
"""Largest relative L2 distance of two FP32 computations of one model: other kernels, other order of summation."""


def ratio(error: float, norm: float) -> float:
    """Return ``error / norm``; by zero 0 for no error, and an infinity of the error's sign for any other."""
    if norm:
        return error / norm
    return math.copysign(math.inf, error) if error else 0.0


def relative_l2(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ``|actual - expected| / |expected|`` (Euclidean norms, float64) of two tensors on one device.

    Infinite when their shapes differ or either holds NaN or an infinity.
    """
    if actual.shape != expected.shape:
        return math.inf
    wide = torch.complex128 if actual.is_complex() or expected.is_complex() else torch.float64
    error = (actual.to(wide) - expected.to(wide)).norm().item()
    norm = expected.to(wide).norm().item()
    return ratio(error, norm) if math.isfinite(error) and math.isfinite(norm) else math.inf


def finite_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return :func:`relative_l2` over the finite elements; inf for another shape, NaN or infinity than expected."""
    if actual.shape != expected.shape:
        return math.inf
    finite = expected.isfinite()
    others, theirs = actual[~finite], expected[~finite]
    met = bool(((others == theirs) | (others.isnan() & theirs.isnan())).all())
    return relative_l2(actual[finite], expected[finite]) if met else math.inf


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return :func:`finite_error` of floats, of others the share of elements that differ; inf for another shape.

    The NaN of both are equal, and so are empty tensors.
    """
    if actual.shape != expected.shape:
        return math.inf
    actual = actual.to(expected.device)
    if expected.is_floating_point() or not expected.numel():
        return finite_error(actual, expected)
    return float((actual != expected).double().mean())


def total_error(actual: Tensors, expected: Tensors) -> float:
    """Return the largest error of any output: of floats the relative L2 error, of others the share that differs.

    Infinite where one is not finite or has another shape.
    """
    return max((distance(actual[name], tensor) for name, tensor in expected.items()), default=math.inf)


def require_close(
    actual: Tensors,
    expected: Tensors,
    *,
    limit: float,
    sentence: Callable[[str, float], str],
    error_type: type[NotJudged] = NotJudged,
) -> None:
    """Hold outputs against expected ones, by name.

    The error is :func:`distance`. Raises ``error_type`` with
    ``sentence`` of a name and an error, when one is beyond ``limit``.
    """
    for name, tensor in expected.items():
        error = distance(actual[name], tensor)
        if error > limit:
            raise error_type(sentence(name, error))
