"""Images against images: PSNR and SSIM, and how every image metric reads its images.

An image is a file (read as RGB by Pillow) or a tensor [channels, h, w], uint8 or floating point from 0 to 1; a batch is
a tensor [n, channels, h, w] or a list of images. Every metric returns a float64 tensor [n] on the CPU, one element per
pair; a pair that holds a NaN or an infinity gets NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.metrics import networks

if TYPE_CHECKING:
    import torch

    Image = torch.Tensor | str | Path
    Images = Image | Sequence[Image]

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""Side of the Gaussian window of SSIM and its standard deviation, in pixels."""


def psnr(actual: Images, expected: Images, *, pooled: bool = False) -> torch.Tensor:
    """Return the peak signal-to-noise ratio of each pair in dB, for a peak of 1; infinite for identical images.

    ``pooled`` gives one value for all pairs, [1]: the PSNR of the mean of their squared errors. The mean of the pairs'
    own PSNRs is another figure, in which one good picture hides many bad ones (Keles et al. 2021, On the Computation of
    PSNR for a Set of Images or Video).
    """
    import torch

    errors = per_pair(lambda left, right: float((left.double() - right.double()).square().mean()), actual, expected)
    if pooled and errors.numel():
        errors = errors.mean(dim=0, keepdim=True)
    return -10 * torch.log10(errors)


def ssim(actual: Images, expected: Images) -> torch.Tensor:
    """Return the structural similarity of each pair, 1 for identical images.

    As Wang et al. 2004 define it, in float64: Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03, for a peak of 1; the
    mean over the windows that lie within the image, of all channels. Raises UsageError for images that are smaller than
    the window.
    """
    import torch

    steps = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-(steps**2) / (2 * SSIM_SIGMA**2))
    window = torch.outer(weights, weights)[None, None] / weights.sum() ** 2

    def one(left: torch.Tensor, right: torch.Tensor) -> float:
        if min(left.shape[-2:]) < SSIM_WINDOW:
            size = "x".join(map(str, left.shape[-2:]))
            raise UsageError(f"ssim: an image of {size} is smaller than the window of {SSIM_WINDOW}x{SSIM_WINDOW}")
        x, y = left.double()[:, None], right.double()[:, None]
        # All five local means in one pass, each [channels, 1, h - 10, w - 10].
        stack = torch.cat([x, y, x * x, y * y, x * y])
        means = torch.nn.functional.conv2d(stack, window.to(stack.device)).chunk(5)
        mean_x, mean_y, squares_x, squares_y, products = means
        variances = squares_x - mean_x**2 + squares_y - mean_y**2
        covariance = products - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        return float((luminance * (2 * covariance + 0.03**2) / (variances + 0.03**2)).mean())

    return per_pair(one, actual, expected)


def per_pair(function: Callable[[torch.Tensor, torch.Tensor], float], actual: Images, expected: Images) -> torch.Tensor:
    """Return ``function(actual, expected)`` for each pair of images, [n]; NaN where a pixel is not finite.

    The function gets two tensors [channels, h, w] of one shape on one device, float32 from 0 to 1. Raises UsageError
    when the numbers of images or their shapes differ.
    """
    import torch

    lefts, rights = load(actual), load(expected)
    if len(lefts) != len(rights):
        raise UsageError(f"{len(lefts)} images against {len(rights)}; give as many of one as of the other")
    values = []
    for number, (left, right) in enumerate(zip(lefts, rights, strict=True)):
        if left.shape != right.shape:
            raise UsageError(f"image {number} is {list(left.shape)}, the reference's {list(right.shape)}")
        is_finite = bool(left.isfinite().all()) and bool(right.isfinite().all())
        values.append(function(left, right.to(left.device)) if is_finite else math.nan)
    return torch.tensor(values, dtype=torch.float64)


def load(images: Images) -> list[torch.Tensor]:
    """Return images as tensors [channels, h, w], float32 from 0 to 1, where they lie (files: on the CPU).

    Raises UsageError for a file that is no image, a tensor of another shape, and values outside 0 to 1.
    """
    import torch

    if isinstance(images, (str, Path)):
        return [_from_file(Path(images))]
    if isinstance(images, torch.Tensor):
        if images.ndim not in (3, 4):
            raise UsageError(f"a tensor of {list(images.shape)} is no image; give [channels, h, w] or a batch of them")
        batch = images if images.ndim == 4 else images[None]
        return [_from_tensor(image) for image in batch]
    loaded = [load(image) for image in images]
    if any(len(item) != 1 for item in loaded):
        raise UsageError("a list of images holds a batch; give a list of single images, or one batch")
    return [item[0] for item in loaded]


def _from_tensor(image: torch.Tensor) -> torch.Tensor:
    import torch

    image = image.detach()
    if image.dtype == torch.uint8:
        return image.float() / 255
    if not image.is_floating_point():
        raise UsageError(f"an image of {image.dtype} is not supported; give uint8, or floating point from 0 to 1")
    image = image.float()
    finite = image[image.isfinite()]
    if finite.numel() and (finite.min() < 0 or finite.max() > 1):
        seen = f"{float(finite.min()):.4g} to {float(finite.max()):.4g}"
        raise UsageError(f"image values run from {seen}; scale and clamp them to 0 to 1")
    return image


def _from_file(path: Path) -> torch.Tensor:
    """Return a file as RGB, with the same arithmetic as torchvision's ToTensor."""
    import numpy as np
    import torch

    pillow = networks.package("PIL.Image", "image")
    try:
        with pillow.open(path) as opened:
            pixels = np.array(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise UsageError(f"image {path} cannot be read: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255
