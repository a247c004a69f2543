"""Inputs and outputs of a model in ONNX Runtime, and ONNX's numbers of types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.backends.base import Shape
from harness.errors import EngineRefused
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch


# TensorProto.DataType: name in ``tensor(...)``, number, name in torch.
_DTYPES = (
    ("float", 1, "float32"),
    ("uint8", 2, "uint8"),
    ("int8", 3, "int8"),
    ("uint16", 4, "uint16"),
    ("int16", 5, "int16"),
    ("int32", 6, "int32"),
    ("int64", 7, "int64"),
    ("bool", 9, "bool"),
    ("float16", 10, "float16"),
    ("double", 11, "float64"),
    ("bfloat16", 16, "bfloat16"),
    ("float8e4m3fn", 17, "float8_e4m3fn"),
    ("float8e5m2", 19, "float8_e5m2"),
)


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output of the model."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str | None, ...]
    """A dynamic dimension is a symbol or None; empty for a scalar, and where even the rank is open."""

    def takes(self, shape: Shape) -> bool:
        """Return whether an input of this shape has the fixed dimensions."""
        if not self.shape:
            return True
        return len(shape) == len(self.shape) and not any(
            isinstance(want, int) and want != size for want, size in zip(self.shape, shape, strict=True)
        )

    def accepted(self) -> str:
        """Return the shape as declared."""
        return f"{self.shape}"


def read_port(name: str, kind: str, shape: Sequence[int | str | None], backend: str) -> Port:
    """Return a port of a type such as ``tensor(float)``. Raises EngineRefused for one that PyTorch has not."""
    import torch

    found = re.fullmatch(r"tensor\((\w+)\)", kind)
    names = {name: dtype for name, _, dtype in _DTYPES}
    if not found or found[1] not in names:
        raise EngineRefused(Sentence("no_equal_type", backend=backend, name=name, kind=kind))
    return Port(name=name, dtype=getattr(torch, names[found[1]]), shape=tuple(shape))


def onnx_number(dtype: torch.dtype) -> int:
    """Return ONNX's number of a dtype."""
    return next(number for _, number, name in _DTYPES if str(dtype) == f"torch.{name}")


def dtype_of(number: int) -> str:
    """Return the name of the dtype of ONNX's number, or the number where PyTorch has none."""
    return next((name for _, known, name in _DTYPES if known == number), f"type {number}")
