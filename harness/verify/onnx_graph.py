"""The graph of an ONNX file, run in PyTorch; ONNX Runtime on the CPU is its witness."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch

from harness.graph import (
    Program,
    check_inputs,
    graph_sha256,
    input_specs,
    onnx_values,
    open_onnx,
    promote,
)
from harness.reference import RunGraph, onnx_run_graph, run_onnxruntime
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify.inputs import CaseInputs
from harness.verify.subject_graph import GraphIdentity, SubjectGraph, compute_device


def open_onnx_graph(subject: Subject, settings: Settings) -> tuple[OnnxGraph, CaseInputs]:
    """Read the file and return its graph and its checked inputs. Raises UsageError where it cannot be read."""
    settings.progress(f"{subject.name}: reading {subject.onnx}")
    graph = OnnxGraph(subject, device=compute_device(settings))
    specs = input_specs(graph.program.model)

    def accept(inputs: Tensors, case: str) -> Tensors:
        halves = (torch.float16, torch.bfloat16)
        inputs = {name: tensor.float() if tensor.dtype in halves else tensor for name, tensor in inputs.items()}
        check_inputs(inputs, specs)
        return {name: tensor.to(graph.device) for name, tensor in inputs.items()}

    return graph, CaseInputs(subject, accept)


class OnnxGraph(SubjectGraph):
    """An ONNX file's graph. Another implementation, ONNX Runtime, is the witness of what PyTorch computes."""

    witness_name = "ONNX Runtime"

    def __init__(self, subject: Subject, *, device: torch.device) -> None:
        assert subject.onnx is not None
        self.name, self.device = subject.name, device
        # Natively FP16 values are promoted: the reference is FP32, and a plan decides what is low.
        model = promote(open_onnx(subject.onnx))
        self.output_names = tuple(dict.fromkeys(str(value.name) for value in model.graph.outputs))
        self._program = Program(
            name=subject.name,
            model=model,
            values=onnx_values(model),
            outputs={name: name for name in self.output_names},
        )
        sha256 = graph_sha256(model)
        self.identity = GraphIdentity(weights_sha256=sha256, program_sha256=sha256, exporter={})

    @property
    def program(self) -> Program:
        """The file, with FP16 and BF16 in it promoted to FP32."""
        return self._program

    @cached_property
    def run_graph(self) -> RunGraph:
        """The file's graph, in which values keep their names."""
        return onnx_run_graph(self.program.model)

    @cached_property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """The file's weights and constants, on the device."""
        weights = self.run_graph.weights
        return {name: it.to(self.device) if isinstance(it, torch.Tensor) else it for name, it in weights.items()}

    def witness(self, inputs: Tensors) -> Tensors | None:
        """Return the outputs of ONNX Runtime in FP32 on the CPU, without graph optimisation."""
        outputs = run_onnxruntime(self.program.model, inputs)
        return {name: tensor.to(self.device) for name, tensor in outputs.items()}
