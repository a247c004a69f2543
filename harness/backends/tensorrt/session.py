"""A loaded TensorRT engine: checks what goes in, orders it against PyTorch's streams, hands out what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from harness.backends.base import Shape, check_inputs
from harness.backends.inspector import Kernel, read_kernels
from harness.backends.memory import copy_memory
from harness.backends.tensorrt.build import last_lines
from harness.backends.tensorrt.context import ALIGNMENT, Workspace, make_context, runtime_config
from harness.backends.tensorrt.errors import failure, refusal
from harness.backends.tensorrt.tensors import TORCH_DTYPES, EngineTensor, io_tensors
from harness.errors import EngineFailed, EngineRefused, NotJudged, first_line

if TYPE_CHECKING:
    import torch

    from harness.backends.tensorrt.bound import BoundEngine


class TensorRTSession:
    """A loaded engine with one execution context and a stream of its own.

    ``layers`` is the number of layers (kernels) after fusion; ``engine`` and ``context`` are TensorRT's objects.
    """

    def __init__(self, trt: Any, log: Any, file: Path, *, name: str, device: torch.device) -> None:
        import torch

        self._trt, self._log, self._name, self._device = trt, log, name, device
        self._file = file.name
        log.errors.clear()
        data = file.read_bytes()
        if not data:
            raise EngineRefused(f"{name} cannot load {file}: the file is empty; delete it and build the engine again")
        self.runtime = trt.Runtime(log)
        self.engine = self.runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise refusal(f"{name} cannot load {file.name}: {last_lines(log.errors)}")
        self._config = runtime_config(trt, self.engine)
        self.context = make_context(trt, self.engine, *self._config[:1])
        if self.context is None:
            raise refusal(f"{name} cannot make an execution context for {file.name}: {last_lines(log.errors)}")
        self.tensors = io_tensors(trt, self.engine)
        self._inputs = tuple(tensor for tensor in self.tensors if tensor.is_input)
        self.layers: int = self.engine.num_layers
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._spare = torch.empty(ALIGNMENT, dtype=torch.uint8, device=device)
        self._workspace = Workspace(trt, self.engine, device)
        self._listener: Any = None  # TensorRT does not keep it alive

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run once and return fresh tensors by output name, ordered after all work queued on the current stream.

        Raises EngineRefused for inputs that the engine does not take, EngineFailed when it does not run, NotJudged
        when GPU memory runs out.
        """
        import torch

        if self.context is None:
            raise EngineFailed(f"{self._name}: the session of {self._file} is closed; load the engine again")
        check_inputs(self._inputs, inputs, self._name)
        self._log.errors.clear()
        try:
            with torch.cuda.device(self._device):
                return self._run(inputs)
        except torch.cuda.OutOfMemoryError as error:
            raise NotJudged(f"{self._name} ran out of GPU memory: {first_line(error)}") from error

    def tap(
        self, inputs: Mapping[str, torch.Tensor], on_tensor: Callable[[str, torch.Tensor], None]
    ) -> dict[str, torch.Tensor]:
        """Run once and hand every unfused tensor to ``on_tensor`` as it is made; return the outputs.

        Raises EngineRefused when the engine was not built with ``taps``, and what ``run`` and ``on_tensor`` raise.
        """
        if self.context is None:
            raise EngineFailed(f"{self._name}: the session of {self._file} is closed; load the engine again")
        if not hasattr(self.context, "unfused_tensors_debug_state"):
            raise EngineRefused(
                f"{self._name}: this version has no debug tensors between kernels; use --layers outputs"
            )
        self._listener = listener = _make_listener(self._trt, on_tensor, self._device)
        self.context.set_debug_listener(listener)
        self.context.unfused_tensors_debug_state = True
        try:
            outputs = self.run(inputs)
            self._stream.synchronize()
        finally:
            self.context.unfused_tensors_debug_state = False
        if listener.problem is not None:
            raise listener.problem
        if not listener.delivered:
            raise EngineRefused(f"{self._name} delivered no tensor of {self._file}; use --layers outputs")
        return outputs

    def kernels(self) -> list[Kernel]:
        """Return the kernels in the order of execution. Raises EngineRefused when the inspector names no ONNX nodes."""
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self.context
        kernels = read_kernels(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        if not kernels:
            raise EngineRefused(
                f"{self._name}: the engine inspector reports no metadata for {self._file}, so its tensors cannot be "
                "mapped; use --layers outputs"
            )
        return kernels

    def bind(self, inputs: Mapping[str, torch.Tensor]) -> BoundEngine:
        """Return a run on copies of these inputs, with an execution context and a stream of its own, to be timed.

        Raises EngineRefused for inputs that the engine does not take, NotJudged when GPU memory runs out or an
        output's shape depends on the data.
        """
        import torch

        from harness.backends.tensorrt.bound import BoundEngine

        if self.context is None:
            raise EngineFailed(f"{self._name}: the session of {self._file} is closed; load the engine again")
        check_inputs(self._inputs, inputs, self._name)
        self._log.errors.clear()
        try:
            with torch.cuda.device(self._device):
                return BoundEngine(
                    self._trt,
                    self._log,
                    self.engine,
                    self.tensors,
                    inputs,
                    config=self._config,
                    name=self._name,
                    device=self._device,
                )
        except torch.cuda.OutOfMemoryError as error:
            raise NotJudged(f"{self._name} ran out of GPU memory: {first_line(error)}") from error

    def profile(self, inputs: Mapping[str, torch.Tensor], *, runs: int) -> list[list[tuple[str, float]]]:
        """Return, for each run, its kernels in execution order with their milliseconds; raises what ``bind`` raises."""
        bound = self.bind(inputs)
        try:
            return bound.profile(runs)
        finally:
            bound.close()

    def close(self) -> None:
        """Wait for the engine and free it."""
        if self.context is not None:
            self._stream.synchronize()
        self._workspace.free()
        self._config = ()
        self.context = self.engine = self.runtime = self._listener = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        held = [self._bind_input(tensor, inputs[tensor.name]) for tensor in self._inputs]
        if missing := self.context.infer_shapes():
            raise EngineRefused(
                f"{self._name} cannot infer shapes: {missing} are not set; {last_lines(self._log.errors)}"
            )
        outputs = {tensor.name: self._bind_output(tensor) for tensor in self.tensors if not tensor.is_input}
        self._workspace.fit(self.context, self._stream)
        current = torch.cuda.current_stream()
        started = enqueue(self.context, current=current, side=self._stream, make_event=torch.cuda.Event)
        if not started:
            self._stream.synchronize()  # part of it may be running, on buffers about to be freed
            raise failure(f"{self._name} could not run {self._file}: {last_lines(self._log.errors)}")
        # The allocator must not hand this memory to anyone before the engine's stream is done with it.
        for used in held:
            if used.is_cuda:
                used.record_stream(self._stream)
        if any(tensor.on_host for tensor in self._inputs):
            self._stream.synchronize()  # nothing else keeps host memory alive until the engine has read it
        return {name: output.collect(self._stream, current) for name, output in outputs.items()}

    def _bind_input(self, tensor: EngineTensor, given: torch.Tensor) -> torch.Tensor:
        value = given.detach().to("cpu" if tensor.on_host else self._device).contiguous()
        if value.data_ptr() % ALIGNMENT:  # TensorRT wants it, which a slice need not have
            value = value.clone()
        if not self.context.set_input_shape(tensor.name, tuple(value.shape)):
            said = last_lines(self._log.errors)
            raise EngineRefused(f"{self._name} refuses input {tensor.name!r} of shape {tuple(value.shape)}: {said}")
        self.context.set_tensor_address(tensor.name, value.data_ptr() or self._spare.data_ptr())
        return value

    def _bind_output(self, tensor: EngineTensor) -> _Output:
        shape = tuple(self.context.get_tensor_shape(tensor.name))
        if -1 not in shape:
            output = _Output(tensor, self._device, shape)
            self.context.set_tensor_address(tensor.name, output.address or self._spare.data_ptr())
            return output
        if not hasattr(self._trt, "IOutputAllocator"):
            raise EngineRefused(
                f"{self._name}: the shape of output {tensor.name!r} depends on data, which this version cannot hand out"
            )
        output = _Output(tensor, self._device, None)
        output.allocator = _make_allocator(self._trt, output, self._stream, self._log)
        self.context.set_output_allocator(tensor.name, output.allocator)
        return output


class _Output:
    """The memory of one output during one run; ``shape`` is None until the engine says it."""

    def __init__(self, tensor: EngineTensor, device: torch.device, shape: Shape | None) -> None:
        self.tensor = tensor
        self.shape = shape
        self.allocator: Any = None
        self._device = device
        self._memory: torch.Tensor | None = None
        self.address = 0 if shape is None else self.allocate(math.prod(shape) * tensor.dtype.itemsize)

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes that no output can look like, so that an unwritten one is not taken for a result."""
        import torch

        # 0xFF in every byte is NaN in every float format; in integers 0x7F is rarer than -1.
        pattern = 0xFF if self.tensor.dtype.is_floating_point else 0x7F
        device = torch.device("cpu") if self.tensor.on_host else self._device
        self._memory = torch.full((size,), pattern, dtype=torch.uint8, device=device)
        return self._memory.data_ptr()

    def collect(self, side: Any, current: Any) -> torch.Tensor:
        """Return the output as a tensor of its dtype and shape."""
        if self._memory is None or self.shape is None:
            raise EngineFailed(f"the engine gave no memory or no shape for output {self.tensor.name!r}")
        size = math.prod(self.shape) * self.tensor.dtype.itemsize
        value = self._memory[:size].view(self.tensor.dtype).reshape(self.shape)
        if self.tensor.on_host:
            side.synchronize()
            value = value.to(self._device)
        elif value.is_cuda:
            value.record_stream(current if self.allocator else side)
        self.allocator = self._memory = None  # the allocator refers back to this: without it the memory goes at once
        return value


def enqueue(context: Any, *, current: Any, side: Any, make_event: Callable[[], Any]) -> bool:
    """Run on ``side``, after all that is queued on ``current`` and before all that will be.

    Events order the two streams without stopping the host, and hold also for inputs that are still being written.
    """
    ready = make_event()
    ready.record(current)
    side.wait_event(ready)
    started = bool(context.execute_async_v3(side.cuda_stream))
    done = make_event()
    done.record(side)
    current.wait_event(done)
    return started


def _make_listener(trt: Any, on_tensor: Callable[[str, torch.Tensor], None], device: torch.device) -> Any:
    """Return what TensorRT calls with every debug tensor while the engine runs; it may not raise into TensorRT."""
    import torch

    class Listener(trt.IDebugListener):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)
            self.delivered = 0
            self.problem: BaseException | None = None

        def process_debug_tensor(
            self, address: int, location: Any, dtype: Any, shape: Any, name: str, stream: int
        ) -> bool:
            if self.problem is None and dtype.name in TORCH_DTYPES:
                try:
                    kind = getattr(torch, TORCH_DTYPES[dtype.name])
                    on_host = location == trt.TensorLocation.HOST
                    if not on_host:
                        torch.cuda.ExternalStream(stream).synchronize()  # type: ignore[no-untyped-call]
                    on_tensor(name, copy_memory(address, tuple(shape), kind, device, on_host=on_host))
                    self.delivered += 1
                except BaseException as error:
                    self.problem = error
            return True

    return Listener()


def _make_allocator(trt: Any, output: _Output, side: Any, log: Any) -> Any:
    """Return what TensorRT calls to get memory for an output whose shape depends on the data."""
    import torch

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            try:
                with torch.cuda.stream(side):
                    return output.allocate(max(size, 1))
            except torch.cuda.OutOfMemoryError as error:  # must not pass through TensorRT; a null pointer ends the run
                log.errors.append(first_line(error))
                return 0

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            return self.reallocate_output_async(name, memory, size, alignment, 0)

        def notify_shape(self, name: str, shape: Any) -> None:
            output.shape = tuple(shape)

    return Allocator()
