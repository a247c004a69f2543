"""Transforms of signals and the windows that weight them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import wide


@operator("DFT", since=17)
def dft_17(
    x: torch.Tensor, length: torch.Tensor | None = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0
) -> torch.Tensor:
    return dft(x, length, torch.tensor(axis), inverse=inverse, onesided=onesided)


@operator("DFT", since=20)
def dft(
    x: torch.Tensor,
    length: torch.Tensor | None = None,
    axis: torch.Tensor | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> torch.Tensor:
    """The last axis holds real or real and imaginary parts; a one-sided inverse gives real parts."""
    along = (-2 if axis is None else int(axis)) % x.ndim
    values = _complex(x)
    count = None if length is None else int(length)
    y: torch.Tensor
    if inverse:
        if onesided:
            y = torch.fft.irfft(values, count, along)[..., None]
            return y.to(x.dtype)
        y = torch.fft.ifft(values, count, along)
    else:
        y = torch.fft.fft(values, count, along)
        if onesided:
            y = y.narrow(along, 0, y.shape[along] // 2 + 1)
    return torch.view_as_real(y).to(x.dtype)


def _complex(x: torch.Tensor) -> torch.Tensor:
    values = wide(x)
    if values.shape[-1] == 1:
        return torch.complex(values[..., 0], torch.zeros_like(values[..., 0]))
    return torch.complex(values[..., 0], values[..., 1])


@operator("STFT", since=17)
def stft(
    signal: torch.Tensor,
    step: torch.Tensor,
    window: torch.Tensor | None = None,
    length: torch.Tensor | None = None,
    *,
    onesided: int = 1,
) -> torch.Tensor:
    """Return the spectra of frames of a signal (batch, length, 1 or 2): (batch, frames, bins, 2)."""
    size = int(length) if length is not None else window.shape[0] if window is not None else signal.shape[1]
    frames = _complex(signal if signal.ndim == 3 else signal[..., None]).unfold(1, size, int(step))
    if window is not None:
        frames = frames * wide(F.pad(window, (0, size - window.shape[0])))
    y = torch.fft.fft(frames)
    if onesided:
        y = y[..., : size // 2 + 1]
    return torch.view_as_real(y).to(signal.dtype)


@operator("Rfft", domain=MICROSOFT)
def rfft(x: torch.Tensor, *, normalized: int = 0, onesided: int = 1, signal_ndim: int = 1) -> torch.Tensor:
    axes = list(range(-signal_ndim, 0))
    return torch.view_as_real(torch.fft.rfftn(wide(x), dim=axes)).to(x.dtype)


@operator("Irfft", domain=MICROSOFT)
def irfft(x: torch.Tensor, *, normalized: int = 0, onesided: int = 1, signal_ndim: int = 1) -> torch.Tensor:
    axes = list(range(-signal_ndim, 0))
    y: torch.Tensor = torch.fft.irfftn(_complex(x), dim=axes)
    return y.to(x.dtype)


def _cosines(
    size: torch.Tensor, weights: tuple[float, ...], periodic: int, output_datatype: torch.dtype | None
) -> torch.Tensor:
    """Return the sum of weighted cosines of 0, 1, 2 ... turns over a window, with alternating signs."""
    count = int(size)
    dtype = output_datatype or torch.float32
    # A window of one element that is not periodic would divide by zero.
    turn = torch.arange(count, dtype=torch.float64, device=size.device) / max(count if periodic else count - 1, 1)
    total = sum((-1) ** n * weight * (2 * math.pi * n * turn).cos() for n, weight in enumerate(weights))
    assert isinstance(total, torch.Tensor)
    return total.to(dtype)


@operator("HannWindow", since=17)
def hann_window(size: torch.Tensor, *, output_datatype: torch.dtype | None = None, periodic: int = 1) -> torch.Tensor:
    return _cosines(size, (0.5, 0.5), periodic, output_datatype)


@operator("HammingWindow", since=17)
def hamming_window(
    size: torch.Tensor, *, output_datatype: torch.dtype | None = None, periodic: int = 1
) -> torch.Tensor:
    """The weights are 25/46 and 21/46, not the rounded 0.54 and 0.46."""
    return _cosines(size, (25 / 46, 21 / 46), periodic, output_datatype)


@operator("BlackmanWindow", since=17)
def blackman_window(
    size: torch.Tensor, *, output_datatype: torch.dtype | None = None, periodic: int = 1
) -> torch.Tensor:
    return _cosines(size, (0.42, 0.5, 0.08), periodic, output_datatype)


@operator("MelWeightMatrix", since=17)
def mel_weight_matrix(
    bins: torch.Tensor,
    length: torch.Tensor,
    rate: torch.Tensor,
    lowest: torch.Tensor,
    highest: torch.Tensor,
    *,
    output_datatype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return (spectrum bins, mel bins): triangles between neighbouring edges, on whole bins of the spectrum.

    The edges divide the range by the number of edges, not of gaps, as the schema's example does.
    """
    count, size = int(bins), int(length)
    low, high = (2595 * math.log10(1 + float(edge) / 700) for edge in (lowest, highest))
    mels = torch.arange(count + 2, dtype=torch.float64) * ((high - low) / (count + 2)) + low
    edges = ((size + 1) * (700 * (10 ** (mels / 2595) - 1)) / int(rate)).floor().long().tolist()
    y = torch.zeros(size // 2 + 1, count, dtype=torch.float64)
    for number in range(count):
        left, centre, right = edges[number : number + 3]
        for at in range(left, centre):
            y[at, number] = (at - left) / (centre - left)
        y[centre, number] = 1
        for at in range(centre, right):
            y[at, number] = (right - at) / (right - centre)
    return y.to(output_datatype or torch.float32).to(bins.device)
