"""Run a whole ONNX graph on the CPU: FP32 in ONNX Runtime, FP64 in ``onnx.reference``, or emulated."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch

from harness.errors import NotJudged, first_line
from harness.graph import INLINE_BYTES, emulate, input_specs, promote, to_float64, torch_dtype, weight_bytes, weights_of
from harness.reference.runtimes import cpu_session, reference_evaluator
from harness.tensors import Tensors

if TYPE_CHECKING:
    import onnx


Run = Callable[[Mapping[str, torch.Tensor]], Tensors]


def run_fp32(model: ir.Model) -> Run:
    """Return a function that runs the model in FP32 on ONNX Runtime's CPU, without graph optimisation.

    float16 and bfloat16 in the file are promoted first; inputs are converted and outputs are float32.
    """
    return _ort_run(promote(model))


def run_emulated(model: ir.Model, *, default: str, dtypes: Mapping[str, str], tf32: bool) -> Run:
    """Return a function that runs the model in FP32 arithmetic rounded like these dtypes: the floor of an ONNX file."""
    return _ort_run(emulate(model, dtypes, default=default, tf32=tf32))


def _ort_run(model: ir.Model) -> Run:
    """Load a model into ONNX Runtime. Raises NotJudged when it refuses the graph."""
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        try:
            session = cpu_session(_serialized(model, Path(folder)))
        except Exception as error:
            raise NotJudged(f"ONNX Runtime does not load the graph in FP32: {first_line(error)}") from error
    feeds_of = _feeds_of(model)
    outputs = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, torch.Tensor]) -> Tensors:
        try:
            results = session.run(outputs, feeds_of(inputs))
        except Exception as error:
            raise NotJudged(f"ONNX Runtime cannot run the graph in FP32: {first_line(error)}") from error
        return {name: torch.as_tensor(result) for name, result in zip(outputs, results, strict=True)}

    return run


def _feeds_of(model: ir.Model) -> Callable[[Mapping[str, torch.Tensor]], dict[str, np.ndarray[Any, Any]]]:
    """Return what turns inputs into arrays of the dtypes that the model declares."""
    dtypes = {spec.name: torch_dtype(spec) for spec in input_specs(model)}
    return lambda inputs: {name: inputs[name].detach().cpu().to(dtype).numpy() for name, dtype in dtypes.items()}


def _serialized(model: ir.Model, folder: Path) -> bytes | str:
    """Return the model as bytes, or the path of a file in the folder when its weights are large or in other files."""
    if weight_bytes(model) < INLINE_BYTES and not any(isinstance(it, ir.ExternalTensor) for it in weights_of(model)):
        serialized: bytes = ir.to_proto(model).SerializeToString()
        return serialized
    path = folder / "model.onnx"
    ir.save(model, path, external_data="weights.bin")
    return str(path)


def run_fp64(model: ir.Model) -> Run:
    """Return a function that runs the model in FP64 with ``onnx.reference``; outputs are float64.

    Raises NotJudged, naming the op, when the evaluator lacks one, fails in one, or leaves FP64.
    """
    doubled = to_float64(model)
    producers = {str(value.name): node.op_type for node in doubled.graph for value in node.outputs}
    floats = {str(value.name) for node in doubled.graph for value in node.outputs if str(value.dtype) == "DOUBLE"}
    outputs = [str(value.name) for value in doubled.graph.outputs]
    feeds_of = _feeds_of(doubled)
    try:
        evaluator = reference_evaluator(_proto(doubled))
    except Exception as error:
        raise NotJudged(f"onnx.reference cannot evaluate the graph in FP64: {first_line(error)}") from error

    def run(inputs: Mapping[str, torch.Tensor]) -> Tensors:
        try:
            results: dict[str, Any] = dict(evaluator.run(None, feeds_of(inputs), intermediate=True))
        except Exception as error:
            raise NotJudged(
                f"onnx.reference cannot evaluate {_failed_op(error)} in FP64: {first_line(error)}"
            ) from error
        for name in floats & set(results):
            if str(results[name].dtype) != "float64":
                raise NotJudged(
                    f"onnx.reference leaves FP64 in {producers[name]} (value {name!r}: {results[name].dtype})"
                )
        return {name: torch.as_tensor(results[name]) for name in outputs}

    return run


def _proto(model: ir.Model) -> onnx.ModelProto:
    """Return the model as one protobuf object with its weights inside."""
    size = weight_bytes(model)
    if size >= 2**31:
        raise NotJudged(f"its weights are {size / 2**30:.3g} GiB in FP64, more than one protobuf object holds")
    ir.external_data.load_to_model(model)
    return ir.to_proto(model)


def _failed_op(error: BaseException) -> str:
    """Return the op type in whose evaluation an error arose."""
    op = "the graph"
    trace = error.__traceback__
    while trace is not None:
        node = getattr(trace.tb_frame.f_locals.get("self"), "onnx_node", None)
        op = getattr(node, "op_type", op)
        trace = trace.tb_next
    return op
