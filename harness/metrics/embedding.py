"""Metrics of embeddings: what a retrieval or similarity task sees of an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
