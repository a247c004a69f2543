"""A module with an output of every kind of decision, inputs with near ties at known places, and changes of outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fake import Tensors

TOKENS, VOCABULARY, NEAR = 64, 3000, 5


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Decides(torch.nn.Module):
    """One output of every kind; ``scale`` is what a low precision rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0009))

    def forward(self, logits, mask, pixels, unsorted, boxes):
        logits, mask, unsorted = self.scale * logits, self.scale * mask, self.scale * unsorted
        best, order = unsorted.topk(40, dim=-1)
        return {
            "ids": logits.argmax(-1),
            "shifted": logits.argmax(-1) % 1000 + 7,
            "above": mask > 0.5,
            "band": (mask > 0.5) & (mask < 1.5),
            "where": (mask > 0.5).nonzero(),
            "picture": (pixels * self.scale * 254).round().clamp(0, 255).to(torch.uint8),
            "cut": (pixels * self.scale * 254).to(torch.uint8),
            "sorted": unsorted.sort(-1, descending=True).indices,
            "best": best,
            "order": order,
            "corners": boxes.gather(1, order[..., None].expand(-1, -1, 4)),
        }


def logits() -> torch.Tensor:
    """Return [64, 3000] with a clear winner in every row, but in row 5, where FP16 rounds two to one number."""
    values = random(TOKENS, VOCABULARY)
    values.scatter_(1, values.argmax(-1, keepdim=True), 6.0)
    row = values[NEAR]
    row[row == 6.0] = 0.0
    row[100], row[100 + 1500] = 6.0 * (1 - 2.0**-14), 6.0  # of equal ones the first is taken
    return values


def near_half() -> torch.Tensor:
    """Return [512] of which the eighth is nearer to 0.5 than FP16 can tell."""
    values = random(512, seed=1)
    values[7] = 0.5 / 1.0009 * (1 + 2.0**-14)
    values[(values - 0.5).abs() < 0.01] = 0.6
    values[7] = 0.5 / 1.0009 * (1 + 2.0**-14)
    return values


def unsorted() -> torch.Tensor:
    """Return [1, 64], 0.1 apart but for places 3 and 4, and 39 and 40, of the order, which are near ties."""
    ordered = 7.0 - 0.1 * torch.arange(64.0)
    ordered[4] = ordered[3] * (1 - 2.0**-13)
    ordered[40] = ordered[39] * (1 - 2.0**-13)
    return ordered[torch.randperm(64, generator=torch.Generator().manual_seed(2))][None]


def given() -> Tensors:
    return {
        "logits": logits(),
        "mask": near_half(),
        "pixels": torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(3)),
        "unsorted": unsorted(),
        "boxes": random(1, 64, 4, seed=4) * 300,
    }


def altered(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Tensors], Tensors]:
    """Return a change of one output in place."""

    def apply(outputs: Tensors) -> Tensors:
        change(outputs[name])
        return outputs

    return apply


def flip(*places: int, by: int = 1) -> Callable[[torch.Tensor], None]:
    def change(tensor: torch.Tensor) -> None:
        for place in places:
            tensor[place] = ~tensor[place] if tensor.dtype == torch.bool else (tensor[place] + by) % VOCABULARY

    return change


def swap(*pairs: tuple[int, int]) -> Callable[[torch.Tensor], None]:
    def change(tensor: torch.Tensor) -> None:
        for first, second in pairs:
            tensor[0, [first, second]] = tensor[0, [second, first]]

    return change


def together(change: Callable[[torch.Tensor], None]) -> Callable[[Tensors], Tensors]:
    """Return a change of all that is ordered by the scores."""

    def apply(outputs: Tensors) -> Tensors:
        for name in ("best", "order", "corners"):
            change(outputs[name])
        return outputs

    return apply
