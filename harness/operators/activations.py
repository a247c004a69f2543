"""The activations that another operator names in an attribute: recurrent cells and what optimisers have fused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from harness.operators.values import Unsupported


def _affine(x: torch.Tensor, alpha: float = 1.0, beta: float = 0.0) -> torch.Tensor:
    return alpha * x + beta


def _scaled_tanh(x: torch.Tensor, alpha: float = 1.0, beta: float = 1.0) -> torch.Tensor:
    return alpha * torch.tanh(beta * x)


def _hard_sigmoid(x: torch.Tensor, alpha: float = 0.2, beta: float = 0.5) -> torch.Tensor:
    return (alpha * x + beta).clamp(0, 1)


def _leaky_relu(x: torch.Tensor, alpha: float = 0.01, beta: float = 0.0) -> torch.Tensor:
    return F.leaky_relu(x, alpha)


def _thresholded_relu(x: torch.Tensor, alpha: float = 1.0, beta: float = 0.0) -> torch.Tensor:
    return torch.where(x > alpha, x, 0)


def _elu(x: torch.Tensor, alpha: float = 1.0, beta: float = 0.0) -> torch.Tensor:
    return F.elu(x, alpha)


def _clip(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return x.clamp(alpha, beta)


_PLAIN: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softplus": F.softplus,
    "gelu": F.gelu,
}
_SHAPED: Mapping[str, Callable[..., torch.Tensor]] = {
    "affine": _affine,
    "scaledtanh": _scaled_tanh,
    "hardsigmoid": _hard_sigmoid,
    "leakyrelu": _leaky_relu,
    "thresholdedrelu": _thresholded_relu,
    "elu": _elu,
    "clip": _clip,
}
TAKES_ALPHA = frozenset(_SHAPED)
TAKES_BETA = frozenset({"affine", "scaledtanh", "hardsigmoid"})
"""Of the activations of a recurrent cell, in lower case: those that take a number from each list of parameters."""


def activate(name: str, x: torch.Tensor, *parameters: float) -> torch.Tensor:
    """Return a named activation of a tensor; names are matched in any case. Raises Unsupported for others."""
    key = name.lower()
    if key in _PLAIN:
        return _PLAIN[key](x)
    if key not in _SHAPED:
        raise Unsupported(f"the activation {name!r}")
    return _SHAPED[key](x, *parameters)
