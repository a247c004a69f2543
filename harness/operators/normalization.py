"""Normalisations. Statistics are taken in at least FP32 and the result is rounded once, as PyTorch and TensorRT do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from harness.operators.registry import operator
from harness.operators.values import Unsupported, wide


@operator("BatchNormalization")
def batch_normalization(
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    is_test: int = 0,
    spatial: int = 1,
    outputs: int = 1,
) -> torch.Tensor:
    """Before opset 14 it is the number of outputs that says training. One statistic an element if not ``spatial``."""
    if outputs > 1 and not is_test:
        raise Unsupported("BatchNormalization in training before opset 14")
    flat = x if spatial else x.reshape(x.shape[0], -1)
    mean, variance, scale, bias = (wide(it).reshape(-1) for it in (mean, variance, scale, bias))
    return F.batch_norm(wide(flat), mean, variance, scale, bias, eps=epsilon).to(x.dtype).reshape(x.shape)


@operator("BatchNormalization", since=14)
def batch_normalization_14(
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """In training the input's own statistics normalise it and the running ones move; variances are a population's."""
    if not training_mode:
        return batch_normalization(x, scale, bias, mean, variance, epsilon=epsilon)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    own_variance, own_mean = torch.var_mean(wide(x), axes, correction=0)
    y = batch_normalization(x, scale, bias, own_mean, own_variance, epsilon=epsilon)
    moved_mean = (wide(mean) * momentum + own_mean * (1 - momentum)).to(mean.dtype)
    moved_variance = (wide(variance) * momentum + own_variance * (1 - momentum)).to(variance.dtype)
    return y, moved_mean, moved_variance


@operator("InstanceNormalization")
def instance_normalization(
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    *,
    epsilon: float = 1e-5,
) -> torch.Tensor:
    return torch.group_norm(wide(x), x.shape[1], wide(scale), wide(bias), epsilon).to(x.dtype)


@operator("LayerNormalization", since=17)
@operator("LayerNormalization")  # ONNX Runtime's own under this name, before ONNX had one
def layer_normalization(
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the result with the mean and the inverse deviation of each row."""
    shape = x.shape[axis % x.ndim :]
    scale, bias = wide(scale).expand(shape), None if bias is None else wide(bias).expand(shape)
    y, mean, inverse = torch.native_layer_norm(wide(x), shape, scale, bias, epsilon)
    return y.to(x.dtype), mean, inverse


@operator("GroupNormalization", since=18)
def group_normalization_18(
    x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, *, epsilon: float = 1e-5, num_groups: int
) -> torch.Tensor:
    """At opset 18 a group has one scale and one bias."""
    channels = x.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(channels), bias.repeat_interleave(channels)
    return group_normalization(x, scale, bias, epsilon=epsilon, num_groups=num_groups)


@operator("GroupNormalization", since=21)
def group_normalization(
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,
) -> torch.Tensor:
    return torch.group_norm(wide(x), num_groups, wide(scale), wide(bias), epsilon).to(x.dtype)


@operator("RMSNormalization", since=23)
def rms_normalization(
    x: torch.Tensor, scale: torch.Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> torch.Tensor:
    return simplified_layer_normalization(x, scale, axis=axis, epsilon=epsilon)[0]


@operator("SimplifiedLayerNormalization")  # ONNX Runtime's, in ONNX's own domain
def simplified_layer_normalization(
    x: torch.Tensor, scale: torch.Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a tensor over its root mean square, and the inverse of that."""
    values = wide(x)
    inverse = (values.square().mean(list(range(axis % x.ndim, x.ndim)), keepdim=True) + epsilon).rsqrt()
    return (values * inverse * wide(scale)).to(x.dtype), inverse


@operator("LpNormalization")
def lp_normalization(x: torch.Tensor, *, axis: int = -1, p: int = 2) -> torch.Tensor:
    """A row of zeros stays one."""
    norm = torch.linalg.vector_norm(wide(x), p, axis, keepdim=True)
    return torch.where(norm == 0, 0, wide(x) / norm).to(x.dtype)


@operator("MeanVarianceNormalization", since=9)
def mean_variance_normalization(x: torch.Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> torch.Tensor:
    """The schema's function adds 1e-9 to the deviation."""
    variance, mean = torch.var_mean(wide(x), list(axes), correction=0, keepdim=True)
    return ((wide(x) - mean) / (variance.sqrt() + 1e-9)).to(x.dtype)


@operator("LRN")
def local_response_normalization(
    x: torch.Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> torch.Tensor:
    """Squares of ``size`` neighbouring channels are summed; of an even number, the odd one lies after."""
    squares = wide(x).square()
    before = (size - 1) // 2
    pairs = [0, 0] * (x.ndim - 2) + [before, size - 1 - before]
    total = F.pad(squares, pairs).unfold(1, size, 1).sum(-1)
    return (wide(x) / (bias + alpha / size * total) ** beta).to(x.dtype)


@operator("Dropout")
def dropout(
    x: torch.Tensor,
    *,
    ratio: float = 0.5,
    is_test: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    if not is_test and ratio:
        raise Unsupported("Dropout in training")
    return x, torch.ones_like(x)


@operator("Dropout", since=7)
def dropout_7(x: torch.Tensor, *, ratio: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    return x, torch.ones_like(x)


@operator("Dropout", since=10)
def dropout_10(x: torch.Tensor, *, ratio: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    return x, torch.ones_like(x, dtype=torch.bool)


@operator("Dropout", since=12)
def dropout_12(
    x: torch.Tensor, ratio: torch.Tensor | None = None, training: torch.Tensor | None = None, *, seed: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    if training is not None and bool(training) and (ratio is None or bool(ratio != 0)):
        raise Unsupported("Dropout in training")
    return x, torch.ones_like(x, dtype=torch.bool)
