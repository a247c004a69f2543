"""PyTorch's fake quantisation in precisions that its kernels have not: codes are the nearest, ties to even."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch


def _per_tensor(x: torch.Tensor, scale: Any, zero: Any, low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(scale, torch.Tensor):  # a graph holds it in FP32
        scale = torch.tensor(scale, dtype=torch.float32, device=x.device)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale = scale.to(wide)
    zero = zero.to(wide) if isinstance(zero, torch.Tensor) else zero
    codes = (x.to(wide) / scale).round() + zero
    held = codes.clamp(low, high)
    return ((held - zero) * scale).to(x.dtype), codes == held


def _per_channel(
    x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, axis: int, low: int, high: int
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = [-1 if dim == axis % x.ndim else 1 for dim in range(x.ndim)]
    return _per_tensor(x, scale.reshape(shape), zero.reshape(shape), low, high)


def _with_switch(
    x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, enabled: torch.Tensor, low: int, high: int
) -> tuple[torch.Tensor, torch.Tensor]:
    if not bool(enabled.any()):
        return x, torch.ones_like(x, dtype=torch.bool)
    return _per_tensor(x, scale, zero, low, high)


_ATEN = torch.ops.aten
FAKE_QUANTISATION: Mapping[Any, Callable[..., Any]] = {
    _ATEN.fake_quantize_per_tensor_affine_cachemask.default: _per_tensor,
    _ATEN._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default: _with_switch,
    _ATEN.fake_quantize_per_channel_affine_cachemask.default: _per_channel,
    _ATEN.fake_quantize_per_tensor_affine.default: lambda *given: _per_tensor(*given)[0],
    _ATEN.fake_quantize_per_tensor_affine.tensor_qparams: lambda *given: _per_tensor(*given)[0],
    _ATEN.fake_quantize_per_channel_affine.default: lambda *given: _per_channel(*given)[0],
}
"""By operator: its kernels take FP32 scales and values alone."""
