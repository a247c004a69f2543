"""Weights that are no numbers: NaN keeps a subject from being judged, infinities explain outputs that hold any."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from harness.errors import NotJudged

Weights = Iterable[tuple[str, object]]
"""By name; what is no tensor, such as text, is left out."""


def require_no_nan(name: str, weights: Weights) -> None:
    """Raise NotJudged for a weight of the subject ``name`` that holds NaN: a decision would not show it.

    A constant without a dimension may hold it: a graph fills with NaN what it replaces.
    """
    if words := _holding(torch.isnan, "NaN", ((path, it) for path, it in weights if getattr(it, "ndim", 0))):
        raise NotJudged(f"{name}: {words}; repair the checkpoint")


def infinite_words(weights: Weights) -> str:
    """Return which weight holds infinities, as a mask may; empty where none does."""
    return _holding(torch.isinf, "Inf", weights)


def _holding(is_one: Callable[[torch.Tensor], torch.Tensor], what: str, weights: Weights) -> str:
    """Return the first weight with elements of a kind, and how many other weights have any; empty for none."""
    tensors = [(path, it) for path, it in weights if isinstance(it, torch.Tensor) and it.is_floating_point()]
    counts = [(path, int(is_one(it).sum())) for path, it in tensors if it.element_size() > 1]
    found = [(path, count) for path, count in counts if count]
    if not found:
        return ""
    others = f", as {len(found) - 1} more do" if len(found) > 1 else ""
    return f"weight {found[0][0]!r} holds {found[0][1]} {what}{others}"
