"""What is asked of a subject's graph, be it a PyTorch module or an ONNX file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from harness.graph import Plan, Program, assign
from harness.reference import Evaluator, Evaluators
from harness.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class GraphIdentity:
    """What a graph is made of: engines and references belong to it, and to no other."""

    weights_sha256: str
    program_sha256: str
    exporter: Mapping[str, str]
    """The exporter's versions and options; nothing for a graph that was read from a file."""


@dataclass(frozen=True, kw_only=True)
class ComputedBy:
    """What computes a subject's references and floors, as tables and sentences name it."""

    reference: Mapping[str, str]
    """By ``fp32`` and ``fp64``."""
    floor: str
    """What makes the floor of a precision."""
    fp32_floor: str
    """What computes the FP32 reference, and so the floor of FP32."""
    fp64: str
    """What computes the FP64 truth."""

    def program(self, what: str) -> str:
        """Return what computes outputs in ``fp32``, ``fp64`` or a lower precision."""
        return {"fp32": self.fp32_floor, "fp64": self.fp64}.get(what, self.floor)


class SubjectGraph(Protocol):
    """A subject's graph, and how it is computed here."""

    identity: GraphIdentity
    device: torch.device
    """Where it is computed."""
    output_names: tuple[str, ...]
    """The declared outputs, in their order."""
    computed_by: ComputedBy

    @property
    def program(self) -> Program:
        """The FP32 graph with named values; made when an engine has to be built or a plan names values."""

    def run(
        self, inputs: Tensors, *, dtype: str, dtypes: Mapping[str, str] | None = None, tf32: bool = False
    ) -> tuple[Tensors, tuple[str, ...]]:
        """Return the outputs by name, and notes on how they came about.

        Every FP32 value is computed in ``dtype`` (``float64``, ``float32``, ``float16``, ``bfloat16``), or as
        ``dtypes`` says by value name. Raises NotJudged where that cannot be computed here.
        """

    def witness(self, inputs: Tensors) -> Tensors | None:
        """Return the outputs of an independent FP32 computation, or None where there is none.

        Raises NotRepeatable when two such computations differ.
        """

    def evaluators(self, inputs: Tensors, plan: Plan, asked: Collection[str]) -> Evaluators:
        """Return the evaluators to hold an engine's values against; ``asked`` names the values that will be needed."""

    def evaluator(self, inputs: Tensors) -> Evaluator:
        """Return one evaluator in FP32, to see what a change of one value does to the outputs."""


def value_dtypes(graph: SubjectGraph, plan: Plan) -> dict[str, str]:
    """Return the compute dtype of every value by name; nothing for a plan that treats all values alike.

    Raises UsageError for a plan that names nothing.
    """
    return assign(plan, graph.program.values) if plan.keep_fp32 else {}
