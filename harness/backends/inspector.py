"""The kernels of an engine, as the engine inspector of TensorRT lists them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f]|$)")
"""A node in ``Metadata``; its name may hold brackets itself."""


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
    tactic: tuple[Any, Any] = (None, None)
    """``TacticName`` and ``TacticValue``: which implementation the builder chose."""


def read_kernels(text: str) -> list[Kernel]:
    """Return the kernels of an engine from the engine inspector's JSON of it, written with detailed verbosity.

    Its ``Layers`` are dicts with ``Name``, ``Metadata``, ``Inputs``, ``Outputs`` (tensors with a ``Name``) and the
    tactic; nothing is returned where no layer has metadata, which says what ONNX nodes are in it.
    """
    layers = json.loads(text).get("Layers", [])
    if not any(isinstance(layer, dict) and layer.get("Metadata") for layer in layers):
        return []
    return [
        Kernel(
            index=index,
            name=layer.get("Name", ""),
            nodes=tuple(dict.fromkeys(_NODE.findall(layer.get("Metadata") or ""))),
            reads=tuple(tensor["Name"] for tensor in layer.get("Inputs") or ()),
            writes=tuple(tensor["Name"] for tensor in layer.get("Outputs") or ()),
            tactic=(layer.get("TacticName"), layer.get("TacticValue")),
        )
        for index, layer in enumerate(layers)
    ]
