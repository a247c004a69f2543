"""Operators that work element by element."""

from __future__ import annotations

import torch

from harness.operators.registry import operator


@operator("Relu")
def relu(x: torch.Tensor) -> torch.Tensor:
    return x.relu()
