"""The GPU as backends need it: whether there is one, its name, and memory that an engine owns."""

from __future__ import annotations

import ctypes
import math
import sys
from typing import TYPE_CHECKING

from harness.backends.base import Shape
from harness.errors import first_line
from harness.machine import open_gpu
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch


def no_gpu() -> str | None:
    """Return why PyTorch has no GPU here, or None when it has one."""
    import torch

    return None if torch.cuda.is_available() else Sentence("no_gpu_here")


def lost_gpu() -> str:
    """Return why this process cannot use its GPU any more, after an error that ended its context; empty else."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return Sentence("gpu_lost", said=first_line(error))
    return ""


def gpu_name() -> str:
    """Return the current GPU's name and compute capability, or an empty string."""
    if no_gpu():
        return ""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (compute capability {major}.{minor})"


def gpu_environment(device: torch.device) -> dict[str, str]:
    """Return what kernels that are compiled on a GPU depend on: the GPU, its multiprocessors, its driver."""
    import torch

    with open_gpu(device) as gpu:
        driver = gpu.driver()
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return {"gpu": gpu_name(), "multiprocessors": str(multiprocessors), "driver": str(driver)}


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
