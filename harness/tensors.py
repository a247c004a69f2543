"""Tensors by name, as they pass between all parts of the harness: on which device, their bytes, their hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch

Tensors = dict[str, torch.Tensor]


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return a tensor's bytes in row-major order; any dtype, any strides, any device."""
    # contiguous() leaves the stride of a single element as it is, and view() then refuses it.
    flat = tensor.detach().cpu().resolve_neg().clone(memory_format=torch.contiguous_format).flatten()
    return flat.view(torch.uint8).numpy().data


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Return copies on the CPU, contiguous and each in memory of its own: safetensors refuses what shares any."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def sha256_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def like(expected: Tensors, tensors: Tensors) -> Tensors:
    """Return the tensors, each on the device and in the dtype of the expected one of its name."""
    return {name: tensor.to(expected[name].device, expected[name].dtype) for name, tensor in tensors.items()}


def largest_finite(tensor: torch.Tensor) -> float:
    """Return the largest magnitude among the finite elements; 0 where there is none."""
    if not tensor.numel():
        return 0.0
    low, high = torch.aminmax(tensor.detach())
    most = max(abs(low.item()), abs(high.item()))
    if most < math.inf:  # False where there is a NaN too
        return most
    finite = tensor[tensor.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0
