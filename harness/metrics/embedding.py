"""Metrics of embeddings: what a retrieval or similarity task sees of an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    import torch


def cosine(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the cosine similarity of each sample, float64 [n]; both are [n, ...] of one shape.

    A sample that holds a NaN or an infinity gets NaN, one that is all zeros gets 0. Raises UsageError when the shapes
    differ.
    """
    import torch

    if actual.shape != expected.shape or actual.ndim < 2:
        shapes = f"{list(actual.shape)} against {list(expected.shape)}"
        raise UsageError(f"cosine: {shapes}; give two tensors [n, ...] of one shape")
    left, right = (tensor.detach().flatten(1).double().cpu() for tensor in (actual, expected))
    # Scaled first: the square of a large FP32 value overflows nowhere in float64, but that of a float64 one does.
    left, right = (tensor / tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-300) for tensor in (left, right))
    return torch.nn.functional.cosine_similarity(left, right, dim=1)


def pair_similarity(embeddings: torch.Tensor) -> torch.Tensor:
    """Return the cosine similarity of rows 0 and 1, rows 2 and 3, and so on.

    ``embeddings`` is [2n, d]; the result is [n], in float64.
    """
    import torch

    return torch.nn.functional.cosine_similarity(embeddings[0::2].double(), embeddings[1::2].double(), dim=1)


def ranks(scores: torch.Tensor) -> torch.Tensor:
    """Return each score's rank, 0 for the largest; [n] in, [n] int64 out. Equal scores rank in their order."""
    import torch

    order = torch.argsort(scores, descending=True, stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
