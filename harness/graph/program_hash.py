"""The identity of a traced PyTorch program: all graphs in it, and every tensor that is no weight of the module."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch.export import ExportedProgram

from harness.graph.metadata import module_path, source_line
from harness.graph.stable import Unstable, stable_text

OWN_NAMESPACES = ("aten", "prims", "prim", "quantized_decomposed", "onnx", "onnx_symbolic", "torchvision")
"""Operators whose code has a version in every key; any other is the user's own."""
_PYTHON_MODULES = ("_operator", "operator", "builtins", "math", "torch")


def program_sha256(traced: ExportedProgram) -> str:
    """Return a hash of a traced program: the nodes of all its graphs, with types and module paths, and its constants.

    Bodies of control flow and of regions are graphs of their own, reached by name. Weights are not in it, only what
    they are called.
    """
    digest = hashlib.sha256()

    def add(*parts: str) -> None:
        digest.update(json.dumps(parts).encode() + b"\n")

    add(str(traced.graph_signature), *(f"{symbol}:{limits}" for symbol, limits in traced.range_constraints.items()))
    for name, value in sorted(traced.constants.items()):
        add("constant", name, _text(value))
    for path, module in traced.graph_module.named_modules(remove_duplicate=False):
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        own |= {name: it for name, it in vars(module).items() if isinstance(it, torch.Tensor)}
        for name, tensor in sorted(own.items()):
            add("tensor", path, name, _text(tensor))
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            made = torch.fx.node.map_aggregate(node.meta.get("val"), _type_text)
            called = _text((node.target, node.args, node.kwargs))
            add("node", path, node.op, node.name, called, str(made), module_path(node))
    return digest.hexdigest()


def lines_sha256(traced: ExportedProgram) -> str:
    """Return a hash of the lines of Python that the nodes of a traced program come from."""
    lines = [[node.name, source_line(node.meta.get("stack_trace") or "")] for node in traced.graph.nodes]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def foreign_code(traced: ExportedProgram) -> list[str]:
    """Return what of a program no key can hold: operators that the user registered, and objects."""
    found = {_problem(value) for value in traced.constants.values()}
    for module in traced.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if node.op == "call_function":
                found |= {_problem(node.target), _problem((node.args, node.kwargs))}
    return sorted(found - {""})


def _problem(value: Any) -> str:
    if isinstance(value, torch._ops.OpOverload):
        return "" if value.namespace in OWN_NAMESPACES else f"the operator {value}"
    if isinstance(value, torch._ops.HigherOrderOperator):
        return f"the operator {value}" if "triton" in str(value) else ""  # its kernel is a number in a table
    try:
        stable_text(value, _known)
    except Unstable as error:
        return str(error)
    return ""


def _text(value: Any) -> str:
    try:
        return stable_text(value, _known)
    except Unstable as error:  # foreign_code() names it, and then nothing is kept under this hash
        return f"?{error}"


def _known(value: Any) -> str | None:
    if isinstance(value, torch.fx.Node):
        return f"%{value.name}"
    if isinstance(value, torch._ops.OperatorBase):
        return str(value)
    if callable(value) and getattr(value, "__module__", "") in _PYTHON_MODULES:
        return f"{value.__module__}.{getattr(value, '__qualname__', value)}"
    return None


def _type_text(value: Any) -> str:
    """Return dtype, shape and layout of a tensor that a node makes, or the size that it is."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{list(value.shape)}{value.layout}"
    return str(value)
