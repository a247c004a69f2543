"""The value table: every tensor of a graph, by the one name it has from PyTorch to the kernel.

ONNX tools wipe the exporter's metadata, so the table is taken once, at export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Value:
    """One intermediate tensor."""

    name: str
    """Its name in the ONNX graph; for a PyTorch subject also the FX node's name, unless it is a helper."""
    origin: str
    """The FX node it belongs to; differs from ``name`` for helpers such as a MatMul before its bias is added."""
    op: str
    """The operator: ``aten.linear.default``, or ``onnx.MatMul`` for a value that only ONNX has."""
    module: str = ""
    """Dotted path of the PyTorch module that makes it, with ``#2`` for the second call; empty at the root."""
    source: str = ""
    """``file:line`` of the Python code that makes it, where it is known."""
    dtype: str = ""
    """``float32``, ``int64``, ...; empty where shape inference does not know."""
    shape: tuple[int | str, ...] | None = None
    """Dimensions; a dynamic one by its symbol; None where it is not known."""
    folded: tuple[str, ...] = ()
    """Other modules with operations that have no value of their own, since they were folded into this one; an
    operator where it is of the same module or of none."""


Values = Mapping[str, Value]
