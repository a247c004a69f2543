"""Operators that sort: the largest, and the distinct."""

from __future__ import annotations

import torch

from harness.operators.registry import operator
from harness.operators.values import signed


@operator("TopK")
def top_k_by_attribute(x: torch.Tensor, *, k: int, axis: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
    return _top(x, k, axis, largest=True)


@operator("TopK", since=10)
def top_k(
    x: torch.Tensor, k: torch.Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    return _top(x, int(k.item()), axis, largest=bool(largest))


def _top(x: torch.Tensor, k: int, axis: int, *, largest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    # Of equal elements ONNX takes those with the lower index, which torch.topk does not promise.
    values, places = signed(x).sort(dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k).to(x.dtype), places.narrow(axis, 0, k)


@operator("Unique")
def unique(
    x: torch.Tensor, *, axis: int | None = None, sorted: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the distinct elements (or slices of an axis), where each is first, which one each is, and how often."""
    distinct = signed(x) if axis is not None else signed(x).reshape(-1)
    along = axis or 0
    dim = along if distinct.ndim > 1 else None  # with a dim, NaN among the numbers disturbs PyTorch's sort
    values, which, counts = torch.unique(distinct, return_inverse=True, return_counts=True, dim=dim)
    count = distinct.shape[along]
    first = torch.full_like(counts, count).scatter_reduce(0, which, torch.arange(count, device=x.device), "amin")
    if not sorted:
        order = first.argsort()
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        values, first, which, counts = values.index_select(along, order), first[order], place[which], counts[order]
    return values.to(x.dtype), first, which, counts
