"""What operators have in common: the dtypes that PyTorch carries for ONNX, and the precision inside an operation."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch

_F = TypeVar("_F", bound=Callable[..., Any])
CARRIED = {
    "FLOAT": torch.float32,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "UINT16": torch.uint16,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "FLOAT16": torch.float16,
    "DOUBLE": torch.float64,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "COMPLEX64": torch.complex64,
    "COMPLEX128": torch.complex128,
    "BFLOAT16": torch.bfloat16,
    "FLOAT8E4M3FN": torch.float8_e4m3fn,
    "FLOAT8E4M3FNUZ": torch.float8_e4m3fnuz,
    "FLOAT8E5M2": torch.float8_e5m2,
    "FLOAT8E5M2FNUZ": torch.float8_e5m2fnuz,
    "FLOAT8E8M0": torch.float8_e8m0fnu,
    # PyTorch has no arithmetic for these: the numbers travel in the next wider type.
    "UINT4": torch.uint8,
    "INT4": torch.int8,
    "UINT2": torch.uint8,
    "INT2": torch.int8,
    "FLOAT4E2M1": torch.float8_e4m3fn,
}
"""The PyTorch dtype that holds the numbers of an ONNX element type; strings have none."""


class Unsupported(Exception):
    """An operator has no meaning here for these inputs or attributes; ONNX Runtime is asked next."""


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return a float tensor in at least FP32: what ONNX calls the stash type of a normalisation."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


_WITHOUT_ARITHMETIC = (torch.uint16, torch.uint32, torch.uint64)
_INTEGER_OF_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def signed(tensor: torch.Tensor) -> torch.Tensor:
    """Return numbers in a type that PyTorch computes in: unsigned ones of 16 bits and more as int64.

    Raises Unsupported for numbers from 2^63.
    """
    if tensor.dtype not in _WITHOUT_ARITHMETIC:
        return tensor
    if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        raise Unsupported("PyTorch does not compute with uint64 from 2^63")
    return tensor.to(torch.int64)


def unsigned(function: _F) -> _F:
    """Let a function of numbers take unsigned ones as int64; a result of int64 returns in the type of the first."""

    @wraps(function)
    def wrapped(*inputs: Any, **settings: Any) -> Any:
        result = function(*(signed(it) if isinstance(it, torch.Tensor) else it for it in inputs), **settings)
        first = inputs[0].dtype
        return result.to(first) if first in _WITHOUT_ARITHMETIC and result.dtype == torch.int64 else result

    return cast(_F, wrapped)


def moves(function: _F) -> _F:
    """Let a function that only moves elements take types without kernels, as integers with the same bits.

    All its results are of the type of the elements that it moves.
    """

    @wraps(function)
    def wrapped(*inputs: Any, **settings: Any) -> Any:
        dtypes = [it.dtype for it in inputs if isinstance(it, torch.Tensor) and _has_no_kernels(it.dtype)]
        if not dtypes:
            return function(*inputs, **settings)
        result = function(*(_bits(it) if isinstance(it, torch.Tensor) else it for it in inputs), **settings)
        return result.view(dtypes[0])

    return cast(_F, wrapped)


def _has_no_kernels(dtype: torch.dtype) -> bool:
    return dtype in _WITHOUT_ARITHMETIC or (dtype.is_floating_point and dtype.itemsize == 1)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(_INTEGER_OF_SIZE[tensor.dtype.itemsize]) if _has_no_kernels(tensor.dtype) else tensor
