"""Faults in kernels and in the export, and exports that are made once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from harness import Subject
from harness.graph.export import Program, program_sha256, to_onnx, trace
from harness.tensors import sha256_of
from harness.verify import torch_graph

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A kernel that is wrong."""

    value: str
    """The value it makes, by its name in the graph."""
    change: Callable[[Tensor], Tensor]
    """What happens to it, in float32; the result is rounded again."""
    only_dtype: torch.dtype | None = torch.float16
    """Only kernels of this dtype are wrong; None for all."""
    fused_with: str = ""
    """Only where this value is made in the same kernel and does not leave it."""
    hidden: bool = False
    """Only while nobody looks: not in ``tap``, and not while a value on the way is an output."""
    cured_by: frozenset[str] | None = None
    """The values that hide it by being outputs; None for all that are read inside the graph as well."""


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor * factor


def all_nan(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, math.nan)


Edit = Callable[[ir.Node], None]


def wrong_epsilon(node: ir.Node) -> None:
    """Give a normalisation an epsilon of 0.5."""
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.5)


def wrong_axis(node: ir.Node) -> None:
    """Let a softmax or normalisation work along the axis before its own."""
    node.attributes["axis"] = ir.AttrInt64("axis", node.attributes["axis"].as_int() - 1)


_TRACES: dict[tuple[Any, ...], ExportedProgram] = {}
_EXPORTS: dict[tuple[str, ...], Program] = {}


def share_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let equal modules be traced and exported once per process: that takes most of the time of a small bisection."""

    def traced_once(subject: Subject, module: nn.Module, inputs: Tensors) -> ExportedProgram:
        key = (subject.build, *((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items()))
        if key not in _TRACES:
            _TRACES[key] = trace(subject, module, inputs)
        return _TRACES[key]

    def shared(subject: Subject, traced: ExportedProgram, inputs: Tensors, names: list[str]) -> Program:
        key = (program_sha256(traced), sha256_of(traced.state_dict), repr(subject.options), *names)
        if key not in _EXPORTS:
            _EXPORTS[key] = to_onnx(subject, traced, inputs, names)
        program = _EXPORTS[key]
        return dataclasses.replace(program, name=subject.name, model=program.model.clone())

    monkeypatch.setattr(torch_graph, "trace", traced_once)
    monkeypatch.setattr(torch_graph, "to_onnx", shared)


def tamper_export(monkeypatch: pytest.MonkeyPatch, value: str, edit: Edit) -> None:
    """Let the exporter write a wrong node for ``value``; the exported program stays right.

    The engine cache does not see it: give every tampered subject an engine folder of its own.
    """
    export = torch_graph.to_onnx

    def tampered(*arguments: Any) -> Program:
        program = export(*arguments)
        edit(next(node for node in program.model.graph if value in [output.name for output in node.outputs]))
        return program

    monkeypatch.setattr(torch_graph, "to_onnx", tampered)
