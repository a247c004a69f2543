"""A loaded TensorRT engine: checks what goes in, orders it against PyTorch's streams, hands out what comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends.base import BenchSession, ProfileSession, TapSession, check_inputs
from harness.backends.inspector import Kernel, read_kernels
from harness.backends.tensorrt.build import last_lines
from harness.backends.tensorrt.context import ALIGNMENT, Contexts, Workspace
from harness.backends.tensorrt.errors import failure, refusal
from harness.backends.tensorrt.output import EngineOutput, make_allocator, make_listener
from harness.backends.tensorrt.tensors import EngineTensor, io_tensors
from harness.errors import EngineFailed, EngineRefused, NoMemory, first_line
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch

    from harness.backends.runtime_file import RuntimeFile
    from harness.backends.tensorrt.bound import BoundEngine


class TensorRTSession(TapSession, BenchSession, ProfileSession):
    """A loaded engine with one execution context and its own stream.

    ``layers`` is the number of layers (kernels) after fusion; ``engine`` and ``context`` are TensorRT's objects.
    """

    def __init__(
        self,
        trt: Any,
        log: Any,
        file: Path,
        *,
        name: str,
        device: torch.device,
        runtime: RuntimeFile | None = None,
    ) -> None:
        import torch

        self._trt, self._log, self._name, self._device = trt, log, name, device
        self._file = file.name
        log.errors.clear()
        data = file.read_bytes()
        if not data:
            raise EngineRefused(Sentence("file_is_empty", name=name, file=file))
        self.runtime = trt.Runtime(log)
        self.engine = self.runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise refusal(Sentence("cannot_load", name=name, name_2=file.name, errors=last_lines(log.errors)))
        self._contexts = Contexts(trt, self.engine, log, runtime)
        self.context = self._contexts.make()
        if self.context is None:
            raise refusal(Sentence("no_context", name=name, name_2=file.name, errors=last_lines(log.errors)))
        self._contexts.save()  # before anything runs: a crash must not cost the next process the same seconds
        self.tensors = io_tensors(trt, self.engine)
        self._inputs = tuple(tensor for tensor in self.tensors if tensor.is_input)
        self.layers = self.engine.num_layers
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._spare = torch.empty(ALIGNMENT, dtype=torch.uint8, device=device)
        self._workspace = Workspace(trt, self.engine, device)
        self._listener: Any = None  # TensorRT does not keep it alive

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run once and return fresh tensors by output name, ordered after all work queued on the current stream.

        Raises EngineRefused for inputs that the engine does not take, EngineFailed when it does not run, NotJudged
        when GPU memory runs out.
        """
        with self._given(inputs):
            return self._run(inputs)

    def tap(
        self, inputs: Mapping[str, torch.Tensor], on_tensor: Callable[[str, torch.Tensor], None]
    ) -> dict[str, torch.Tensor]:
        """Run once and hand every unfused tensor to ``on_tensor`` as it is made; return the outputs.

        Raises EngineRefused when the engine was not built with ``taps``, and what ``run`` and ``on_tensor`` raise.
        """
        self._check_open()
        if not hasattr(self.context, "unfused_tensors_debug_state"):
            raise EngineRefused(Sentence("no_debug_between", name=self._name))
        self._listener = listener = make_listener(self._trt, on_tensor, self._device)
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
            raise EngineRefused(Sentence("delivered_none", name=self._name, file=self._file))
        return outputs

    def kernels(self) -> list[Kernel]:
        """Return the kernels in the order of execution. Raises EngineRefused when the inspector names no ONNX nodes."""
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self.context
        kernels = read_kernels(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        if not kernels:
            raise EngineRefused(Sentence("no_inspector_data", name=self._name, file=self._file))
        return kernels

    def bind(self, inputs: Mapping[str, torch.Tensor]) -> BoundEngine:
        """Return a run on copies of these inputs, with an execution context and a stream of its own, to be timed.

        Raises EngineRefused for inputs that the engine does not take, NotJudged when GPU memory runs out or an
        output's shape depends on the data.
        """
        from harness.backends.tensorrt.bound import BoundEngine

        with self._given(inputs):
            return BoundEngine(
                self._trt,
                self._log,
                self.engine,
                self.tensors,
                inputs,
                contexts=self._contexts,
                name=self._name,
                device=self._device,
            )

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
            self._contexts.save()  # other sizes may have compiled more
        self._workspace.free()
        self.context = None
        self._contexts.free()
        self.engine = self.runtime = self._listener = None

    def _check_open(self) -> None:
        if self.context is None:
            raise EngineFailed(f"{self._name}: the session of {self._file} is closed; load the engine again")

    @contextlib.contextmanager
    def _given(self, inputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Work on the session's GPU with these inputs, once they are checked; memory that runs out is NotJudged."""
        import torch

        self._check_open()
        check_inputs(self._inputs, inputs, self._name)
        self._log.errors.clear()
        try:
            with torch.cuda.device(self._device):
                yield
        except torch.cuda.OutOfMemoryError as error:
            raise NoMemory(Sentence("no_gpu_memory_backend", name=self._name, said=first_line(error))) from error

    def _run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        held = [self._bind_input(tensor, inputs[tensor.name]) for tensor in self._inputs]
        if missing := self.context.infer_shapes():
            raise EngineRefused(
                Sentence("cannot_infer_shapes", name=self._name, missing=missing, errors=last_lines(self._log.errors))
            )
        outputs = {tensor.name: self._bind_output(tensor) for tensor in self.tensors if not tensor.is_input}
        self._workspace.fit(self.context, self._stream)
        current = torch.cuda.current_stream()
        started = enqueue(self.context, current=current, side=self._stream, make_event=torch.cuda.Event)
        if not started:
            self._stream.synchronize()  # part of it may be running, on buffers about to be freed
            raise failure(
                Sentence("could_not_run_file", name=self._name, file=self._file, errors=last_lines(self._log.errors))
            )
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
            raise EngineRefused(
                Sentence("refuses_input", name=self._name, name_2=tensor.name, shape=tuple(value.shape), said=said)
            )
        self.context.set_tensor_address(tensor.name, value.data_ptr() or self._spare.data_ptr())
        return value

    def _bind_output(self, tensor: EngineTensor) -> EngineOutput:
        shape = tuple(self.context.get_tensor_shape(tensor.name))
        if -1 not in shape:
            output = EngineOutput(tensor, self._device, shape)
            self.context.set_tensor_address(tensor.name, output.address or self._spare.data_ptr())
            return output
        if not hasattr(self._trt, "IOutputAllocator"):
            raise EngineRefused(Sentence("shape_of_data", name=self._name, name_2=tensor.name))
        output = EngineOutput(tensor, self._device, None)
        output.allocator = make_allocator(self._trt, output, self._stream, self._log)
        self.context.set_output_allocator(tensor.name, output.allocator)
        return output


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
