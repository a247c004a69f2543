"""The graph of an ONNX file: the reference is ONNX Runtime on the CPU in FP32, with graph optimisation off."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import torch

from harness.graph import (
    PRECISIONS,
    Plan,
    Program,
    check_inputs,
    graph_sha256,
    input_specs,
    is_fp32,
    onnx_values,
    open_onnx,
    promote,
)
from harness.reference import Evaluators, NodeRunner, OnnxEvaluator, run_emulated, run_fp32, run_fp64
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify.inputs import CaseInputs
from harness.verify.subject_graph import ComputedBy, GraphIdentity, value_dtypes


def open_onnx_graph(subject: Subject, settings: Settings) -> tuple[OnnxGraph, CaseInputs]:
    """Read the file and return its graph and its checked inputs. Raises UsageError where it cannot be read."""
    settings.progress(f"{subject.name}: reading {subject.onnx}")
    graph = OnnxGraph(subject)
    specs = input_specs(graph.program.model)

    def accept(inputs: Tensors, case: str) -> Tensors:
        halves = (torch.float16, torch.bfloat16)
        inputs = {name: tensor.float() if tensor.dtype in halves else tensor for name, tensor in inputs.items()}
        check_inputs(inputs, specs)
        return inputs

    return graph, CaseInputs(subject, accept)


class OnnxGraph:
    """An ONNX file's graph. PyTorch cannot run it, so the floor is emulated, and called so."""

    device = torch.device("cpu")
    computed_by = ComputedBy(
        reference={
            "fp32": "computed by ONNX Runtime on the CPU in FP32, graph optimisation off",
            "fp64": "computed by onnx.reference in FP64",
        },
        floor="emulated",
        fp32_floor="ONNX Runtime",
        fp64="onnx.reference",
    )

    def __init__(self, subject: Subject) -> None:
        assert subject.onnx is not None
        # Natively FP16 values are promoted: the reference is FP32, and a plan decides what is low.
        model = promote(open_onnx(subject.onnx))
        self.output_names = tuple(str(value.name) for value in model.graph.outputs)
        self.program = Program(
            name=subject.name,
            model=model,
            values=onnx_values(model),
            outputs={name: name for name in self.output_names},
        )
        sha256 = graph_sha256(model)
        self.identity = GraphIdentity(weights_sha256=sha256, program_sha256=sha256, exporter={})

    def run(
        self, inputs: Tensors, *, dtype: str, dtypes: Mapping[str, str] | None = None, tf32: bool = False
    ) -> tuple[Tensors, tuple[str, ...]]:
        """Return the outputs of ONNX Runtime in FP32, of ``onnx.reference`` in FP64, or of an emulation of the rest."""
        model = self.program.model
        if dtype == "float64":
            return run_fp64(model)(inputs), ()
        if dtype == "float32" and not dtypes and not tf32:
            return run_fp32(model)(inputs), ()
        precision = "tf32" if tf32 else PRECISIONS[dtype]
        note = f"the floor is emulated: FP32 arithmetic on the CPU, rounded to {precision} after every operation"
        return run_emulated(model, default=dtype, dtypes=dtypes or {}, tf32=tf32)(inputs), (note,)

    def witness(self, inputs: Tensors) -> None:
        """Return None: nothing else here computes the graph."""
        return None

    def evaluators(self, inputs: Tensors, plan: Plan, asked: Collection[str]) -> Evaluators:
        """Return the evaluators to hold an engine's values against: ONNX Runtime, node by node, on the CPU."""

        def evaluator(**options: Any) -> OnnxEvaluator:
            return OnnxEvaluator(self.program.model, inputs, keep=asked, runner=self._runner, **options)

        high = {"dtype": "float64" if is_fp32(plan) else "float32"}
        low = {"dtypes": value_dtypes(self, plan), "default": plan.compute_dtype, "tf32": plan.tf32}
        return Evaluators(
            reference=evaluator(**high), floor=evaluator(**low), replay=evaluator(**high), replay_low=evaluator(**low),
            canonical=lambda name: name,
        )  # fmt: skip

    def evaluator(self, inputs: Tensors) -> OnnxEvaluator:
        """Return one evaluator in FP32, to see what a change of one value does to the outputs."""
        return OnnxEvaluator(self.program.model, inputs, runner=self._runner)

    @cached_property
    def _runner(self) -> NodeRunner:
        return NodeRunner()
