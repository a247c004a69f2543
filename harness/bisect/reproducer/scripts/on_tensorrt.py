"""The part of ``reproduce.py`` that builds and runs the graph with TensorRT or TensorRT for RTX."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.bisect.reproducer.scripts.common import GRAPH, MODULES, TF32, Stop, main

DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


class TensorRTEngine:
    """The engine built from graph.onnx, loaded on the current GPU."""

    def __init__(self, inputs: Mapping[str, Any], save: Path | None) -> None:
        self.trt = import_tensorrt()
        self.log = make_log(self.trt)
        serialized = build(self.trt, self.log, inputs)
        if save is not None:
            save.write_bytes(serialized)
        self.cudart = import_cuda()
        self.versions = [f"{self.trt.__name__} {self.trt.__version__}", *describe_gpu(self.cudart)]
        self.runtime = self.trt.Runtime(self.log)
        self.engine = self.runtime.deserialize_cuda_engine(serialized)
        if self.engine is None:
            raise Stop(f"the engine cannot be loaded: {last_lines(self.log.errors)}")
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise Stop(f"no execution context: {last_lines(self.log.errors)}")
        self.versions.append(f"engine: {self.engine.num_layers} layers, TF32 {'allowed' if TF32 else 'off'}")
        self.stream = call(self.cudart.cudaStreamCreate())
        self.memory: list[int] = []

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once and return every output as a fresh array."""
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        given = [name for name in names if self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT]
        if set(given) != set(inputs):
            raise Stop(f"the engine takes {sorted(given)}, but inputs.npz holds {sorted(inputs)}")
        try:
            held = [self.bind_input(name, inputs[name]) for name in given]
            if missing := self.context.infer_shapes():
                raise Stop(f"shapes cannot be inferred: {missing} are not set")
            outputs = {name: self.bind_output(name) for name in names if name not in given}
            if not self.context.execute_async_v3(int(self.stream)):
                raise Stop(f"the engine does not run: {last_lines(self.log.errors)}")
            call(self.cudart.cudaStreamSynchronize(self.stream))
            del held
            return {name: self.fetch(array, address) for name, (array, address) in outputs.items()}
        finally:
            while self.memory:  # the status is left alone: it would hide the error that led here
                self.cudart.cudaFree(self.memory.pop())

    def close(self) -> None:
        """Free the engine before the runtime that made it."""
        self.context = self.engine = self.runtime = None
        self.cudart.cudaStreamDestroy(self.stream)

    def bind_input(self, name: str, given: Any) -> Any:
        """Copy an input to where the engine reads it; the array returned must live until the engine has run."""
        wanted = self.dtype(name)
        if given.dtype != wanted:
            raise Stop(f"input {name!r} is {given.dtype}, but the engine takes {np.dtype(wanted)}")
        array = np.ascontiguousarray(given).reshape(given.shape)
        if not self.context.set_input_shape(name, array.shape):
            raise Stop(f"input {name!r} of shape {array.shape} is refused: {last_lines(self.log.errors)}")
        self.context.set_tensor_address(name, self.address(name, array))
        return array

    def bind_output(self, name: str) -> tuple[Any, int]:
        """Return an array for an output and the address the engine writes it to."""
        shape = tuple(self.context.get_tensor_shape(name))
        if -1 in shape:
            raise Stop(f"the shape of output {name!r} depends on data, which this script cannot take")
        dtype = np.dtype(self.dtype(name))
        # 0xFF in every byte is NaN in every float format: an unwritten output must not pass for a result.
        array = np.full(math.prod(shape) * dtype.itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)
        address = self.address(name, array)
        self.context.set_tensor_address(name, address)
        return array, address

    def address(self, name: str, array: Any) -> int:
        """Return where the engine finds a tensor: the array itself, or a copy of it on the GPU."""
        if self.engine.get_tensor_location(name) == self.trt.TensorLocation.HOST:
            return int(array.ctypes.data)
        pointer = int(call(self.cudart.cudaMalloc(max(array.nbytes, 1))))
        self.memory.append(pointer)
        if array.nbytes:
            kind = self.cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
            call(self.cudart.cudaMemcpy(pointer, array.ctypes.data, array.nbytes, kind))
        return pointer

    def fetch(self, array: Any, address: int) -> Any:
        """Return an output's array, filled from the GPU where it lies there."""
        if address in self.memory and array.nbytes:
            kind = self.cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
            call(self.cudart.cudaMemcpy(array.ctypes.data, address, array.nbytes, kind))
        return array

    def dtype(self, name: str) -> Any:
        """Return the numpy type of one of the engine's tensors."""
        dtype = self.engine.get_tensor_dtype(name).name
        if dtype not in DTYPES:
            raise Stop(f"tensor {name!r} has dtype {dtype}, which numpy does not have")
        return DTYPES[dtype]


def import_tensorrt() -> Any:
    """Return the first of the modules that can be imported."""
    reasons = []
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise Stop(f"TensorRT cannot be imported ({'; '.join(reasons)})")


def import_cuda() -> Any:
    """Return CUDA's runtime API, once there is a GPU to use it on."""
    try:
        cudart = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise Stop(f"{error}; install it with: pip install cuda-bindings") from error
    try:
        status, count = cudart.cudaGetDeviceCount()
    except RuntimeError as error:  # how the bindings say that they cannot load CUDA's own library
        raise Stop(f"no GPU: {error}") from error
    if int(status) or not count:
        raise Stop(f"no GPU: {status.name if int(status) else 'the driver shows none'}")
    return cudart


def describe_gpu(cudart: Any) -> list[str]:
    """Return a line on the current GPU and one on CUDA."""
    properties = call(cudart.cudaGetDeviceProperties(call(cudart.cudaGetDevice())))
    driver, runtime = call(cudart.cudaDriverGetVersion()), call(cudart.cudaRuntimeGetVersion())
    name = properties.name.decode().rstrip("\0")
    return [
        f"GPU {name} (compute capability {properties.major}.{properties.minor})",
        f"CUDA runtime {runtime}, newest CUDA the driver supports {driver}",
    ]


def call(result: tuple[Any, ...]) -> Any:
    """Return what a CUDA function returned beside its status, which must be success."""
    status, *values = result
    if int(status):
        raise Stop(f"CUDA failed with {status.name}")
    return values[0] if values else None


def make_log(trt: Any) -> Any:
    """Return a logger that keeps and prints errors."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
                print(f"TensorRT: {message}", flush=True)

    return Log()


def last_lines(messages: Iterable[str]) -> str:
    """Return the last three messages on one line."""
    return "; ".join([" ".join(message.split()) for message in messages][-3:]) or "it gave no reason"


def build(trt: Any, log: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the serialized engine of graph.onnx; a dynamic input is built for the one shape that is run."""
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log, "")
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag
    # Newer versions have no other kind of network, and no flag for it.
    typed = 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(GRAPH)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise Stop(f"graph.onnx is refused: {last_lines(errors or log.errors)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    (config.set_flag if TF32 else config.clear_flag)(trt.BuilderFlag.TF32)
    add_profile(builder, network, config, inputs)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise Stop(f"the engine cannot be built: {last_lines(log.errors)}")
    return serialized


def add_profile(builder: Any, network: Any, config: Any, inputs: Mapping[str, Any]) -> None:
    """Declare the shape of every input that is dynamic."""
    dynamic = []
    for index in range(network.num_inputs):
        network_input = network.get_input(index)
        if network_input.name not in inputs:
            raise Stop(f"inputs.npz holds no {network_input.name!r}, which the graph takes")
        if -1 in tuple(network_input.shape):
            dynamic.append(network_input.name)
    if dynamic:
        profile = builder.create_optimization_profile()
        for name in dynamic:
            profile.set_shape(name, *[inputs[name].shape] * 3)
        if config.add_optimization_profile(profile) < 0:
            raise Stop(f"the shapes of {', '.join(dynamic)} are not accepted")


if __name__ == "__main__":
    sys.exit(main(TensorRTEngine))
