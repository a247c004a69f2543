"""Operators along axes: reductions, the place of the largest, running sums."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from harness.operators.registry import operator
from harness.operators.values import signed, unsigned

Reduction = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _sum(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keepdims, dtype=x.dtype)


def _mean(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    if x.dtype.is_floating_point:
        return x.mean(axes, keepdim=keepdims)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(_sum(x, axes, keepdims), count, rounding_mode="trunc")


def _product(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keepdims, dtype=x.dtype)
    return x


def _maximum(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    return _of_none(x, axes, keepdims, largest=False) if _is_empty(x, axes) else x.amax(axes, keepdim=keepdims)


def _minimum(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    return _of_none(x, axes, keepdims, largest=True) if _is_empty(x, axes) else x.amin(axes, keepdim=keepdims)


def _is_empty(x: torch.Tensor, axes: list[int]) -> bool:
    return any(x.shape[axis] == 0 for axis in axes)


def _of_none(x: torch.Tensor, axes: list[int], keepdims: bool, *, largest: bool) -> torch.Tensor:
    """Return an end of the type for each empty set."""
    end: float
    if x.dtype == torch.bool:
        end = largest
    elif x.dtype.is_floating_point:
        end = math.inf if largest else -math.inf
    else:
        end = torch.iinfo(x.dtype).max if largest else torch.iinfo(x.dtype).min
    shape = x.to(torch.bool).any(axes, keepdim=keepdims).shape
    return torch.full(shape, end, dtype=x.dtype, device=x.device)


def _norm1(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    return _sum(x.abs(), axes, keepdims)


def _norm2(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    of_floats = x if x.dtype.is_floating_point else x.double()
    norm: torch.Tensor = torch.linalg.vector_norm(of_floats, 2, axes, keepdims)
    return norm.to(x.dtype)


def _log_sum(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    return _sum(x, axes, keepdims).log().to(x.dtype)


def _log_sum_exp(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    of_floats = x if x.dtype.is_floating_point else x.double()
    return torch.logsumexp(of_floats, axes, keepdims).to(x.dtype)


def _sum_square(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
    return _sum(x * x, axes, keepdims)


def _register(name: str, function: Reduction, *, inputs_since: int) -> None:
    @unsigned
    def reduced(x: torch.Tensor, axes: list[int], keepdims: bool) -> torch.Tensor:
        if not axes:  # nothing is reduced, but logarithms and squares are taken
            return function(x.unsqueeze(0), [0], False)
        return function(x, [axis % x.ndim for axis in axes], keepdims)

    @operator(name)
    def by_attribute(x: torch.Tensor, *, axes: list[int] | None = None, keepdims: int = 1) -> torch.Tensor:
        return reduced(x, axes or list(range(x.ndim)), bool(keepdims))

    @operator(name, since=inputs_since)
    def by_input(
        x: torch.Tensor, axes: torch.Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> torch.Tensor:
        given = [] if axes is None else axes.reshape(-1).tolist()
        if not given and not noop_with_empty_axes:
            given = list(range(x.ndim))
        return reduced(x, given, bool(keepdims))


_register("ReduceSum", _sum, inputs_since=13)
for _name, _function in {
    "ReduceMean": _mean,
    "ReduceProd": _product,
    "ReduceMax": _maximum,
    "ReduceMin": _minimum,
    "ReduceL1": _norm1,
    "ReduceL2": _norm2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": _sum_square,
}.items():
    _register(_name, _function, inputs_since=18)


def _register_place(name: str, find: Callable[[torch.Tensor, int, bool], torch.Tensor]) -> None:
    @operator(name)
    def place(x: torch.Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> torch.Tensor:
        x = signed(x)
        if not select_last_index:
            return find(x, axis, bool(keepdims))
        return x.shape[axis] - 1 - find(x.flip(axis), axis, bool(keepdims))


_register_place("ArgMax", lambda x, axis, keepdims: x.argmax(axis, keepdim=keepdims))
_register_place("ArgMin", lambda x, axis, keepdims: x.argmin(axis, keepdim=keepdims))


def _register_running(name: str, run: Callable[[torch.Tensor, int], torch.Tensor], *, start: int) -> None:
    @operator(name)
    @unsigned
    def running(x: torch.Tensor, axis: torch.Tensor, *, exclusive: int = 0, reverse: int = 0) -> torch.Tensor:
        along = int(axis.item())
        x = x.flip(along) if reverse else x
        if exclusive and x.shape[along]:
            first = torch.full_like(x.narrow(along, 0, 1), start)
            x = torch.cat([first, x.narrow(along, 0, x.shape[along] - 1)], along)
        x = run(x, along)
        return x.flip(along) if reverse else x


_register_running("CumSum", lambda x, axis: x.cumsum(axis, dtype=x.dtype), start=0)
_register_running("CumProd", lambda x, axis: x.cumprod(axis, dtype=x.dtype), start=1)
