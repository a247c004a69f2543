"""Outputs in the order of a TopK or a sort: the order that the engine chose among near ties, and no other.

Where scores are closer than the error that PyTorch makes there, any order of them is right, and so is a candidate
just beyond the k-th place. What the engine chose is found from the outputs: those of the reference are computed once
more with every near-tied candidate in the place of its neighbour, and the assignment of candidates to places, each one
used once, that fits all outputs best is taken (a minimum weight matching). The reference and the floor in that order
are then what the engine is held against; whatever is wrong beside the order still is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.graph import constant_of
from harness.lazy import onnx_ir as ir
from harness.reference import Region
from harness.tensors import Tensors
from harness.verify.deciders import ELEMENTWISE, MOVES, Cone, cone_of
from harness.verify.deciding_values import DecidingValues
from harness.verify.margins import apart

MOST_PLACES = 32
"""How many places from its own a candidate is looked for."""
_ORDERED = MOVES | ELEMENTWISE
_DECISIVE = 1e4


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """A TopK, and the outputs that are in its order."""

    node: ir.Node
    cone: Cone

    @property
    def scores(self) -> str:
        """The value that is ordered."""
        assert self.node.inputs[0] is not None
        return str(self.node.inputs[0].name)

    @property
    def decided(self) -> tuple[str, str]:
        """The values that it gives: the scores in order, and their indices; empty where nothing reads them."""
        values, indices = self.node.outputs
        return str(values.name or ""), str(indices.name or "")

    @property
    def needs(self) -> tuple[str, ...]:
        """What has to be known beside its own results."""
        return (self.scores, *self.cone.entering)


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """The outputs of one TopK in the order that the engine chose."""

    reference: Tensors
    """Values between the TopK and the outputs, the outputs and its own results among them, in that order."""
    floor: Tensors
    """The same in the engine's precision."""
    expected: Tensors
    """The outputs: the reference with those elements that the order changes."""
    exchanged: int
    """Places that hold another candidate than in the reference."""


def orders_of(model: ir.Model, outputs: Sequence[str]) -> list[Order]:
    """Return the TopK nodes whose order is that of outputs, in dataflow order: between lies what moves elements only.

    A TopK in the midst of a network, whose elements are mixed afterwards, orders no output.
    """
    found = []
    for node in model.graph:
        if node.op_type != "TopK" or node.domain != "" or len(node.outputs) != 2:
            continue
        if node.inputs[0] is None or constant_of(node.inputs[0]) is not None:
            continue
        cone = cone_of(model, [str(value.name) for value in node.outputs if value.name], outputs)
        if cone.outputs and cone.ops <= _ORDERED:
            found.append(Order(node=node, cone=cone))
    return found


def put_in_order(order: Order, model: ir.Model, values: DecidingValues, actual: Tensors, expected: Tensors) -> Ordered:
    """Return the reference and the floor of a TopK's outputs in the engine's order. Raises NotJudged."""
    places = _Places(order, values)
    names = [name for name in order.decided if name]
    region = Region(model, [*names, *order.cone.entering], order.cone.outputs, double=values.double)
    entering = {name: values.reference(name) for name in order.cone.entering}
    entering_low = {name: values.floor(name) for name in order.cone.entering}

    def run(ranks: torch.Tensor, *, low: bool = False) -> Tensors:
        return region.run(places.results(ranks, low=low) | (entering_low if low else entering))

    base = run(places.own)
    engine = {
        name: actual[name].cpu().double()
        for name, tensor in base.items()
        if name in actual and actual[name].shape == tensor.shape
    }
    fitted = places.own
    indices = engine.get(order.decided[1])
    if indices is not None:  # the engine says itself which candidate it took
        fitted = places.fitted({}, given=places.ranks_of(indices))
    elif any(not torch.equal(tensor, base[name].double()) for name, tensor in engine.items()):
        blur = {name: _rms(tensor.double() - base[name].double()) for name, tensor in run(places.own, low=True).items()}
        votes = {
            distance: _votes(places.tied(distance), distance, places.own, base, engine, blur, run)
            for distance in places.distances()
        }
        fitted = places.fitted(votes)
    chosen, low = run(fitted), run(fitted, low=True)
    return Ordered(
        reference=chosen | places.results(fitted),
        floor=low | places.results(fitted, low=True),
        expected={name: _where_changed(expected[name], base[name], chosen[name]) for name in chosen.keys() & expected},
        exchanged=int((fitted != places.own).sum()),
    )


class _Places:
    """The places of a TopK, [rows, k], and the candidates by rank, best first, [rows, n]."""

    def __init__(self, order: Order, values: DecidingValues) -> None:
        self._names = order.decided
        attributes = order.node.attributes
        self._axis, largest = attributes.get_int("axis", -1), bool(attributes.get_int("largest", 1))
        scores = values.deciding(order.scores)
        given = next(name for name in reversed(self._names) if name)
        moved = values.reference(given).movedim(self._axis, -1)
        self._shape = moved.shape
        reference, low, reach = (
            tensor.movedim(self._axis, -1).reshape(-1, scores.reference.shape[self._axis])
            for tensor in (scores.reference, scores.floor, scores.reach(self._axis))
        )
        self._ranked = reference.argsort(dim=-1, descending=largest, stable=True)
        self._scores = {False: reference.gather(-1, self._ranked), True: low.gather(-1, self._ranked)}
        self._reach = reach.gather(-1, self._ranked)
        self.own = torch.arange(moved.shape[-1]).expand(len(reference), -1)
        """The reference's choice: the j-th best at the j-th place."""

    def results(self, ranks: torch.Tensor, *, low: bool = False) -> Tensors:
        """Return the two results of the TopK with candidates of these ranks at its places."""
        made = (self._scores[low].gather(-1, ranks), self._ranked.gather(-1, ranks))
        laid = (tensor.reshape(self._shape).movedim(-1, self._axis) for tensor in made)
        return {name: tensor for name, tensor in zip(self._names, laid, strict=True) if name}

    def tied(self, distance: int) -> torch.Tensor:
        """Return where the candidate so many ranks further may stand as well."""
        ranks = self.own + distance
        known = ranks.clamp(0, self._ranked.shape[-1] - 1)
        return (ranks == known) & self._near(known)

    def _near(self, ranks: torch.Tensor) -> torch.Tensor:
        """Return where candidates of these ranks are near ties of the reference's own."""
        scores = self._scores[False]
        reach = torch.hypot(self._reach.gather(-1, self.own), self._reach.gather(-1, ranks))
        return apart(scores.gather(-1, self.own), scores.gather(-1, ranks)) <= reach

    def ranks_of(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the ranks of the engine's candidates where they may stand at its places, else the reference's own."""
        given = indices.movedim(self._axis, -1).reshape(self.own.shape)
        count = self._ranked.shape[-1]
        known = (given >= 0) & (given < count)
        ranks = self._ranked.argsort(dim=-1).gather(-1, torch.where(known, given, 0).long())
        return torch.where(known & self._near(ranks), ranks, self.own)

    def distances(self) -> Iterator[int]:
        """Yield the distances at which there is a near tie, the nearest first."""
        for distance in range(1, MOST_PLACES + 1):
            found = [signed for signed in (distance, -distance) if self.tied(signed).any()]
            if not found:
                return
            yield from found

    def fitted(self, votes: Mapping[int, torch.Tensor], given: torch.Tensor | None = None) -> torch.Tensor:
        """Return the ranks, each at most once in a row, for which the sum of the votes is least; its own has 0.

        Of ranks that are ``given`` as many as possible are taken.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import min_weight_full_bipartite_matching

        ranks = self.own.clone()
        if not votes and given is None:
            return ranks
        places = self.own.shape[-1]
        named = self.own if given is None else given
        wanted = torch.stack([named.ne(self.own).any(-1), *((vote < 0).any(-1) for vote in votes.values())]).any(0)
        offset = 2.0 + max((float(vote.abs().max()) for vote in votes.values()), default=0.0)  # 0 would be no edge
        for row in wanted.nonzero().flatten().tolist():
            place, rank, weight = [torch.arange(places)], [torch.arange(places)], [torch.full((places,), offset)]
            if (there := named[row].ne(self.own[row]).nonzero().flatten()).numel():
                place.append(there)
                rank.append(named[row][there])
                weight.append(torch.full((len(there),), offset - 1))
            for distance, vote in votes.items():
                there = self.tied(distance)[row].nonzero().flatten()
                place.append(there)
                rank.append(there + distance)
                weight.append(vote[row][there] + offset)
            edges = (torch.cat(place).numpy(), torch.cat(rank).numpy())
            graph = coo_array((torch.cat(weight).double().numpy(), edges), shape=(places, self._ranked.shape[-1]))
            filled, chosen = min_weight_full_bipartite_matching(graph.tocsr())
            ranks[row, torch.from_numpy(filled).long()] = torch.from_numpy(chosen).long()
        return ranks


def _votes(
    tied: torch.Tensor,
    distance: int,
    own: torch.Tensor,
    base: Tensors,
    engine: Tensors,
    blur: Mapping[str, float],
    run: Callable[[torch.Tensor], Tensors],
) -> torch.Tensor:
    """Return for every place whether the outputs are those of the candidate ``distance`` ranks further (negative).

    An element of an output votes with -1 to 1, with less where both candidates differ by no more than the floor's
    error; of whole numbers, an index or a label, there is no error and the vote beats all others. The place that an
    element belongs to is read from what changes when the places of each bit of a number do.
    """
    numbered = tied.nonzero()
    votes = torch.zeros(tied.shape, dtype=torch.float64)
    other = run(torch.where(tied, own + distance, own))
    belongs = {name: torch.zeros(tensor.shape, dtype=torch.long) for name, tensor in engine.items()}
    for bit in range(max(len(numbered) - 1, 0).bit_length()):
        chosen = torch.zeros_like(tied)
        chosen[tuple(numbered[(torch.arange(len(numbered)) >> bit) & 1 == 1].T)] = True
        outputs = run(torch.where(chosen, own + distance, own))
        for name, place in belongs.items():
            place += (outputs[name] != base[name]).long() << bit
    for name, place in belongs.items():
        changed = (other[name] != base[name]) & (place < len(numbered))
        first, second = base[name].double()[changed], other[name].double()[changed]
        step = (second - first).abs()
        nearer = (engine[name][changed] - second).abs() - (engine[name][changed] - first).abs()
        weight = step / (step + blur[name]) if base[name].is_floating_point() else _DECISIVE
        vote = (torch.nan_to_num(nearer, nan=0.0) / step).clamp(-1, 1) * weight
        votes.index_put_(tuple(numbered[place[changed]].T), torch.nan_to_num(vote, nan=0.0), accumulate=True)
    return votes


def _where_changed(expected: torch.Tensor, base: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return the reference with those elements that another order changes."""
    changed = (chosen != base).to(expected.device)
    return torch.where(changed, chosen.to(expected.device, expected.dtype), expected)


def _rms(error: torch.Tensor) -> float:
    found = float(torch.nan_to_num(error, posinf=0.0, neginf=0.0).square().mean().sqrt())
    return found if math.isfinite(found) else 0.0
