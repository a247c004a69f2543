"""Windows over an input: what pads, strides, dilations and ``auto_pad`` come to for convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from harness.operators.values import Unsupported


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where windows lie, for each spatial axis. ``before`` and ``after`` are the padding, in elements."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]
    sizes: list[int]
    """How many windows."""

    overhang: list[int]
    """Elements past the end of the input that the last window reaches; negative where it ends before."""


def windows(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: bool = False,
) -> Windows:
    """Return where windows of a kernel lie on an input of a spatial size. ``pads`` are all begins, then all ends."""
    rank = len(size)
    strides = list(strides or [1] * rank)
    dilations = list(dilations or [1] * rank)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        sizes = [-(-n // s) for n, s in zip(size, strides, strict=True)]
        total = [max((o - 1) * s + e - n, 0) for o, s, e, n in zip(sizes, strides, extent, size, strict=True)]
        before, after = split(total, upper=auto_pad == "SAME_UPPER")
    elif auto_pad == "VALID":
        before, after = [0] * rank, [0] * rank
    else:
        pads = list(pads or [0] * 2 * rank)
        before, after = pads[:rank], pads[rank:]
    sizes, reach = [], []
    for n, e, s, b, a in zip(size, extent, strides, before, after, strict=True):
        room = n + b + a - e
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + b:  # a last window that would lie in the padding alone
            count -= 1
        sizes.append(count)
        reach.append((count - 1) * s + e - b - n)
    return Windows(
        kernel=list(kernel),
        strides=strides,
        dilations=dilations,
        before=before,
        after=after,
        sizes=sizes,
        overhang=reach,
    )


def split(total: Sequence[int], *, upper: bool) -> tuple[list[int], list[int]]:
    """Return the begins and ends of a total padding; the odd element goes to the end if ``upper``."""
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if upper else (large, small)


def padded(x: torch.Tensor, before: Sequence[int], after: Sequence[int], value: float = 0) -> torch.Tensor:
    """Return an input with its last axes padded, or cropped where the number is negative."""
    if not any(before) and not any(after):
        return x
    pairs = [n for pair in reversed(list(zip(before, after, strict=True))) for n in pair]
    return F.pad(x, pairs, value=value)


def views(x: torch.Tensor, where: Windows, value: float = 0) -> torch.Tensor:
    """Return every window of an input: (batch, channels, *windows, *kernel), a view of what was padded."""
    x = padded(x, where.before, where.overhang, value)
    for axis, (k, s, d) in enumerate(zip(where.kernel, where.strides, where.dilations, strict=True), start=2):
        x = x.unfold(axis, (k - 1) * d + 1, s)[..., ::d]
    return x


def spatial(rank: int, most: int = 3) -> int:
    """Return the number of spatial axes of a tensor with batch and channels. Raises Unsupported past ``most``."""
    if not 1 <= rank - 2 <= most:
        raise Unsupported(f"{rank - 2} spatial axes")
    return rank - 2
