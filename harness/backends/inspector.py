"""What the engine inspector lists of an engine's kernels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One layer of an engine."""

    index: int
    """Its position in the engine inspector's list, which is the order of execution."""
    name: str
    nodes: tuple[str, ...]
    """The ONNX nodes in it; none for what the builder added, such as a copy."""
    reads: tuple[str, ...]
    """The engine's names of what it reads."""
    writes: tuple[str, ...]
    """The engine's names of what it writes."""


def read_kernels(layers: Iterable[Mapping[str, Any]]) -> list[Kernel]:
    """Return the kernels of an engine from the engine inspector's layers.

    The metadata lists the nodes as ``[ONNX Layer: node_linear]``; a name may hold brackets itself.
    """
    return [
        Kernel(
            index=index,
            name=layer.get("Name", ""),
            nodes=tuple(
                dict.fromkeys(re.findall(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f]|$)", layer.get("Metadata") or ""))
            ),
            reads=tuple(tensor["Name"] for tensor in layer.get("Inputs") or ()),
            writes=tuple(tensor["Name"] for tensor in layer.get("Outputs") or ()),
        )
        for index, layer in enumerate(layers)
    ]
