"""What an exporter does to a traced program: operations are folded into others, and copies are computed once."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from harness.graph.values import Value
from harness.lazy import onnx_ir


def merge_copies(program: ExportedProgram, model: onnx_ir.Model) -> None:
    """Let what reads the copy of an operation read the first one, where the exporter computes both once.

    Else what is seen of the one in an engine would not reach what reads the other.
    """
    exported = {value.name for node in model.graph for value in node.outputs}
    first: dict[Any, torch.fx.Node] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            continue
        same = first.setdefault(str((node.target, node.args, sorted(node.kwargs.items()))), node)
        if same is not node and node.name not in exported:
            node.replace_all_uses_with(same)


def folded_into(
    program: ExportedProgram, exported: Collection[str], table: Mapping[str, Value]
) -> dict[str, tuple[str, ...]]:
    """Return, for each exported value, what was folded into it: such as a convolution into its normalisation.

    These are the operations between it and the exported values before it, but for those that only lay a tensor out
    anew, and those of constants.
    """
    varying = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    inside: dict[str, dict[str, None]] = {}
    found = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or not any(item.name in varying for item in node.all_input_nodes):
            continue
        varying.add(node.name)
        before = [inside[item.name] for item in node.all_input_nodes if item.name in inside]
        merged = {name: None for names in before for name in names}
        if node.name not in exported:
            own = {} if _only_lays_out(node) or node.target is operator.getitem else {node.name: None}
            inside[node.name] = merged | own
            continue
        value = table[node.name]
        others = [table[name] for name in merged if name != computing_node(node).name]
        names = [it.op if it.module in ("", value.module) else it.module for it in others]
        if names:
            found[node.name] = tuple(dict.fromkeys(names))
    return found


def _only_lays_out(node: torch.fx.Node) -> bool:
    """Return whether an operation gives the numbers that it reads: a view, a copy, a cast."""
    schema = getattr(node.target, "_schema", None)
    views = schema is not None and any(it.alias_info is not None for it in schema.returns)
    return views or str(node.target).startswith(("aten.clone", "aten._to_copy", "aten.copy"))


def computing_node(node: torch.fx.Node) -> torch.fx.Node:
    """Return the node that computes what a node gives: for an item of several outputs, the operator."""
    several = node.args[0] if node.target is operator.getitem else None
    return several if isinstance(several, torch.fx.Node) else node
