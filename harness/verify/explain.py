"""Which of an output's differences are ties, and what decided the first that is none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.lazy import onnx_ir as ir
from harness.records import WrongDecision
from harness.reference import Region
from harness.tensors import Tensors
from harness.verify.deciders import Origin, cone_of
from harness.verify.deciding_values import DecidingValues
from harness.verify.margins import Weighed, weigh
from harness.verify.parts import FACTOR

MOST_TRIED = 64
"""How many other decisions of one element are tried, the nearest first."""
COUNTED = 8
"""How many of them are counted among what a right engine may decide otherwise."""
CHANCE = 1e-3
"""How often a right engine may have more ties than are allowed."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """The differences of one output, explained as far as the graph explains them."""

    ties: torch.Tensor
    """Where the engine's element follows from decisions that are near ties."""
    most_ties: int | None
    """How many such elements a right engine has at most; None where an element follows from no single decision."""
    wrong: Callable[[WrongDecision], WrongDecision]
    """Adds to a wrong element what decided it."""


def explain(model: ir.Model, origin: Origin, name: str, actual: torch.Tensor, values: DecidingValues) -> Explained:
    """Explain the elements of a value by the graph's last decisions. Raises NotJudged where it cannot be computed."""
    names = [decider.name for decider in origin.deciders]
    cone = cone_of(model, names, [name])
    region = Region(model, [*names, *cone.entering], [name], double=values.double)
    entering = {entry: values.reference(entry) for entry in cone.entering}
    weighed = {
        decider.name: weigh(decider, values.reference(decider.name), values.read_by(decider))
        for decider in origin.deciders
    }
    settled = {key: one.decided for key, one in weighed.items()}

    def run(changed: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return region.run(entering | settled | dict(changed))[name]

    base, given = run({}), actual.cpu()
    ties = base == given
    expected_ties, quiet = 0.0, 0
    ways = itertools.zip_longest(*(one.alternatives() for one in weighed.values()))
    for tried, others in enumerate(itertools.islice(ways, MOST_TRIED)):
        flips: Tensors = {}
        for (key, one), other in zip(weighed.items(), others, strict=True):
            if other is None:
                continue
            margin = one.margin(other)
            flipped = margin.tied & (other != one.decided)
            if flipped.any():
                flips[key] = torch.where(flipped, other, one.decided)
                if tried < COUNTED:
                    likely = torch.special.ndtr(-FACTOR * (margin.margin / margin.reach)[flipped])
                    expected_ties += float(torch.nan_to_num(likely, nan=0.5).sum())
        quiet = 0 if flips else quiet + 1
        if quiet > 2 or (tried >= COUNTED and bool(ties.all())):
            break
        for chosen in _subsets(list(flips)):
            ties |= run({key: flips[key] for key in chosen}) == given
    single = given.numel() <= sum(one.decided.numel() for one in weighed.values())
    return Explained(
        ties=ties,
        most_ties=_most(expected_ties) if single else None,
        wrong=lambda found: _deciding(found, origin, weighed, run, base),
    )


def _subsets(keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the decisions to change together: every combination of up to four, else one by one and all."""
    if len(keys) <= 4:
        for size in range(1, len(keys) + 1):
            yield from itertools.combinations(keys, size)
    else:
        yield from ((key,) for key in keys)
        yield tuple(keys)


def _most(expected: float) -> int:
    """Return the count that a Poisson variable of this mean exceeds with probability ``CHANCE`` at most."""
    from scipy.special import pdtrik

    return math.ceil(pdtrik(1 - CHANCE, expected)) if expected > 1e-3 else 1


def _deciding(
    found: WrongDecision,
    origin: Origin,
    weighed: Mapping[str, Weighed],
    run: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
    base: torch.Tensor,
) -> WrongDecision:
    """Return a wrong element with the decision that it follows from, where it follows from one."""
    place = found.index
    for decider in origin.deciders:
        one = weighed[decider.name]
        other = _other(one)
        element = _element(decider.name, one.decided, other, place, run, base)
        if element is None:
            continue
        chosen = one.decided.clone()
        direct = one.decided.dtype != torch.bool and base[place] == one.decided[element]
        chosen[element] = found.actual if direct else other[element]
        margin = one.margin(chosen)
        return WrongDecision(
            index=place, actual=found.actual, expected=found.expected, operator=decider.op, value=decider.name,
            margin=float(margin.margin[element]), loses=float(margin.loses[element]),
            excused=float(margin.reach[element]),
        )  # fmt: skip
    return found


def _other(one: Weighed) -> torch.Tensor:
    """Return another decision for every element, the nearest where alternatives are known."""
    first, second = itertools.islice(itertools.chain(one.alternatives(), itertools.repeat(one.decided)), 2)
    if first is one.decided:  # a place of a TopK: any other index shows what follows from it
        return torch.where(one.decided == 0, 1, 0).to(one.decided.dtype)
    return torch.where(first == one.decided, second, first)


def _element(
    name: str,
    decided: torch.Tensor,
    other: torch.Tensor,
    place: tuple[int, ...],
    run: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
    base: torch.Tensor,
) -> tuple[int, ...] | None:
    """Return the decision that an element follows from: the bits of its number are those that change the element."""
    if run({name: other})[place] == base[place]:
        return None
    numbers = torch.arange(decided.numel()).reshape(decided.shape)
    number = 0
    for bit in range(max(decided.numel() - 1, 0).bit_length()):
        changed = run({name: torch.where((numbers >> bit) & 1 == 1, other, decided)})[place] != base[place]
        number |= int(changed) << bit
    if number >= decided.numel():
        return None
    alone = torch.where(numbers == number, other, decided)
    if run({name: alone})[place] == base[place]:
        return None  # several decisions meet in this element
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(number), decided.shape))
