"""Convolutions, their transposes, and the rearrangements that belong to them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from harness.operators.activations import activate
from harness.operators.registry import MICROSOFT, operator
from harness.operators.sampling import bilinear
from harness.operators.values import Unsupported, wide
from harness.operators.windows import padded, spatial, split, windows

_CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


@operator("Conv")
@operator("FusedConv", domain=MICROSOFT)
def conv(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None = None,
    added: torch.Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    rank = spatial(x.ndim)
    where = windows(
        x.shape[2:], kernel_shape or w.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )
    symmetric = where.before == where.after and min(where.before) >= 0
    if not symmetric:
        x = padded(x, where.before, where.after)
    result: torch.Tensor = _CONVOLVE[rank - 1](
        x, w, bias, where.strides, where.before if symmetric else 0, where.dilations, group
    )
    if added is not None:
        result = result + added
    return activate(activation, result, *activation_params) if activation else result


@operator("ConvTranspose")
def conv_transpose(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    rank = spatial(x.ndim)
    strides = list(strides or [1] * rank)
    dilations = list(dilations or [1] * rank)
    extra = list(output_padding or [0] * rank)
    full = [
        s * (n - 1) + (k - 1) * d + 1 + o
        for s, n, k, d, o in zip(strides, x.shape[2:], kernel_shape or w.shape[2:], dilations, extra, strict=True)
    ]
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        asked = (
            list(output_shape)[-rank:] if output_shape else [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        )
        # A shape that is larger than the full one is reached by growing the output at its end, as ONNX Runtime does.
        grow = [max(o - f, 0) for o, f in zip(asked, full, strict=True)]
        extra = [e + g for e, g in zip(extra, grow, strict=True)]
        total = [max(f - o, 0) for o, f in zip(asked, full, strict=True)]
        before, after = split(
            total, upper=auto_pad != "SAME_LOWER" if output_shape is None else auto_pad == "SAME_UPPER"
        )
    elif auto_pad == "VALID":
        before, after = [0] * rank, [0] * rank
    else:
        pads = list(pads or [0] * 2 * rank)
        before, after = pads[:rank], pads[rank:]
    crop = [a - e for a, e in zip(after, extra, strict=True)]  # negative: rows that only the padding adds
    grown = [max(-c, 0) for c in crop]
    if any(g >= max(s, d) for g, s, d in zip(grown, strides, dilations, strict=True)):
        raise Unsupported(f"an output padding of {extra} at strides {strides}")
    y = _TRANSPOSE[rank - 1](x, w, bias, strides, 0, grown, group, dilations)
    return padded(y, [-b for b in before], [-max(c, 0) for c in crop])


@operator("NhwcConv", domain=MICROSOFT)
def nhwc_conv(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """Input, filters and output have their channels last."""
    y = conv(
        x.movedim(-1, 1),
        w.movedim(-1, 1),
        bias,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return y.movedim(1, -1).contiguous()


@operator("CausalConvWithState", since=27)
@operator("CausalConvWithState", domain=MICROSOFT)
def causal_conv(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None = None,
    past: torch.Tensor | None = None,
    *,
    activation: str = "none",
    ndim: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each channel is convolved with its own kernel over what came before: (batch, channels, length)."""
    if ndim != 1 or x.ndim != 3:
        raise Unsupported(f"causal convolution over {x.ndim - 2} axes")
    held = w.shape[-1] - 1
    before = x.new_zeros(*x.shape[:2], held) if past is None else past
    x = torch.cat([before, x], dim=-1)
    y = F.conv1d(x, w, bias, groups=x.shape[1])
    return (F.silu(y) if activation in ("silu", "swish") else y), x[..., x.shape[-1] - held :]


@operator("Col2Im", since=18)
def col2im(
    columns: torch.Tensor,
    image_shape: torch.Tensor,
    block_shape: torch.Tensor,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """Columns (batch, channels * block, windows) are added up where the windows lay: ``F.fold`` on any axes."""
    image, block = image_shape.tolist(), block_shape.tolist()
    where = windows(image, block, strides=strides, dilations=dilations, pads=pads, auto_pad="NOTSET")
    batch, channels = columns.shape[0], columns.shape[1] // math.prod(block)
    parts = columns.reshape(batch, channels, -1, *where.sizes)
    size = [n + b + a for n, b, a in zip(image, where.before, where.after, strict=True)]
    y = columns.new_zeros(batch, channels, *size)
    for number, offset in enumerate(itertools.product(*map(range, block))):
        place = tuple(
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, where.dilations, where.sizes, where.strides, strict=True)
        )
        y[:, :, *place] += parts[:, :, number]
    return padded(y, [-b for b in where.before], [-a for a in where.after])


@operator("DeformConv", since=19)
def deform_conv(
    x: torch.Tensor,
    w: torch.Tensor,
    offset: torch.Tensor,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> torch.Tensor:
    """Each tap of the kernel reads where its offset says: (batch, groups * taps * 2, height, width), the row first."""
    if x.ndim != 4:
        raise Unsupported(f"deformable convolution over {x.ndim - 2} axes")
    where = windows(
        x.shape[2:], kernel_shape or w.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad="NOTSET"
    )
    (high, across), (out_high, out_wide) = where.kernel, where.sizes
    taps, batch = high * across, x.shape[0]
    grid = [
        torch.arange(n, device=x.device)[None, :] * s + torch.arange(k, device=x.device)[:, None] * d - b
        for n, s, k, d, b in zip(where.sizes, where.strides, where.kernel, where.dilations, where.before, strict=True)
    ]
    rows = grid[0][:, None, :, None].expand(high, across, out_high, out_wide).reshape(taps, out_high, out_wide)
    columns = grid[1][None, :, None, :].expand(high, across, out_high, out_wide).reshape(taps, out_high, out_wide)
    moved = wide(offset).reshape(batch * offset_group, taps, 2, out_high, out_wide)
    parts = x.reshape(batch * offset_group, -1, *x.shape[2:])
    read = bilinear(parts, rows + moved[:, :, 0], columns + moved[:, :, 1]).to(x.dtype)
    if mask is not None:
        read = read * mask.reshape(batch * offset_group, 1, taps, out_high, out_wide)
    read = read.reshape(batch, group, -1, out_high * out_wide)
    weights = w.reshape(group, w.shape[0] // group, -1)
    y = (weights @ read).reshape(batch, -1, out_high, out_wide)
    return y if bias is None else y + bias[:, None, None]
