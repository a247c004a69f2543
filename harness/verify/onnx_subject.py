"""An ONNX file made ready: the reference is ONNX Runtime on the CPU in FP32, with graph optimisation off."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from harness import graph, reference
from harness.backends import ShapeRange
from harness.errors import NotJudged
from harness.graph import Plan, Program, assign, graph_sha256, is_fp32, load_plan, promote
from harness.reference import Lane, Lanes, NodeRunner, OnnxLane
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify.prepared import Floor, case_inputs, named_values


class PreparedOnnx:
    """An ONNX subject. PyTorch cannot say what a precision costs here, so the floor is emulated, and labelled so."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        assert subject.onnx is not None
        self.subject, self.settings = subject, settings
        self._inputs: dict[str, Tensors] = {}
        self._references: dict[tuple[str, str], Tensors] = {}
        settings.progress(f"{subject.name}: reading {subject.onnx}")
        # Natively FP16 values are promoted: the reference is FP32, and a plan decides what is low.
        model = promote(graph.open_onnx(subject.onnx))
        self.program_sha256 = self.weights_sha256 = graph_sha256(model)
        outputs = {value.name or "": value.name or "" for value in model.graph.outputs}
        self.program = Program(
            name=subject.name,
            model=model,
            values=graph.onnx_values(model),
            outputs=outputs,
        )

    def exporter(self) -> dict[str, str]:
        """Return nothing: the graph is the file."""
        return {}

    def dtypes(self, plan: Plan) -> dict[str, str]:
        """Return the plan's assignment over the file's values."""
        return assign(plan, self.program.values)

    def inputs(self, case: str) -> Tensors:
        """Return a case's inputs, checked against the graph, on the CPU."""
        if case not in self._inputs:
            inputs = case_inputs(self.subject, case)
            specs = graph.input_specs(self.program.model)
            halves = (torch.float16, torch.bfloat16)
            inputs = {name: tensor.float() if tensor.dtype in halves else tensor for name, tensor in inputs.items()}
            graph.check_inputs(inputs, specs)
            self._inputs[case] = inputs
        return self._inputs[case]

    def reference(self, case: str, dtype: str) -> Tensors:
        """Return ONNX Runtime's FP32 outputs, or those of onnx's reference evaluator in FP64."""
        if (case, dtype) not in self._references:
            self.settings.progress(f"{self.subject.name}/{case}: {self.reference_words(case, dtype)}")
            run = reference.run_fp32 if dtype == "fp32" else reference.run_fp64
            self._references[case, dtype] = run(self.program.model)(self.inputs(case))
        return self._references[case, dtype]

    def reference_words(self, case: str, dtype: str) -> str:
        """Return what computes the reference."""
        if dtype == "fp32":
            return "computed by ONNX Runtime on the CPU in FP32, graph optimisation off"
        return "computed by onnx.reference in FP64"

    def floor(self, case: str, plan: Plan) -> Floor:
        """Return the graph run in FP32 arithmetic that rounds as the plan does."""
        outputs = reference.run_emulated(self.program.model, plan, self.dtypes(plan))(self.inputs(case))
        declared = self.output_dtypes(case)
        return Floor(
            outputs={name: tensor.to(declared[name]) for name, tensor in outputs.items()},
            notes=(f"the floor is emulated: FP32 arithmetic on the CPU, rounded to {plan.name} after every operation",),
        )

    def typed_outputs(self, case: str, dtypes: Mapping[str, str]) -> Tensors:
        """Return what FP32 arithmetic gives that rounds to these dtypes, by value name, after each operation."""
        outputs = reference.run_emulated(self.program.model, load_plan("fp32"), dtypes)(self.inputs(case))
        declared = self.output_dtypes(case)
        return {name: tensor.to(declared[name]) for name, tensor in outputs.items()}

    def lanes(self, case: str, plan: Plan, asked: Collection[str]) -> Lanes:
        """Return the lanes to hold an engine's values against: ONNX Runtime, node by node, on the CPU."""
        dtypes, model = self.dtypes(plan), self.program.model

        def lane(**options: Any) -> OnnxLane:
            return OnnxLane(model, self.inputs(case), keep=asked, runner=self._runner, **options)

        high = {"dtype": "float64" if is_fp32(plan) else "float32"}
        low = {"dtypes": dtypes, "default": plan.compute_dtype, "tf32": plan.tf32}
        return Lanes(
            reference=lane(**high), floor=lane(**low), replay=lane(**high), replay_low=lane(**low),
            canonical=lambda name: name,
        )  # fmt: skip

    def values_of(self, case: str, names: Sequence[str]) -> Tensors:
        """Return values of the graph, network inputs among them, in FP32."""
        return named_values(self.lanes(case, load_plan("tf32"), names), names, self.inputs(case))

    def lane(self, case: str) -> Lane:
        """Return one lane in FP32, to see what a change of one value does to the outputs."""
        return OnnxLane(self.program.model, self.inputs(case), runner=self._runner)

    @cached_property
    def _runner(self) -> NodeRunner:
        return NodeRunner()

    def depths(self) -> dict[str, int]:
        """Return the position in dataflow order of every value: that of the node that makes it."""
        return {name: depth for depth, name in enumerate(graph.order(self.program.model))}

    def floor_name(self, plan: Plan) -> str:
        """Return ``ONNX Runtime`` for FP32, else that it is emulated."""
        return "ONNX Runtime" if plan.dtype == "fp32" and not plan.tf32 else "emulated"

    def output_dtypes(self, case: str) -> dict[str, torch.dtype]:
        """Return the dtypes of the FP32 reference's outputs."""
        return {name: tensor.dtype for name, tensor in self.reference(case, "fp32").items()}

    def shapes(self) -> dict[str, ShapeRange]:
        """Return the shapes over all cases: an engine for an ONNX file takes what it is verified with."""
        cases = [self.inputs(case) for case in self.subject.cases]
        ranges = {}
        for name in cases[0]:
            shapes = [tuple(inputs[name].shape) for inputs in cases]
            if len({len(shape) for shape in shapes}) > 1:
                raise NotJudged(f"{self.subject.name}: input {name!r} has another rank in another case")
            low, high = (tuple(pick(sizes) for sizes in zip(*shapes, strict=True)) for pick in (min, max))
            ranges[name] = ShapeRange(minimum=low, optimum=high, maximum=high)
        return ranges
