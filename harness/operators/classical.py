"""Operators of classical machine learning that are a formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.operators.registry import operator
from harness.operators.values import Unsupported

ML = "ai.onnx.ml"


@operator("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    y = x.index_select(-1, indices.reshape(-1).long())
    return y.reshape(1, -1) if x.ndim == 1 else y


@operator("Binarizer", domain=ML)
def binarizer(x: torch.Tensor, *, threshold: float = 0.0) -> torch.Tensor:
    return (x > threshold).to(x.dtype)


@operator("Scaler", domain=ML)
def scaler(x: torch.Tensor, *, offset: Sequence[float], scale: Sequence[float]) -> torch.Tensor:
    values = x if x.is_floating_point() else x.float()
    return (values - values.new_tensor(offset)) * values.new_tensor(scale)


@operator("Normalizer", domain=ML)
def normalizer(x: torch.Tensor, *, norm: str = "MAX") -> torch.Tensor:
    """Rows over their largest size, sum of sizes, or length; rows of zeros stay."""
    values = x if x.is_floating_point() else x.float()
    orders = {"MAX": float("inf"), "L1": 1.0, "L2": 2.0}
    if norm not in orders:
        raise Unsupported(f"the norm {norm!r}")
    size = torch.linalg.vector_norm(values, orders[norm], -1, keepdim=True)
    return torch.where(size == 0, values, values / size)


@operator("LinearRegressor", domain=ML)
def linear_regressor(
    x: torch.Tensor,
    *,
    coefficients: Sequence[float],
    intercepts: Sequence[float] | None = None,
    post_transform: str = "NONE",
    targets: int = 1,
) -> torch.Tensor:
    if post_transform != "NONE":
        raise Unsupported(f"the transform {post_transform!r}")
    values = x if x.is_floating_point() else x.float()
    y = values @ values.new_tensor(coefficients).reshape(targets, -1).T
    return y if intercepts is None else y + values.new_tensor(intercepts)
