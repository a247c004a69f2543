"""Which operators of a QDQ graph read quantised inputs, and the graph with some of them in floats again.

A unit is all Q/DQ that belong to one operator: those of its activations and of its weight. An engine runs the operator
on codes only if all of them are there, so they come and go together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np

from harness.errors import UsageError, unknown_name
from harness.graph.edits import FreshNames
from harness.graph.ir import copy_model
from harness.graph.quantisation import floats_of
from harness.lazy import onnx_ir as ir

QDQ = ("QuantizeLinear", "DequantizeLinear")
_Known = TypeVar("_Known", bound=Any)


@dataclass(frozen=True, kw_only=True)
class QuantisedUnit:
    """One operator with the Q/DQ of its inputs."""

    name: str
    """The operator's node name."""
    op: str
    """Its type."""
    inputs: tuple[int, ...]
    """Which of its inputs are quantised."""
    before: tuple[str, ...]
    """What stands before the Q of each, by name; empty for a constant that is there in codes alone."""
    codes: tuple[str, ...]
    """The codes of each, by name."""

    @property
    def codes_only(self) -> bool:
        """Whether a weight is there in codes alone: in floats it then is what the codes stand for."""
        return "" in self.before


def quantised_units(model: ir.Model) -> dict[str, QuantisedUnit]:
    """Return the units of the main graph by the name of their operator, in the order of the graph."""
    found = {}
    for node in model.graph:
        if node.op_type in (*QDQ, "Cast"):
            continue
        makers = {i: maker for i, value in enumerate(node.inputs) if (maker := _dequantiser(value)) is not None}
        if makers and node.name:
            before = [_before(maker) for maker in makers.values()]
            found[str(node.name)] = QuantisedUnit(
                name=str(node.name), op=node.op_type, inputs=tuple(makers),
                before=tuple("" if value is None else str(value.name) for value in before),
                codes=tuple(str(maker.inputs[0].name) for maker in makers.values() if maker.inputs[0] is not None),
            )  # fmt: skip
    return found


def known_floats(weights: Mapping[str, _Known], codes: str, shape: Sequence[int]) -> _Known | None:
    """Return the floats of a weight from others by name, less what a quantiser adds to it; None for another shape."""
    known = weights.get(codes.removesuffix("_quantized"))
    return known if known is not None and tuple(known.shape) == tuple(shape) else None


def chosen_units(units: Collection[str], patterns: Sequence[str], where: str) -> list[str]:
    """Return the units that node names or patterns mean. Raises UsageError for one that means none."""
    found: dict[str, None] = {}
    for pattern in patterns:
        hit = [name for name in units if name == pattern] or [name for name in units if fnmatchcase(name, pattern)]
        if not hit:
            raise UsageError(f"{where}: quant_exclude: {unknown_name('quantised operator', pattern, units)}")
        found |= dict.fromkeys(hit)
    return list(found)


def in_floats(
    model: ir.Model, names: Collection[str], *, weights: Mapping[str, np.ndarray[Any, Any]] | None = None
) -> ir.Model:
    """Return a graph in which these operators read floats: what stands before their Q/DQ.

    A weight that is there in codes alone is taken from ``weights`` by its name, less what a quantiser adds to it, else
    it is what its codes stand for. Raises KeyError for a name that is no unit.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    units, model = quantised_units(model), copy_model(model)
    nodes, fresh = {str(node.name): node for node in model.graph}, FreshNames(model)
    for name in names:
        for i in units[name].inputs:
            value = nodes[name].inputs[i]
            maker = _dequantiser(value)
            assert value is not None
            assert maker is not None
            before = _before(maker)
            if before is None and (floats := floats_of(maker)) is not None:
                known = known_floats(weights or {}, str(maker.inputs[0].name), floats.shape)  # type: ignore[union-attr]
                floats = floats if known is None else known
                own = fresh.fresh(f"{value.name}_in_floats")
                before = ir.Value(name=own, const_value=ir.tensor(floats, name=own))
                model.graph.initializers[own] = before
            if before is not None:
                nodes[name].replace_input_with(i, before)
    return RemoveUnusedNodesPass()(model).model


def _dequantiser(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that gives a value, maybe cast; None where none does."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _before(dequantiser: ir.Node) -> ir.Value | None:
    """Return what was quantised; None for codes that are a constant."""
    codes = dequantiser.inputs[0]
    maker = None if codes is None else codes.producer()
    return maker.inputs[0] if maker is not None and maker.op_type == "QuantizeLinear" else None
