"""Losses, and one step of the optimisers that train with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from harness.operators.registry import operator
from harness.operators.values import Unsupported

TRAINING = "ai.onnx.preview.training"


@operator("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(
    x: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Log probabilities (batch, classes, ...) and labels (batch, ...)."""
    ignored = -100 if ignore_index is None else ignore_index
    return F.nll_loss(x, labels.long(), weights, ignore_index=ignored, reduction=reduction)


@operator("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy_loss(
    x: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss and the logarithm of the probabilities."""
    logs = x.log_softmax(1)
    loss = negative_log_likelihood_loss(logs, labels, weights, ignore_index=ignore_index, reduction=reduction)
    return loss, logs


@operator("Adagrad", domain=TRAINING)
def adagrad(
    rate: torch.Tensor,
    steps: torch.Tensor,
    *tensors: torch.Tensor,
    decay_factor: float = 0.0,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
) -> tuple[torch.Tensor, ...]:
    """Tensors are all parameters, all gradients, all squares; given back are parameters and squares."""
    by = rate / (1 + steps * decay_factor)
    moved, squares = [], []
    for x, gradient, square in _sets(tensors, 3):
        slope = norm_coefficient * x + gradient
        squares.append(square + slope * slope)
        moved.append(x - by * slope / (squares[-1].sqrt() + epsilon))
    return *moved, *squares


@operator("Adam", domain=TRAINING)
def adam(
    rate: torch.Tensor,
    steps: torch.Tensor,
    *tensors: torch.Tensor,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> tuple[torch.Tensor, ...]:
    """Tensors are all parameters, gradients, first and second moments; all but the gradients are given back."""
    count = int(steps)
    by = rate * (1 - beta**count) ** 0.5 / (1 - alpha**count) if count > 0 else rate
    moved, firsts, seconds = [], [], []
    for x, gradient, first, second in _sets(tensors, 4):
        slope = norm_coefficient * x + gradient
        firsts.append(alpha * first + (1 - alpha) * slope)
        seconds.append(beta * second + (1 - beta) * slope * slope)
        moved.append((1 - norm_coefficient_post) * (x - by * firsts[-1] / (seconds[-1].sqrt() + epsilon)))
    return *moved, *firsts, *seconds


@operator("Momentum", domain=TRAINING)
def momentum(
    rate: torch.Tensor,
    steps: torch.Tensor,
    *tensors: torch.Tensor,
    alpha: float,
    beta: float,
    mode: str,
    norm_coefficient: float,
) -> tuple[torch.Tensor, ...]:
    """Tensors are all parameters, gradients, momenta; given back are parameters and momenta."""
    if mode not in ("standard", "nesterov"):
        raise Unsupported(f"the mode {mode!r}")
    by = beta if int(steps) > 0 else 1.0
    moved, momenta = [], []
    for x, gradient, before in _sets(tensors, 3):
        slope = norm_coefficient * x + gradient
        momenta.append(alpha * before + by * slope)
        moved.append(x - rate * (slope + alpha * momenta[-1] if mode == "nesterov" else momenta[-1]))
    return *moved, *momenta


def _sets(tensors: Sequence[torch.Tensor], kinds: int) -> list[tuple[torch.Tensor, ...]]:
    """Return, for each parameter, its tensor of each kind."""
    count = len(tensors) // kinds
    return list(zip(*(tensors[kind * count : (kind + 1) * count] for kind in range(kinds)), strict=True))
