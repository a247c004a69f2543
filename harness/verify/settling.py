"""What the engine decided, told apart from what it got wrong: ties are found before anything is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from harness.compare import count_differences
from harness.errors import EngineFailed, NotJudged
from harness.graph import Plan
from harness.lazy import onnx_ir as ir
from harness.records import Decisions
from harness.sentences import Sentence
from harness.tensors import Tensors
from harness.verify.deciders import Origin, cone_of, is_decided, origin_of, readable, value_of
from harness.verify.deciding_values import DecidingValues
from harness.verify.explain import explain
from harness.verify.orders import Order, orders_of, put_in_order
from harness.verify.prepare import Prepared


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What the outputs are held against once near ties are decided as the engine decided them."""

    expected: Tensors
    floor: Tensors | None
    decisions: Mapping[str, Decisions | EngineFailed] = field(default_factory=dict)
    """Of every output of decisions: the counts, or why it cannot be counted."""
    notes: tuple[str, ...] = ()


def settle(
    prepared: Prepared, case: str, plan: Plan, actual: Tensors, expected: Tensors, floor: Tensors | None
) -> Settled:
    """Return reference and floor in the order of the engine's near ties, and the counts of all decisions."""
    decided = [name for name, tensor in expected.items() if not tensor.is_floating_point()]
    whole = [name for name, tensor in expected.items() if _is_whole(tensor, plan)]
    differ = any(not torch.equal(actual[name].to(expected[name]), expected[name]) for name in (*decided, *whole))
    if not differ and not prepared.graph.sorts:
        return Settled(expected=expected, floor=floor, decisions=_plain_counts(decided, actual, expected, floor))
    model = readable(prepared.program.model)
    decided += [name for name in whole if is_decided(model, name)]
    origins = {name: origin_of(model, _decided_value(model, name)) for name in decided}
    read = [name for origin in origins.values() for name in origin.reads]
    orders = [] if floor is None else orders_of(model, [*expected, *read])
    values = DecidingValues(prepared.graph, model, prepared.inputs[case], plan, _asked(model, orders, origins))
    settled = Settled(expected=expected, floor=floor)
    for order in orders:
        try:
            found = put_in_order(order, model, values, actual, settled.expected)
        except NotJudged as error:
            settled = replace(
                settled, notes=(*settled.notes, Sentence("ties_kept", scores=order.scores, error=str(error)))
            )
            continue
        values.replace(found.reference, found.floor)
        low = {name: found.floor[name].to(tensor.device, tensor.dtype) for name, tensor in found.expected.items()}
        words = Sentence("ties_exchanged", exchanged=found.exchanged, scores=order.scores)
        settled = Settled(
            expected=settled.expected | found.expected,
            floor=(settled.floor or {}) | low,
            notes=(*settled.notes, *([words] if found.exchanged else [])),
        )
    counts = _Counts(model, origins, values, has_floor=floor is not None)
    return replace(
        settled,
        decisions={
            name: counts.of(name, actual[name], expected[name], settled.expected[name], (floor or {}).get(name))
            for name in decided
        },
    )


def _is_whole(tensor: torch.Tensor, plan: Plan) -> bool:
    """Return whether floats may be decisions, such as a mask cast to floats: whole numbers that the format holds."""
    if not tensor.is_floating_point() or not tensor.numel():
        return False
    largest = 1 / torch.finfo(getattr(torch, plan.compute_dtype)).eps
    return bool(((tensor == tensor.trunc()) & (tensor.abs() <= largest)).all())


def _plain_counts(
    names: Sequence[str], actual: Tensors, expected: Tensors, floor: Tensors | None
) -> dict[str, Decisions | EngineFailed]:
    low = floor or {}
    return {name: count_differences(actual[name], expected[name], name=name, floor=low.get(name)) for name in names}


def _asked(model: ir.Model, orders: Sequence[Order], origins: Mapping[str, Origin]) -> list[str]:
    """Return all values that will be needed."""
    names = [name for order in orders for name in order.needs]
    for output, origin in origins.items():
        decided = [decider.name for decider in origin.deciders]
        cone = cone_of(model, decided, [_decided_value(model, output)])
        names += [_decided_value(model, output), *decided, *origin.reads, *cone.entering]
    return names


class _Counts:
    """Counts the decisions of the outputs of one case."""

    def __init__(
        self, model: ir.Model, origins: Mapping[str, Origin], values: DecidingValues, *, has_floor: bool
    ) -> None:
        self._model, self._origins, self._values, self._has_floor = model, origins, values, has_floor

    def of(
        self,
        name: str,
        actual: torch.Tensor,
        expected: torch.Tensor,
        ordered: torch.Tensor,
        floor: torch.Tensor | None,
    ) -> Decisions | EngineFailed:
        """Return the counts of one output, or why it has none: ``ordered`` is the reference in the engine's order."""
        try:
            value = _decided_value(self._model, name)
            if value != name and not torch.equal(actual, expected):
                shape = self._values.reference(value).shape
                masks = [_as_mask(self._model, name, it, shape) for it in (actual, expected)]
                if masks[0] is None or masks[1] is None:
                    return count_differences(actual, expected, name=name)
                actual, expected, ordered, floor = masks[0], masks[1], masks[1], None
            return self._counted(name, value, actual, expected, ordered, floor)
        except EngineFailed as error:
            return error

    def _counted(
        self,
        name: str,
        value: str,
        actual: torch.Tensor,
        expected: torch.Tensor,
        ordered: torch.Tensor,
        floor: torch.Tensor | None,
    ) -> Decisions:
        found = count_differences(actual, expected, name=name, floor=floor, right=ordered)
        if found.wrong is None:
            return found
        if not self._has_floor:
            return replace(found, unknown="no floor to hold their margins against")
        origin = self._origins[name]
        if not origin.deciders:
            by = f" ({', '.join(origin.unknown)})" if origin.unknown else ""
            return replace(found, unknown=f"no decision in the graph explains it{by}")
        try:
            explained = explain(self._model, origin, value, actual, self._values)
        except NotJudged as error:
            return replace(found, unknown=f"what decides it could not be computed: {error}")
        wrong = (actual != ordered).cpu() & ~explained.ties
        found = count_differences(actual, expected, name=name, floor=floor, right=ordered, wrong=wrong)
        if found.wrong is None:
            return replace(found, most_ties=explained.most_ties)
        return replace(found, wrong=explained.wrong(found.wrong))


_CARRY = ("Identity", "Cast", "Transpose")


def _decided_value(model: ir.Model, output: str) -> str:
    """Return the value whose elements an output's decisions are: itself, or the mask that a NonZero lists."""
    node = value_of(model, output).producer()
    while node is not None and node.op_type in _CARRY and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is not None and node.op_type == "NonZero" and node.inputs[0] is not None:
        return str(node.inputs[0].name)
    return output


def _as_mask(model: ir.Model, output: str, coordinates: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """Return the mask that coordinates list; None where they are not what NonZero gives, in its order."""
    node, turned = value_of(model, output).producer(), False
    while node is not None and node.op_type != "NonZero":
        turned ^= node.op_type == "Transpose"
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    listed = (coordinates if turned else coordinates.T).cpu().long()
    mask = torch.zeros(shape, dtype=torch.bool)
    if listed.dim() != 2 or listed.shape[1] != len(shape) or bool((listed < 0).any()):
        return None
    if bool((listed >= torch.tensor(shape)).any()):
        return None
    mask[tuple(listed.T)] = True
    return mask if torch.equal(mask.nonzero(), listed) else None
