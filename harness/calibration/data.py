"""What a calibration is made of: the inputs that ranges are taken from, and the nodes that stay in floats."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from harness.errors import unknown_name
from harness.graph import Program, matching
from harness.lazy import onnx_ir as ir
from harness.tensors import Tensors
from harness.verify import Prepared


def calibration_data(prepared: Prepared, cases: Sequence[str]) -> list[Tensors]:
    """Return the inputs of these cases by name."""
    return [dict(prepared.inputs[case]) for case in cases]


def name_nodes(model: ir.Model) -> ir.Model:
    """Give every node of a model a name: a quantiser leaves out by name."""
    taken = {node.name for node in model.graph}
    for number, node in enumerate(model.graph):
        if not node.name:
            name = f"{node.op_type}_{number}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
    return model


def excluded_nodes(program: Program, patterns: Sequence[str]) -> list[str]:
    """Return the names of the nodes that patterns mean: node names, modules, ``op:...`` or ``value:...``, as in plans.

    Raises UsageError for a pattern that means none.
    """
    nodes = list(name_nodes(program.model).graph)
    found: dict[str, None] = {}
    for pattern in patterns:
        values = matching(pattern, program.values)
        hit = [
            str(node.name) for node in nodes
            if fnmatchcase(str(node.name), pattern) or any(value.name in values for value in node.outputs)
        ]  # fmt: skip
        if not hit:
            raise unknown_name("node or module of --exclude", pattern, {str(node.name) for node in nodes})
        found |= dict.fromkeys(hit)
    return list(found)
