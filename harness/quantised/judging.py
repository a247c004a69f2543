"""The verdict on codes: two apart is wrong, one apart is right only near a tie, as often as rounding explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.lazy import special
from harness.operators import RANGES
from harness.quantised.backends import Arithmetic
from harness.quantised.codes import Grid
from harness.quantised.evaluator import evaluate, quantisers
from harness.quantised.gains import Gains
from harness.quantised.rounding import Rounding
from harness.records import QuantiserResult
from harness.reference import RunGraph
from harness.sentences import Sentence
from harness.tensors import Tensors

RUNS = 32
"""How often a graph is run with all its values moved by their rounding."""
CHANCE = 1e-6
"""How often a right quantiser may be called wrong: sets the two limits below, of one element and of their number."""
_KINDS = (*RANGES, "FLOAT8E4M3FN", "FLOAT8E5M2")


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A quantised graph on one case, as a backend computes it."""

    graph: RunGraph
    inputs: Tensors
    roundoffs: Mapping[str, float]
    """The unit roundoff of every value's format, by name."""
    accumulator: float
    """That of sums of products."""
    scaling: float
    """That of what a quantiser computes in."""
    backend: Arithmetic
    options: Mapping[str, Any]
    """Of every run: ``device`` and ``weights``."""

    def run(self, given: Tensors | None = None, **options: Any) -> Tensors:
        """Return the outputs, with given codes."""
        reciprocal = self.backend.reciprocal
        return evaluate(self.graph, self.inputs, given=given, reciprocal=reciprocal, **self.options, **options)

    def moved(self, given: Tensors, **options: Any) -> Tensors:
        """Return the outputs with given codes and with every value moved by its rounding: the floor of such outputs."""
        return self.run(given, rounding=self.rounding(given), generator=torch.Generator().manual_seed(0), **options)

    def rounding(self, given: Tensors | None = None) -> Rounding:
        """Return by how much each value is uncertain, given these codes."""
        fixed = frozenset(self.graph.computed_constants)
        rounding = Rounding(
            self.roundoffs, accumulator=self.accumulator, fixed=fixed, rounds_bias=self.backend.rounds_bias
        )
        self.run(given, rounding=rounding)
        return rounding


def judge_codes(
    case: Quantised, given: Tensors, unseen: Mapping[str, str], *, gains: Gains | None = None, also: Sequence[str] = ()
) -> tuple[QuantiserResult, ...]:
    """Return the verdict on every quantiser: an engine's codes against the exact ones of the engine's own inputs.

    The graph is run once in FP64; at each Q the exact code is held against the engine's, which then goes on. The
    standard deviation of what arrives at each Q is that of ``RUNS`` runs in which every value is moved by its rounding.
    ``unseen`` says why other quantisers cannot be seen; ``gains`` count the outputs of these runs and the values that
    ``also`` names.
    """
    seen: dict[str, tuple[torch.Tensor, Grid]] = {}
    case.run(given, look=lambda name, ratio, grid: seen.__setitem__(name, (ratio, grid)))
    squares = {name: torch.zeros_like(ratio) for name, (ratio, _) in seen.items()}

    def add(name: str, ratio: torch.Tensor, grid: Grid) -> None:
        difference = ratio - seen[name][0]
        squares[name] += torch.where(difference.isfinite(), difference, 0.0) ** 2

    rounding = case.rounding(given)
    for generator in _generators(RUNS):
        outputs = case.run(given, look=add, rounding=rounding, generator=generator, also=also)
        if gains is not None:
            gains.add(outputs)
    results = []
    for name in quantisers(case.graph):
        ratio, grid = seen[name]
        if name not in given or grid.kind not in _KINDS:
            why = unseen.get(name, Sentence("codes_not_compared", kind=grid.kind))
            results.append(QuantiserResult(name=name, kind=grid.kind, verdict="not_judged", reason=why))
        else:
            deviation = (squares[name] / RUNS).sqrt()
            results.append(_judged(name, grid, ratio, deviation, given[name].to(ratio.device), case))
    return tuple(results)


def _judged(
    name: str, grid: Grid, ratio: torch.Tensor, deviation: torch.Tensor, found: torch.Tensor, case: Quantised
) -> QuantiserResult:
    """Return the verdict on one quantiser."""
    exact = grid.codes(ratio)
    if exact.shape != found.shape or exact.dtype != found.dtype:
        reason = f"its codes are {found.dtype} {list(found.shape)} in the place of {exact.dtype} {list(exact.shape)}"
        return QuantiserResult(name=name, kind=grid.kind, verdict="fail", reason=reason.replace("torch.", ""))
    compared = ~ratio.isnan() if grid.kind in RANGES else torch.ones_like(ratio, dtype=torch.bool)
    odd = grid.not_numbers(exact) != grid.not_numbers(found)
    places = grid.places(exact)
    apart = torch.where(compared & ~grid.not_numbers(exact), grid.places(found) - places, 0)
    below, above = grid.to_ties(ratio, places)
    scaling = (2 if case.backend.reciprocal else 1) * case.scaling * ratio.abs()
    total = (deviation**2 + scaling**2).sqrt()
    distance = torch.where(apart > 0, above, below)
    window = float(-special.stdtrit(RUNS, CHANCE / (2 * max(ratio.numel(), 1)))) * deviation + scaling
    one, two = apart.abs() == 1, (apart.abs() > 1) | odd
    far = one & ~(distance <= window)
    expected = float((_beyond(below, total) + _beyond(above, total))[compared].sum())
    count, many, away = int(one.sum()), int(two.sum()), int(far.sum())
    too_many = count > 0 and float(special.gammainc(count, max(expected, 1e-300))) < CHANCE
    most = int(apart.abs().max()) if apart.numel() else 0
    at = int(torch.where(odd, torch.iinfo(torch.int64).max, apart.abs() + far.long()).argmax()) if apart.numel() else 0
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), ratio.shape)) if count or many else ()
    words = Sentence("one_apart", count=count, count_2=ratio.numel(), expected=expected)
    if many:
        what = Sentence("by_up_to", most=most) if most > 1 else Sentence("no_number_one_side")
        reason = Sentence("two_apart", many=many, count=ratio.numel(), what=what, index=list(index))
    elif away:
        reason = Sentence("far_from_ties", words=words, away=away, index=list(index))
    else:
        reason = words
    return QuantiserResult(
        name=name, kind=grid.kind, verdict="fail" if many or away or too_many else "pass", reason=reason,
        elements=ratio.numel(), one_apart=count, far_from_ties=away, explained=expected, two_apart=many,
        most_apart=most, worst=index,
    )  # fmt: skip


def _beyond(distance: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Return the chance that normal noise of a standard deviation exceeds a distance; a half on the tie itself."""
    z = distance / torch.where(deviation > 0, deviation, torch.finfo(torch.float64).tiny)
    return 0.5 * torch.erfc(z.nan_to_num(nan=torch.inf, posinf=torch.inf) / 2**0.5)


def spread(case: Quantised, runs: int = RUNS) -> list[Tensors]:
    """Return the outputs of several runs in which every value, so the input of every Q, is moved by its rounding.

    They differ from the exact ones by codes that flip, which is what right engines differ by.
    """
    rounding = case.rounding()
    return [case.run(rounding=rounding, generator=generator) for generator in _generators(runs)]


def _generators(runs: int) -> Sequence[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in range(runs)]
