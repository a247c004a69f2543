"""Metrics of embeddings: what a retrieval or similarity task sees of an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    import torch


def cosine(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Return the cosine similarity of each sample, float64 [n]; both are [n, ...] of one shape.

    A sample that holds a NaN or an infinity gets NaN, one that is all zeros gets 0. Raises UsageError when the shapes
    differ, for nothing, and for what is not floating point.
    """
    import torch

    if actual.shape != expected.shape or actual.ndim < 2 or not actual.numel():
        shapes = f"{list(actual.shape)} against {list(expected.shape)}"
        raise UsageError(f"cosine: {shapes}; give two tensors [n, ...] of one shape, with an element at least")
    _check_floating("cosine", actual, expected)
    left, right = (tensor.detach().flatten(1).double().cpu() for tensor in (actual, expected))
    # Scaled first: the square of a large FP32 value overflows nowhere in float64, but that of a float64 one does.
    left, right = (tensor / tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-300) for tensor in (left, right))
    return torch.nn.functional.cosine_similarity(left, right, dim=1)


def pair_similarity(embeddings: torch.Tensor) -> torch.Tensor:
    """Return the cosine similarity of rows 0 and 1, rows 2 and 3, and so on; NaN where one is not finite.

    ``embeddings`` is [2n, d]; the result is [n], in float64. Raises UsageError for another shape, and for what is not
    floating point.
    """
    if embeddings.ndim != 2 or len(embeddings) % 2 or not embeddings.numel():
        raise UsageError(f"pair similarity: embeddings of {list(embeddings.shape)}; give [2n, d]")
    return cosine(embeddings[0::2], embeddings[1::2])


def ranks(scores: torch.Tensor) -> torch.Tensor:
    """Return each score's rank, 0 for the largest; [n] in, [n] int64 out. Equal scores rank in their order.

    Raises UsageError for another shape, for nothing, for what is not floating point, and where a score is NaN: it has
    no rank, and a sort puts it first.
    """
    import torch

    if scores.ndim != 1 or not len(scores):
        raise UsageError(f"ranks: scores of {list(scores.shape)}; give [n], at least one")
    _check_floating("ranks", scores)
    if scores.isnan().any():
        raise UsageError(f"ranks: score {int(scores.isnan().nonzero()[0])} is NaN and has no rank")
    order = torch.argsort(scores, descending=True, stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def _check_floating(name: str, *tensors: torch.Tensor) -> None:
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise UsageError(f"{name}: a tensor of {tensor.dtype}; give floating point")
