"""The ways in which an engine's tensor can hold a value of the graph, and how far each is from the value.

A tensor arrives row by row in the engine's own order of dimensions; some of them may be merged or padded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from harness.compare import ratio

CLEARLY_CLOSER = 0.9
"""Another layout is preferred to an earlier one if its error is below this part; wrong layouts differ by less."""
SIMILAR = 0.5
"""Cosine similarity above which a tensor resembles a value; random tensors of 500 elements reach 0.1 in 24 orders."""
MOST_ORDERED = 5
"""Dimensions whose orders are tried: 120 orders."""
MOST_PADDING = 8
"""Elements; tensor cores want multiples of 8."""
SAMPLE = 2**16
"""Elements: enough to distinguish tensors, and a fraction of what a comparison reads."""
AT_ONCE = 24
"""Layouts measured together (all orders of four dimensions): one by one, a GPU would spend the time on launches."""
# TensorRT computes indices in INT32, also where the graph has INT64.
_INTEGERS = {torch.int64, torch.int32, torch.bool, torch.int8, torch.uint8}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A tensor of the engine laid out as a value."""

    value: str
    tensor: torch.Tensor = field(repr=False)
    """Shaped like the value."""
    layout: str
    """Empty as it is, else in words."""
    error: float
    """Distance from the replay, see :func:`distances`."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A value that a tensor is held against."""

    replay: torch.Tensor
    """The value, computed from what the engine had before it."""
    close: float
    """The distance below which a tensor is this value."""
    dtypes: frozenset[torch.dtype]
    """What the typed graph stores it in; a tensor of another dtype is an inner one."""

    def can_be(self, tensor: torch.Tensor) -> bool:
        """Return False for a tensor of as many elements whose size alone rules out every order of them.

        The distance of two vectors is at least the difference of their norms, in any order. The tensor is clamped to
        the value's largest magnitude, so that a few outliers decide nothing: clamping brings no element further away.
        The factor of two is there because a distance is taken from a sample. What is not finite or no float is not
        ruled out.
        """
        if not (tensor.is_floating_point() and self.replay.is_floating_point()):
            return True
        norm, largest = self._norm_and_largest
        have = float(torch.linalg.vector_norm(tensor.double().clamp(-largest, largest)))
        return not abs(have - norm) > 2 * self.close * norm

    @cached_property
    def _norm_and_largest(self) -> tuple[float, float]:
        norm = torch.linalg.vector_norm(self.replay.double())
        return tuple(torch.stack([norm, self.replay.abs().amax().double()]).tolist())


def best_fit(tensor: torch.Tensor, name: str, value: Expected) -> Fit | None:
    """Return the layout of a tensor that comes closest to a value, or None when it cannot hold the value.

    A tensor that resembles the value in no layout is taken in its own.
    """
    if tensor.dtype not in value.dtypes and not ({tensor.dtype} | value.dtypes <= _INTEGERS):
        return None
    first: Fit | None = None
    best: Fit | None = None
    layouts = _layouts(tensor, tuple(value.replay.shape))
    # Most tensors have the layout of their value, which is tried first and alone.
    while some := list(itertools.islice(layouts, AT_ONCE if best else 1)):
        errors = distances([laid for _, laid in some], value.replay)
        for (layout, laid), error in zip(some, errors, strict=True):
            if best is None or error < CLEARLY_CLOSER * best.error:
                best = Fit(value=name, tensor=laid, layout=layout, error=error)
            if best.error < value.close:
                return best
        first = first or best
    return best if best is None or best is first or _resembles(best, value.replay) else first


def _resembles(fit: Fit, replay: torch.Tensor) -> bool:
    """Return whether the cosine similarity to the value is high; that of an unrelated tensor is near 0."""
    a, e = (part.flatten().double().nan_to_num(0, 0, 0) for part in (fit.tensor, replay.to(fit.tensor.device)))
    return float(torch.nn.functional.cosine_similarity(a, e, dim=0)) > SIMILAR


def _layouts(tensor: torch.Tensor, shape: tuple[int, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the ways in which a tensor can hold a value of this shape."""
    if tensor.numel() == math.prod(shape):
        yield "", tensor.reshape(shape)
        yield from _other_orders(tensor, shape)
        return
    for sizes in _without_padding(tuple(tensor.shape), math.prod(shape)):
        part = tensor[tuple(slice(size) for size in sizes)]
        for words, laid in _layouts(part, shape):
            yield ", ".join(filter(None, ("padded", words))), laid


def _other_orders(tensor: torch.Tensor, shape: tuple[int, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the value from a tensor that holds it with its dimensions in another order, some of them merged."""
    axes = [axis for axis, size in enumerate(shape) if size != 1]
    if not 1 < len(axes) <= MOST_ORDERED:
        return
    for order in itertools.permutations(range(len(axes))):
        if list(order) != sorted(order):
            back = sorted(range(len(order)), key=order.__getitem__)
            laid = tensor.reshape([shape[axes[axis]] for axis in order]).permute(back).reshape(shape)
            yield f"permuted {tuple(axes[axis] for axis in order)}", laid


def _without_padding(have: tuple[int, ...], wanted: int) -> Iterator[tuple[int, ...]]:
    """Yield sizes that one or two padded dimensions may have had, so that as many elements are left as are wanted."""
    ranges = [range(size, max(0, size - MOST_PADDING - 1), -1) for size in have]
    for count in (1, 2):
        for axes in itertools.combinations(range(len(have)), count):
            for cut in itertools.product(*(ranges[axis][1:] for axis in axes)):
                sizes = list(have)
                for axis, size in zip(axes, cut, strict=True):
                    sizes[axis] = size
                if math.prod(sizes) == wanted:
                    yield tuple(sizes)


def distances(tensors: Sequence[torch.Tensor], replay: torch.Tensor) -> list[float]:
    """Return the relative L2 error of each tensor over a sample of the elements that are finite on both sides.

    At least the share of elements that are finite on one side only; infinite where none is finite on both, but 0 where
    none is on either. For integers and booleans it is the share of elements that differ. The tensors are of one dtype
    and as large as ``replay``.
    """
    if not replay.numel():
        return [math.inf] * len(tensors)
    # An odd step samples every row and column; an even one may always hit the same columns.
    step = replay.numel() // SAMPLE | 1
    a = torch.stack([tensor.flatten()[::step].double() for tensor in tensors])
    e = replay.flatten()[::step].to(a.device).double()
    if not (tensors[0].is_floating_point() and replay.is_floating_point()):
        return [float(share) for share in (a != e).double().mean(dim=-1).tolist()]
    finite_a, finite_e = a.isfinite(), e.isfinite()
    finite = finite_a & finite_e
    share = (finite_a != finite_e).double().mean(dim=-1)
    a, e = torch.where(finite, a, 0), torch.where(finite, e, 0)
    figures = torch.stack([(a - e).norm(dim=-1), e.norm(dim=-1), finite.sum(dim=-1).double(), share], dim=-1)
    # A layout must not win because its sample leaves out the elements that are not finite.
    return [
        max(ratio(error, norm), differ) if some or not differ else math.inf
        for error, norm, some, differ in figures.tolist()
    ]


def same_elements(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two tensors hold the same elements, in any order."""
    if first.numel() != second.numel():
        return False
    a, b = first.flatten().double(), second.flatten().double()
    return torch.equal(a, b) or torch.equal(a.sort().values, b.sort().values)
