"""Outputs of indices, labels, booleans and codes, element by element."""

from __future__ import annotations

import torch

from harness.compare.tensors import require_comparable
from harness.errors import EngineFailed
from harness.records import Decisions, WrongDecision


def count_differences(
    actual: torch.Tensor,
    expected: torch.Tensor,
    *,
    name: str = "",
    floor: torch.Tensor | None = None,
    wrong: torch.Tensor | None = None,
    right: torch.Tensor | None = None,
) -> Decisions:
    """Return how many elements differ, and the first that is wrong.

    ``wrong`` marks those that are no ties, by default all that differ; ``right`` is what should be there, by default
    the reference. No norm is taken: of two wrong indices the nearer one is no better. Raises EngineFailed when the
    shapes differ or ``actual`` holds floats in the place of integers or booleans, or fractions, NaN or infinities.
    """
    label = require_comparable(actual, expected, name)
    if actual.is_floating_point() and not expected.is_floating_point():
        found, wanted = (str(tensor.dtype).removeprefix("torch.") for tensor in (actual, expected))
        raise EngineFailed(f"{label} holds {found}, but should hold {wanted}")
    actual, expected = actual.cpu(), expected.cpu()
    if actual.is_floating_point() and (odd := (~actual.isfinite() | (actual != actual.trunc())).nonzero()).numel():
        at = odd[0].tolist()
        raise EngineFailed(
            f"{label} holds {actual[tuple(at)].item():g} at {at}; the reference holds whole numbers only"
        )
    right = expected if right is None else right.cpu()
    wrong = actual != right if wrong is None else wrong.cpu()
    differ = (actual != expected) | wrong
    has_floor = floor is not None and floor.shape == expected.shape
    first = wrong.nonzero()[:1].tolist()
    apart = (actual[wrong].double() - right[wrong].double()).abs()
    return Decisions(
        shape=tuple(expected.shape),
        dtype=str(actual.dtype).removeprefix("torch."),
        elements=expected.numel(),
        differ=int(differ.sum()),
        ties=int((differ & ~wrong).sum()),
        floor_differ=int((floor.cpu() != expected).sum()) if floor is not None and has_floor else None,
        largest=max(int(apart.max()), 1) if first else 0,  # FP64 holds no difference beyond 2^53
        zero=not (actual.any() or expected.any()),
        wrong=WrongDecision(
            index=tuple(first[0]), actual=int(actual[tuple(first[0])]), expected=int(right[tuple(first[0])])
        )
        if first
        else None,
    )
