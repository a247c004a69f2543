"""Weights that are no numbers: NaN keeps a subject from being judged, infinities explain outputs that hold any."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from harness.errors import NotJudged
from harness.sentences import Sentence

Weights = Iterable[tuple[str, object]]
"""By name; what is no tensor, such as text, is left out."""


def require_no_nan(name: str, weights: Weights) -> None:
    """Raise NotJudged for a weight of the subject ``name`` that holds NaN: a decision would not show it.

    A constant without a dimension may hold it: a graph fills with NaN what it replaces.
    """
    if words := _holding(torch.isnan, "NaN", ((path, it) for path, it in weights if getattr(it, "ndim", 0))):
        raise NotJudged(Sentence("weights_broken", name=name, words=words))


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
    others = Sentence("as_others_do", count=len(found) - 1) if len(found) > 1 else ""
    return Sentence("weight_holds", name=found[0][0], count=found[0][1], what=what, others=others)
