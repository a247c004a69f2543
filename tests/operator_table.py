"""PyTorch's exporter makes its table of operators anew for every export; of a small model's that is two thirds."""

from __future__ import annotations

import copy
import functools
from typing import Any


@functools.cache
def share() -> None:
    """Let this process make the table once, for as long as it lives."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    make = functools.cache(ONNXRegistry.from_torchlib)

    def from_torchlib(*version: Any, **named: Any) -> ONNXRegistry:
        table = copy.copy(make(*version, **named))
        table.functions = {name: list(found) for name, found in table.functions.items()}
        return table

    ONNXRegistry.from_torchlib = staticmethod(from_torchlib)
