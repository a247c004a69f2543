"""Copies in an output, as of a batch that repeats one input: they prove nothing, and chance meets them once."""

from __future__ import annotations

import torch

LEAST = 16
"""Elements that a slice must have: fewer are alike by chance."""
MOST = 2**14
"""Slices along an axis, at most, among which copies are sought."""


def without_copies(tensors: tuple[torch.Tensor, ...]) -> tuple[tuple[torch.Tensor, ...], dict[int, list[int]]]:
    """Return tensors of one shape without the slices that repeat an earlier one in all, and by axis what is kept.

    Slices that begin alike in the last tensor are compared whole. An axis without copies is not in the second result.
    """
    kept: dict[int, list[int]] = {}
    for axis, size in enumerate(tensors[-1].shape):
        last = tensors[-1]
        if not 1 < size <= MOST or last.numel() < LEAST * size:
            continue
        begin = last[tuple(slice(None) if k == axis else slice(2) for k in range(last.dim()))]
        _, groups = torch.unique(begin.movedim(axis, 0).reshape(size, -1), dim=0, return_inverse=True)
        first: dict[int, int] = {}
        source = [first.setdefault(group, i) for i, group in enumerate(groups.tolist())]
        if len(first) == size:
            continue
        same = torch.ones(size, dtype=torch.bool)
        for tensor in tensors:
            other = tensor.index_select(axis, torch.tensor(source, device=tensor.device))
            same &= (tensor == other).movedim(axis, 0).reshape(size, -1).all(1).cpu()
        keep = [i for i in range(size) if source[i] == i or not same[i]]
        if len(keep) < size:
            kept[axis] = keep
            tensors = tuple(t.index_select(axis, torch.tensor(keep, device=t.device)) for t in tensors)
    return tensors, kept
