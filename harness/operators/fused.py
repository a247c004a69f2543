"""Operators of ONNX Runtime's own domain that exporters and optimisers leave in a model, but for attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from harness.operators.activations import activate
from harness.operators.linear import gemm
from harness.operators.normalization import layer_normalization, simplified_layer_normalization
from harness.operators.registry import MICROSOFT, operator
from harness.operators.values import Unsupported, wide


@operator("Gelu", domain=MICROSOFT)
def gelu(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x)


@operator("BiasGelu", domain=MICROSOFT)
def bias_gelu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return F.gelu(x + bias)


@operator("FastGelu", domain=MICROSOFT)
def fast_gelu(x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT)
def quick_gelu(x: torch.Tensor, *, alpha: float = 1.702) -> torch.Tensor:
    return x * (alpha * x).sigmoid()


@operator("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    left, right = (x + bias).chunk(2, -1)
    return left * F.gelu(right)


@operator("BiasAdd", domain=MICROSOFT)
def bias_add(x: torch.Tensor, bias: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return x + bias + skip


@operator("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(x: torch.Tensor, bias: torch.Tensor, *, axis: int = 1, is_inner_broadcast: int = 1) -> torch.Tensor:
    """The softmax is over all axes from ``axis`` on, as before opset 13."""
    if bias.ndim != x.ndim:
        raise Unsupported(f"BiasSoftmax with a bias of {bias.ndim} axes for {x.ndim}")
    return (x + bias).flatten(axis).softmax(-1).reshape(x.shape)


@operator("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    x: torch.Tensor,
    skip: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[torch.Tensor, ...]:
    """Return the result, the mean, the inverse deviation, and the sum that was normalised."""
    total = x + skip if bias is None else x + skip + bias
    return *layer_normalization(total, scale, shift, epsilon=epsilon), total


@operator("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(
    x: torch.Tensor,
    skip: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[torch.Tensor | None, ...]:
    """Return the result, nothing, the inverse root mean square, and the sum that was normalised."""
    total = x + skip if bias is None else x + skip + bias
    y, inverse = simplified_layer_normalization(total, scale, epsilon=epsilon)
    return y, None, inverse, total


@operator("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(
    ids: torch.Tensor,
    segments: torch.Tensor | None,
    words: torch.Tensor,
    places: torch.Tensor,
    kinds: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    mask: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 1,
) -> tuple[torch.Tensor, ...]:
    """Return the normalised sum of embeddings, how many words each mask leaves, and the sum."""
    at = torch.arange(ids.shape[1], device=ids.device)[None] if positions is None else positions
    total = words[ids] + places[at]
    if segments is not None and kinds is not None:
        total = total + kinds[segments]
    left = torch.zeros_like(ids[:, 0]) if mask is None else mask.sum(1)
    return layer_normalization(total, scale, shift, epsilon=epsilon)[0], left.to(torch.int32), total


@operator("GroupNorm", domain=MICROSOFT)
def group_norm(
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    *,
    activation: int,
    channels_last: int = 1,
    epsilon: float = 1e-5,
    groups: int,
) -> torch.Tensor:
    """With SiLU after it if ``activation`` is 1."""
    values = wide(x.movedim(-1, 1) if channels_last else x)
    y = torch.group_norm(values, groups, wide(scale), wide(bias), epsilon)
    y = F.silu(y) if activation else y
    return (y.movedim(1, -1).contiguous() if channels_last else y).to(x.dtype)


@operator("SkipGroupNorm", domain=MICROSOFT)
def skip_group_norm(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    skip: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    activation: int,
    channels_last: int = 1,
    epsilon: float = 1e-5,
    groups: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A skip of two axes, (batch, channels), is the same everywhere."""
    if not channels_last:
        raise Unsupported("SkipGroupNorm with channels first")
    total = x + (skip[:, None, None] if skip.ndim == 2 else skip)
    total = total if bias is None else total + bias
    return group_norm(total, scale, shift, activation=activation, epsilon=epsilon, groups=groups), total


@operator("FusedMatMul", domain=MICROSOFT)
@operator("TransposeMatMul", domain=MICROSOFT)  # its older name
@operator("FusedMatMulActivation", domain=MICROSOFT)
def fused_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> torch.Tensor:
    """A batch that is transposed has its rows before it: (rows, *batch, columns)."""
    a = a.movedim(0, -2) if transBatchA else a
    b = b.movedim(0, -2) if transBatchB else b
    a = a.transpose(-1, -2) if transA and a.ndim > 1 else a
    b = b.transpose(-1, -2) if transB and b.ndim > 1 else b
    y = a @ b if alpha == 1 else a @ b * alpha
    return _activated(y, activation, activation_alpha, activation_beta)


@operator("FusedGemm", domain=MICROSOFT)
def fused_gemm(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> torch.Tensor:
    y = gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    return _activated(y, activation, activation_alpha, activation_beta)


def _activated(x: torch.Tensor, name: str, *numbers: float | None) -> torch.Tensor:
    return activate(name, x, *(it for it in numbers if it is not None)) if name else x


@operator("Inverse", domain=MICROSOFT)
def inverse(x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = torch.linalg.inv(wide(x))
    return y.to(x.dtype)


@operator("ExpandDims", domain=MICROSOFT)
def expand_dims(x: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    return x.unsqueeze(int(axis))


@operator("Unique", domain=MICROSOFT)
def unique(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return values in the order in which they first occur, where each element went, and how many there are."""
    values, index, counts = torch.unique(x, return_inverse=True, return_counts=True)
    place = torch.arange(x.numel(), device=x.device)
    first = torch.full_like(counts, x.numel()).scatter_reduce(0, index, place, "amin")
    order = first.argsort()
    return values[order], order.argsort()[index], counts[order]
