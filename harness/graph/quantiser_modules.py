"""A quantised module's own quantisers, exchanged while it is traced for ones that PyTorch exports as Q/DQ.

``nvidia-modelopt`` and ``torch.ao`` put a module before each quantised weight and activation. Theirs compute in
functions that ``torch.export`` cannot trace or ONNX does not know; those here compute the same codes by
``fake_quantize``. Every other module keeps its name, and so do the values of the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from harness.errors import NotJudged
from harness.sentences import Sentence


class Quantiser(torch.nn.Module):
    """Values to the nearest code and back, of one scale or of one per channel."""

    def __init__(self, scale: torch.Tensor, zero_point: torch.Tensor, axis: int | None, low: int, high: int) -> None:
        super().__init__()
        self.axis, self.low, self.high = axis, low, high
        self.scale, self.zero_point = scale.detach().float().flatten(), zero_point.detach().to(torch.int32).flatten()
        self.one = (float(self.scale[0]), int(self.zero_point[0])) if axis is None else (1.0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` quantised, in its shape."""
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, *self.one, self.low, self.high)
        return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero_point, self.axis, self.low, self.high)


@contextlib.contextmanager
def plain_quantisers(module: torch.nn.Module) -> Iterator[None]:
    """Let a module quantise by what can be exported, and be as it was afterwards.

    Raises NotJudged for a quantiser of another format than INT8 or INT4, or of blocks.
    """
    exchanged = []
    for path, inner in list(module.named_modules()):
        for name, part in list(inner.named_children()):
            if (plain := _plain(part, f"{path}.{name}".lstrip("."))) is not None:
                exchanged.append((inner, name, part))
                setattr(inner, name, plain)
    try:
        yield
    finally:
        for inner, name, part in exchanged:
            setattr(inner, name, part)


def _plain(part: torch.nn.Module, path: str) -> torch.nn.Module | None:
    """Return what takes a quantiser's place; None for any other module."""
    quantiser: Any = part
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(part).__mro__}
    if ("modelopt", "TensorQuantizer") in kinds:
        return _of_modelopt(quantiser, path)
    if ("torch", "FakeQuantize") in kinds:
        if not int(quantiser.fake_quant_enabled[0]):
            return torch.nn.Identity()
        axis = int(quantiser.ch_axis) if quantiser.is_per_channel else None
        return Quantiser(quantiser.scale, quantiser.zero_point, axis, quantiser.quant_min, quantiser.quant_max)
    return None


def _of_modelopt(quantiser: Any, path: str) -> torch.nn.Module:
    if not quantiser.is_enabled:
        return torch.nn.Identity()
    bits = quantiser.num_bits
    if not isinstance(bits, int) or bits not in (4, 8) or quantiser.block_sizes or quantiser.unsigned:
        raise NotJudged(Sentence("quantiser_bits", path=path, bits=bits))
    amax = quantiser.amax
    if amax is None:
        raise NotJudged(Sentence("quantiser_uncalibrated", path=path))
    highest = 2 ** (bits - 1) - 1
    axis = quantiser.axis if isinstance(quantiser.axis, int) and amax.numel() > 1 else None
    scale = amax / highest
    return Quantiser(scale, torch.zeros_like(scale), axis, -highest - 1 + int(quantiser.narrow_range), highest)
