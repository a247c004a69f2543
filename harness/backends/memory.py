"""Memory that an engine owns, copied into tensors."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from harness.backends.base import Shape

if TYPE_CHECKING:
    import torch


class CudaMemory:
    """Bytes on the GPU, in the form PyTorch accepts."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
            "strides": None,
            "version": 2,
        }


def copy_memory(address: int, shape: Shape, dtype: torch.dtype, device: torch.device, *, on_host: bool) -> torch.Tensor:
    """Return a copy of memory, laid out row by row, as a fresh tensor on ``device``."""
    import torch

    size = math.prod(shape) * dtype.itemsize
    if not size:
        return torch.empty(shape, dtype=dtype, device=device)
    if on_host:
        memory = torch.frombuffer((ctypes.c_ubyte * size).from_address(address), dtype=torch.uint8)
    else:
        memory = torch.as_tensor(CudaMemory(address, size), device=device)
    return memory.to(device, copy=True).view(dtype).reshape(shape)
