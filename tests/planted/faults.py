"""Faults in kernels and in the export."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from benchmarks.planted.exports import tamper_export
from harness.graph import Program


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
    inside: bool = False
    """Only where the value does not leave its kernel."""
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


def tamper_value(monkeypatch: pytest.MonkeyPatch, value: str, edit: Edit) -> None:
    """Let the exporter write a wrong node for ``value``."""

    def tampered(program: Program) -> None:
        edit(next(node for node in program.model.graph if value in [output.name for output in node.outputs]))

    tamper_export(monkeypatch, tampered)
