"""Operators of sequences (lists of tensors) and of optional values (None where there is none)."""

from __future__ import annotations

from typing import Any

import torch

from harness.operators.registry import operator
from harness.operators.values import Unsupported

Tensors = list[torch.Tensor]


@operator("SequenceConstruct")
def sequence_construct(*inputs: torch.Tensor) -> Tensors:
    return list(inputs)


@operator("SequenceEmpty")
def sequence_empty(*, dtype: torch.dtype = torch.float32) -> Tensors:
    return []


@operator("SequenceAt")
def sequence_at(sequence: Tensors, position: torch.Tensor) -> torch.Tensor:
    return sequence[int(position.item())]


@operator("SequenceInsert")
def sequence_insert(sequence: Tensors, tensor: torch.Tensor, position: torch.Tensor | None = None) -> Tensors:
    place = len(sequence) if position is None else int(position.item())
    place = place + len(sequence) if place < 0 else place
    return [*sequence[:place], tensor, *sequence[place:]]


@operator("SequenceErase")
def sequence_erase(sequence: Tensors, position: torch.Tensor | None = None) -> Tensors:
    place = (-1 if position is None else int(position.item())) % len(sequence)
    return [*sequence[:place], *sequence[place + 1 :]]


@operator("SequenceLength")
def sequence_length(sequence: Tensors) -> torch.Tensor:
    device = sequence[0].device if sequence else None
    return torch.tensor(len(sequence), dtype=torch.int64, device=device)


@operator("SplitToSequence")
def split_to_sequence(
    x: torch.Tensor, split: torch.Tensor | None = None, *, axis: int = 0, keepdims: int = 1
) -> Tensors:
    if split is None:
        return list(torch.split(x, 1, axis)) if keepdims else list(x.unbind(axis))
    if split.ndim:
        return list(torch.split(x, split.tolist(), axis))
    return list(torch.split(x, int(split.item()), axis))


@operator("ConcatFromSequence")
def concat_from_sequence(sequence: Tensors, *, axis: int, new_axis: int = 0) -> torch.Tensor:
    return torch.stack(sequence, axis) if new_axis else torch.cat(sequence, axis)


@operator("Optional")
def optional(value: Any = None, *, type: Any = None) -> Any:
    return value


@operator("OptionalGetElement")
def optional_get_element(value: Any) -> Any:
    if value is None:
        raise Unsupported("an optional value without an element")
    return value


@operator("OptionalHasElement")
def optional_has_element(value: Any = None) -> torch.Tensor:
    device = value.device if isinstance(value, torch.Tensor) else None
    return torch.tensor(value is not None, device=device)
