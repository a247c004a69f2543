"""Constants of a graph in another dtype: converted, saturated where they do not fit, and counted."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from harness.graph.dtypes import FLOAT, HALF
from harness.graph.ir import elements_of
from harness.lazy import onnx_ir as ir

_LAZY_ELEMENTS = 2**16


def largest(dtype: int) -> float:
    """Return the largest finite number of an ONNX float type."""
    return float(ir.DataType(dtype).max)


def convert(tensor: ir.TensorProtocol, dtype: int) -> ir.TensorProtocol:
    """Return a tensor in another float dtype, finite numbers saturated; a large one is converted when it is read."""
    target = ir.DataType(dtype)
    if tensor.size < _LAZY_ELEMENTS:
        return ir.Tensor(_convert_array(tensor, target), dtype=target)
    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(lambda: ir.Tensor(_convert_array(tensor, target), dtype=target), dtype=target, shape=shape)


def _convert_array(tensor: ir.TensorProtocol, target: ir.DataType) -> np.ndarray[Any, Any]:
    array = elements_of(tensor)
    if count_outside(tensor, int(target)):
        limit = largest(int(target))
        array = np.where(np.isfinite(array), np.clip(array, -limit, limit), array)
    return array.astype(target.numpy())


_OUTSIDE: WeakKeyDictionary[ir.TensorProtocol, dict[int, int]] = WeakKeyDictionary()
"""How many elements of a constant are beyond a dtype: every engine asks again, and weights take seconds."""


def count_outside(tensor: ir.TensorProtocol, dtype: int) -> int:
    """Return how many finite elements are beyond the largest finite number of a dtype."""
    if dtype not in HALF or tensor.dtype != FLOAT or not tensor.size:
        return 0
    counts = _OUTSIDE.setdefault(tensor, {})
    if dtype not in counts:
        counts[dtype] = _count(elements_of(tensor), largest(dtype))
    return counts[dtype]


def _count(array: np.ndarray[Any, Any], limit: float) -> int:
    if -limit <= array.min() and array.max() <= limit:  # False where there is a NaN
        return 0
    return int(np.count_nonzero(np.isfinite(array) & (np.abs(array) > limit)))
