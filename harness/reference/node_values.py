"""Values of single nodes: read from what is known of a graph, as arrays for ONNX Runtime and as tensors for PyTorch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from harness.errors import NotJudged
from harness.graph import constant_of, elements_of

CPU = torch.device("cpu")
Computed = Mapping[ir.Value, Any]
"""What was computed so far: arrays or tensors, lists for sequences."""


def read(value: ir.Value | None, computed: Computed) -> Any:
    """Return what was computed for a value, or the elements of a constant."""
    assert value is not None
    if value in computed:
        return computed[value]
    tensor = constant_of(value)
    assert tensor is not None, f"{value.name} was freed while it was still to be read"
    return elements_of(tensor)


def read_on(device: torch.device, value: ir.Value | None, computed: Computed) -> Any:
    """Return a value as a tensor on a device; what is no tensor of numbers as it is."""
    found = read(value, computed)
    tensor = found if isinstance(found, torch.Tensor) else as_tensor(found)
    return found if tensor is None else tensor.to(device)


def common_precision(dtypes: Collection[torch.dtype]) -> torch.dtype:
    """Return float64 where one is float64, the one float dtype where all share it, else float32."""
    floats = {dtype for dtype in dtypes if dtype.is_floating_point}
    if torch.float64 in floats:
        return torch.float64
    return floats.pop() if len(floats) == 1 else torch.float32


def as_tensor(array: Any) -> torch.Tensor | None:
    """Return an array of numbers as a tensor; None for sequences and strings."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        return None
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def as_array(tensor: torch.Tensor, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a copy of a tensor as an array: what a tap hands over may be overwritten."""
    wanted: torch.dtype = getattr(torch, dtype.name)
    return tensor.detach().to("cpu", wanted, copy=True).contiguous().numpy()


def declared_array(tensor: torch.Tensor, value: ir.Value) -> np.ndarray[Any, Any]:
    """Return a copy of a tensor in the dtype the graph declares for a value. Raises NotJudged for another shape."""
    return as_array(tensor, _declared_dtype(tensor, value))


def declared_tensor(tensor: torch.Tensor, value: ir.Value, device: torch.device) -> torch.Tensor:
    """Return a tensor in the dtype the graph declares for a value. Raises NotJudged for another shape."""
    wanted: torch.dtype = getattr(torch, _declared_dtype(tensor, value).name)
    return tensor.detach().to(device, wanted)


def _declared_dtype(tensor: torch.Tensor, value: ir.Value) -> np.dtype[Any]:
    declared = value.shape
    if declared is not None and (
        len(declared) != tensor.ndim
        or any(isinstance(size, int) and size != have for size, have in zip(declared, tensor.shape, strict=True))
    ):
        raise NotJudged(f"value {value.name!r} has shape {list(tensor.shape)}, where the graph declares {declared}")
    return np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
