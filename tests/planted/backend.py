"""A backend that runs the typed graph kernel by kernel, in float32 rounded to the dtypes of the graph, with faults."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from fake import CountedSession, FakeBackend
from torch import Tensor

from harness import EngineRefused, Settings
from harness.backends.base import BuildReport, BuildRequest
from harness.backends.inspector import Kernel, read_kernels
from planted.faults import Fault
from planted.kernels import (
    GEMMS,
    OPS,
    base_name,
    constants_of,
    dtype_of,
    engine_name,
    engine_shape,
    entering,
    fuse,
    leaving,
    marked_inside,
    tensor_of,
    widened,
)

Tensors = dict[str, Tensor]


class PlantedBackend(FakeBackend):
    """Keeps the typed graph as its engine and runs it with these faults."""

    name = "planted"
    precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")
    tap_modes: tuple[str, ...] = ("unfused", "outputs")

    def __init__(self, *faults: Fault) -> None:
        super().__init__()
        self.faults = faults

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        """Write the graph, weights and all, and whether it may be tapped."""
        self.builds += 1
        model = ir.external_data.load_to_model(ir.load(request.onnx))
        for node in model.graph:
            if node.op_type not in OPS and node.op_type != "Constant":
                raise EngineRefused(f"planted has no kernel for op {node.op_type} (node {node.name})")
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
        onnx.helper.set_model_props(proto, {"taps": json.dumps(request.taps)})
        engine.write_bytes(proto.SerializeToString())
        return BuildReport(layers=len(fuse(model.graph)))

    def load(self, engine: Path) -> PlantedSession:
        return PlantedSession(self, ir.load(engine, format="protobuf"))


class PlantedSession(CountedSession):
    """Runs the graph kernel by kernel, as TensorRT for RTX would show it."""

    def __init__(self, backend: PlantedBackend, model: ir.Model) -> None:
        self.backend, self.graph = backend, model.graph
        self.tappable = json.loads(model.metadata_props["taps"])
        self.fused = fuse(model.graph)
        self.layers = len(self.fused)
        self._names = {
            value: engine_name(value, number, index)
            for number, kernel in enumerate(self.fused)
            for index, value in enumerate(leaving(kernel))
        }

    def run(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """Run once and return the outputs."""
        return self._run(inputs, None)

    def tap(self, inputs: Mapping[str, Tensor], on_tensor: Callable[[str, Tensor], None]) -> Tensors:
        """Run once and hand over what enters the engine and what leaves its kernels."""
        if not self.tappable:
            raise EngineRefused("planted: the engine was built without taps, so it delivers no tensor")
        return self._run(inputs, on_tensor)

    def kernels(self) -> list[Kernel]:
        """Return the kernels."""
        return read_kernels(json.dumps({"Layers": self.inspected()}))

    def inspected(self) -> list[dict[str, Any]]:
        """Return the layers as the engine inspector lists them."""
        return [self._layer(number, kernel) for number, kernel in enumerate(self.fused)]

    def _run(self, inputs: Mapping[str, Tensor], on_tensor: Callable[[str, Tensor], None] | None) -> Tensors:
        values = {value: tensor_of(value.const_value) for value in constants_of(self.graph)}
        values |= {value: inputs[str(value.name)].cpu() for value in self.graph.inputs}
        if on_tensor is not None:
            for value in self.graph.inputs:
                on_tensor(str(value.name), values[value].clone())
        for kernel in self.fused:
            for node in kernel:
                value = node.outputs[0]
                values[value] = self._compute(node, values, tapped=on_tensor is not None)
            for value in leaving(kernel) if on_tensor is not None else ():
                on_tensor(self._names[value], values[value].reshape(engine_shape(value, values[value].shape)).clone())
        return {str(value.name): values[value].clone() for value in self.graph.outputs}

    def _compute(self, node: ir.Node, values: Mapping[ir.Value, Tensor], *, tapped: bool) -> Tensor:
        arguments = [None if value is None else widened(values[value]) for value in node.inputs]
        result = OPS[node.op_type](node, *arguments)
        dtype = dtype_of(node.outputs[0])[0]
        for fault in self.backend.faults:
            if (
                base_name(node.outputs[0]) == fault.value
                and node.op_type != "Cast"
                and self._shows(fault, dtype, tapped)
            ):
                result = fault.change(result.to(dtype).float())
        return result.to(dtype)

    def _shows(self, fault: Fault, dtype: torch.dtype, tapped: bool) -> bool:
        if fault.only_dtype not in (None, dtype):
            return False
        if fault.fused_with and not self._fused(fault):
            return False
        if fault.inside and fault.value in {base_name(value) for kernel in self.fused for value in leaving(kernel)}:
            return False
        if not fault.hidden:
            return True
        looked_at = marked_inside(self.graph)
        return not (tapped or (looked_at if fault.cured_by is None else looked_at & fault.cured_by))

    def _fused(self, fault: Fault) -> bool:
        """Return whether one kernel makes both values, in the same dtype, and keeps the first one to itself."""
        for kernel in self.fused:
            made = {base_name(node.outputs[0]): node.outputs[0] for node in kernel if node.op_type != "Cast"}
            if fault.value in made and fault.fused_with in made:
                inner = made[fault.fused_with]
                return inner not in leaving(kernel) and dtype_of(inner) == dtype_of(made[fault.value])
        return False

    def _layer(self, number: int, kernel: list[ir.Node]) -> dict[str, Any]:
        words = "".join(node.op_type[:4] for node in kernel)
        gemm = kernel[0].op_type in GEMMS
        return {
            "Name": f"{kernel[0].name}_myl0_{number}" if gemm else f"__myl_{words}_myl0_{number}",
            "LayerType": "gemm" if gemm else "kgen",
            "Inputs": [self._describe(value) for value in entering(kernel)],
            "Constants": [],
            "Outputs": [self._describe(value) for value in leaving(kernel)],
            "TacticName": "__myelin_CASK_STUB" if gemm else f"__myl_{words}_0x0",
            "StreamId": 0,
            "Metadata": "\x1f".join(f"[ONNX Layer: {node.name}]" for node in kernel),
        }

    def _describe(self, value: ir.Value) -> dict[str, Any]:
        assert value.shape is not None
        dimensions = engine_shape(value, [int(size) for size in value.shape])
        return {
            "Name": self._names.get(value, value.name),
            "Dimensions": dimensions,
            "Strides": [math.prod(dimensions[axis + 1 :]) for axis in range(len(dimensions))],
            "StrideOrder": list(range(len(dimensions)))[::-1],
            "Datatype": dtype_of(value)[1],
            "Format": "(Linear) Row major linear format",
        }
