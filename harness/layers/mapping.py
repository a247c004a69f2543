"""From what a tap delivers to the values of the graph: the ONNX nodes inside a kernel, orders of dimensions, contents.

A tap delivers a tensor row by row, under the engine's own name and in the engine's own order of dimensions. The engine
inspector says which ONNX nodes each kernel holds. What a kernel writes is a value that leaves its nodes; which one, and
in which order its elements lie, the contents decide: it is the value that a replay of the kernel on the engine's own
inputs comes close to. A tensor that resembles nothing is taken by name, where only one value can be meant: that is what
a wrong kernel looks like.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from harness.backends import Kernel
from harness.layers.makers import Candidates

CLEARLY = 3.0  # of two values that both match, the closer one is taken if it is this much closer
NOTABLY = 0.9  # layouts that all resemble nothing differ by less, by chance; then a tensor is taken as it lies
ALIKE = 0.5  # cosine; by chance, the best of 24 orders of 500 random elements has 0.1
MOST_ORDERED = 5  # dimensions whose orders are tried: 120
MOST_PADDING = 8  # elements; tensor cores want multiples of 8
SAMPLE = 2**16  # elements; enough to tell tensors apart, and a fraction of what a comparison reads
AT_ONCE = 24  # layouts measured together, the orders of four dimensions: one by one, a GPU waits for its launches
# TensorRT computes indices in INT32 whatever the graph says.
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
class Decision:
    """What one tensor of an engine was found to be."""

    fits: tuple[Fit, ...] = ()
    """One value, or the several that are concatenated in it; none for what is no value."""
    mapped_by: str = ""
    """``contents``, or ``name`` when it resembles nothing and only one value can be meant, or explains the others."""
    inner: bool = False
    """It is no value: a statistic, a work space, a partial result."""
    reason: str = ""


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

        The distance of two vectors is at least the difference of their norms, whatever the order. Elements are cut off
        at the value's largest, which brings none further from it, so that a few outliers decide nothing; the factor of
        two is for a distance that is taken from a sample. What is not finite or no float is not ruled out.
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


Expect = Callable[[str], Expected | None]


def decide(
    kernel: Kernel,
    tensors: Mapping[str, torch.Tensor],
    candidates: Candidates,
    expect: Expect,
    assume: Callable[[str, torch.Tensor], Expect] | None = None,
) -> dict[str, Decision]:
    """Return what each tensor that a kernel wrote is; ``expect`` computes a candidate, or says that nothing can.

    ``assume`` returns what computes the candidates if a value were this tensor.
    """
    decisions: dict[str, Decision] = {}
    taken: set[str] = set()
    expected: dict[str, Expected] = {}
    # What leaves is what a kernel should write; the others are computed only when that is not what it wrote.
    for group in (candidates.leaving, candidates.inside, candidates.after, candidates.read):
        if len(decisions) == len(tensors):
            return decisions
        values = {name: value for name in group if (value := expect(name)) is not None}
        expected |= values
        for name, tensor in tensors.items():
            if name not in decisions and (decision := _by_contents(tensor, values, taken)) is not None:
                decisions[name] = decision
                taken |= {fit.value for fit in decision.fits}
    parts = {name: value for name, value in expected.items() if name not in taken}
    for name, tensor in tensors.items():
        if name not in decisions and (fits := _concatenated(tensor, parts)) is not None:
            decisions[name] = Decision(fits=fits, mapped_by="contents")
            taken |= {fit.value for fit in fits}
    leaving = [v for v in candidates.leaving if v not in taken and v not in candidates.unfinished]
    unknown = [value for value in leaving if value not in expected]
    left = {value: expected[value] for value in leaving if value in expected}
    undecided = {name: tensor for name, tensor in tensors.items() if name not in decisions}
    if assume is not None:
        for name, decision in _by_consequence(undecided, left, assume).items():
            decisions[name] = decision
            left = _without(left, decision)
    for name, tensor in undecided.items():
        if name in decisions:
            continue
        if unknown:  # what nothing else computes cannot be ruled out
            decisions[name] = Decision(reason=f"it may be {', '.join(unknown)}, which only the engine computes")
        elif (found := _by_name(tensor, left)) is not None:
            decisions[name] = found
            left = _without(left, found)
    for name, tensor in undecided.items():
        if name not in decisions:
            decisions[name] = _no_value(tensor, left, candidates)
    return decisions


def _without(values: Mapping[str, Expected], decision: Decision) -> dict[str, Expected]:
    """Return the values that a decision has not given to a tensor."""
    taken = {fit.value for fit in decision.fits}
    return {name: value for name, value in values.items() if name not in taken}


def _by_contents(tensor: torch.Tensor, values: Mapping[str, Expected], taken: Collection[str]) -> Decision | None:
    fits = [fit for name, value in values.items() if (fit := best_fit(tensor, name, value)) is not None]
    fits = sorted((fit for fit in fits if fit.error < values[fit.value].close), key=lambda fit: fit.error)
    if not fits:
        return None
    closest = fits[0]
    rivals = [fit for fit in fits if fit.error <= CLEARLY * max(closest.error, 1e-12)]
    if len(rivals) == 1:
        return Decision(fits=(closest,), mapped_by="contents")
    names = [name for name in values if name in {fit.value for fit in rivals}]
    if not all(_same_numbers(values[closest.value].replay, values[name].replay) for name in names):
        return Decision(reason=f"its contents do not tell {', '.join(names)} apart")
    # A reshape or a transposition holds the same numbers: one tensor of the engine stands for all of them.
    chosen = next((name for name in reversed(names) if name not in taken), names[-1])
    reason = f"the same numbers as {', '.join(name for name in names if name != chosen)}"
    return Decision(fits=tuple(f for f in rivals if f.value == chosen), mapped_by="contents", reason=reason)


def _by_consequence(
    undecided: Mapping[str, torch.Tensor],
    left: Mapping[str, Expected],
    assume: Callable[[str, torch.Tensor], Expect],
) -> dict[str, Decision]:
    """Decide tensors that resemble nothing, of which one explains others: a wrong value, and what follows from it."""
    if len(undecided) < 2 or len(left) < 2:
        return {}
    explanations: list[dict[str, Decision]] = []
    for value, wanted in left.items():
        for name, tensor in undecided.items():
            fit = best_fit(tensor, value, wanted)
            if fit is None:
                continue
            expect = assume(value, fit.tensor)
            rest = {other: found for other in left if other != value and (found := expect(other)) is not None}
            explained: dict[str, Decision] = {}
            for other, its in undecided.items():
                if other != name and (decision := _by_contents(its, rest, ())) is not None and decision.fits:
                    explained[other] = decision
            if explained:
                reason = "what else the kernel wrote follows from it"
                explanations.append({name: Decision(fits=(fit,), mapped_by="name", reason=reason), **explained})
    most = max(map(len, explanations), default=0)
    best = [found for found in explanations if len(found) == most]
    # Tensors of NaN are one as good as the other.
    values = {frozenset(decision.fits[0].value for decision in found.values()) for found in best}
    alike = not any(undecided[name].isfinite().any() for found in best for name in found)
    return best[0] if len(best) == 1 or (alike and len(values) == 1) else {}


def _by_name(tensor: torch.Tensor, left: Mapping[str, Expected]) -> Decision | None:
    """Decide a tensor that resembles no value by what a kernel has to write and has not written yet."""
    whole = {name: value for name, value in left.items() if value.replay.numel() == tensor.numel()}
    fits = [fit for name, value in whole.items() if (fit := best_fit(tensor, name, value)) is not None]
    if len(fits) > 1:
        names = ", ".join(fit.value for fit in fits)
        return Decision(reason=f"it can be any of {names} and resembles none of them")
    return Decision(fits=tuple(fits), mapped_by="name") if fits else None


def _no_value(tensor: torch.Tensor, left: Mapping[str, Expected], candidates: Candidates) -> Decision:
    if left:
        shapes = ", ".join(f"{name} {list(value.replay.shape)}" for name, value in left.items())
        kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        return Decision(reason=f"{kind} cannot hold what the kernel makes: {shapes}")
    if candidates.unfinished:
        return Decision(inner=True, reason=f"on the way to {', '.join(sorted(candidates.unfinished))}")
    return Decision(inner=True, reason="a kernel's own; the graph has no value for it")


def best_fit(tensor: torch.Tensor, name: str, value: Expected) -> Fit | None:
    """Return the layout of a tensor that comes closest to a value, or None when it cannot hold the value.

    A tensor that resembles the value in no layout is taken as it lies.
    """
    if tensor.dtype not in value.dtypes and not ({tensor.dtype} | value.dtypes <= _INTEGERS):
        return None
    first: Fit | None = None
    best: Fit | None = None
    layouts = _layouts(tensor, tuple(value.replay.shape))
    # Most tensors lie as their value does, which the first layout shows.
    while some := list(itertools.islice(layouts, AT_ONCE if best else 1)):
        errors = distances([laid for _, laid in some], value.replay)
        for (layout, laid), error in zip(some, errors, strict=True):
            if best is None or error < NOTABLY * best.error:
                best = Fit(value=name, tensor=laid, layout=layout, error=error)
            if best.error < value.close:
                return best
        first = first or best
    return best if best is None or best is first or _alike(best, value.replay) else first


def _alike(fit: Fit, replay: torch.Tensor) -> bool:
    """Return whether a tensor points where the value does, whatever its size: what is unrelated has a cosine near 0."""
    a, e = (part.flatten().double().nan_to_num(0, 0, 0) for part in (fit.tensor, replay.to(fit.tensor.device)))
    return float(torch.nn.functional.cosine_similarity(a, e, dim=0)) > ALIKE


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


def _concatenated(tensor: torch.Tensor, values: Mapping[str, Expected]) -> tuple[Fit, ...] | None:
    """Return the values that lie side by side in a tensor's last dimension (one GEMM for several), or None."""
    if tensor.dim() < 2 or len(values) < 2 or not tensor.numel():
        return None
    rows, start, left = tensor.numel() // tensor.shape[-1], 0, dict(values)
    fits: list[Fit] = []
    while start < tensor.shape[-1]:
        found: Fit | None = None
        for name, value in left.items():
            width, rest = divmod(value.replay.numel(), rows)
            if rest or not width or start + width > tensor.shape[-1]:
                continue
            part = tensor[..., start : start + width]
            fit = best_fit(part, name, value) if value.can_be(part) else None
            if fit is not None and fit.error < value.close and (found is None or fit.error < found.error):
                found = fit
        if found is None:
            return None
        start += left.pop(found.value).replay.numel() // rows
        fits.append(Fit(value=found.value, tensor=found.tensor, layout="part of a concatenation", error=found.error))
    return tuple(fits) if len(fits) > 1 else None


def distances(tensors: Sequence[torch.Tensor], replay: torch.Tensor) -> list[float]:
    """Return the relative L2 error of each tensor over a sample of the elements that are finite on both sides.

    At least the share of elements that are finite on one side only; infinite where none is finite on both, but 0 where
    none is on either. For integers and booleans it is the share of elements that differ. The tensors are of one dtype
    and as large as ``replay``.
    """
    if not replay.numel():
        return [math.inf] * len(tensors)
    # Odd steps meet every row and column; an even spacing would meet the tensor's own period.
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
    # A layout that puts the elements that are not finite out of sight is not the better for it.
    return [
        float(max(error / norm if norm else (math.inf if error else 0.0), differ)) if some or not differ else math.inf
        for error, norm, some, differ in figures.tolist()
    ]


def _same_numbers(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two tensors hold the same elements, in whatever order."""
    if first.numel() != second.numel():
        return False
    a, b = first.flatten().double(), second.flatten().double()
    return torch.equal(a, b) or torch.equal(a.sort().values, b.sort().values)
