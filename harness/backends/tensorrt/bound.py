"""A TensorRT engine on fixed buffers: what a CUDA graph, a latency measurement and a profiler need.

Every binding has an execution context of its own, so that two of them can run at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.backends.tensorrt.build import last_lines
from harness.backends.tensorrt.context import ALIGNMENT, Contexts, Workspace
from harness.backends.tensorrt.errors import failure, refusal
from harness.backends.tensorrt.tensors import EngineTensor
from harness.errors import EngineFailed, EngineRefused, NotJudged
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch


PROFILE_WARM_UP = 2
UNWRITTEN = 0xFF
"""In every byte of an output before a run: NaN in every float format."""


class BoundEngine:
    """One execution context, its buffers and its stream. ``launch`` allocates and copies nothing."""

    def __init__(
        self,
        trt: Any,
        log: Any,
        engine: Any,
        tensors: Iterable[EngineTensor],
        inputs: Mapping[str, torch.Tensor],
        *,
        contexts: Contexts,
        name: str,
        device: torch.device,
    ) -> None:
        import torch

        self._trt, self._log, self._name, self._device = trt, log, name, device
        self._engine = engine
        self._spare = torch.empty(ALIGNMENT, dtype=torch.uint8, device=device)
        self._profiler: Any = None  # TensorRT does not keep it alive
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.context = contexts.make()
        if self.context is None:
            raise refusal(Sentence("no_more_context", name=name, errors=last_lines(log.errors)))
        tensors = tuple(tensors)
        self.inputs: Mapping[str, torch.Tensor] = {
            tensor.name: self._bind_input(tensor, inputs[tensor.name]) for tensor in tensors if tensor.is_input
        }
        if missing := self.context.infer_shapes():
            raise EngineRefused(
                Sentence("cannot_infer_shapes", name=name, missing=missing, errors=last_lines(log.errors))
            )
        self._outputs = {tensor.name: self._bind_output(tensor) for tensor in tensors if not tensor.is_input}
        self._workspace = Workspace(trt, engine, device)
        self._workspace.fit(self.context, self.stream)
        # The buffers were filled on the current stream, and the engine runs on its own.
        torch.cuda.current_stream().synchronize()

    @property
    def outputs(self) -> Mapping[str, torch.Tensor]:
        """The output buffers by name; every launch writes the same ones."""
        return self._outputs

    def launch(self) -> None:
        """Queue one run on ``stream`` and return without waiting for it. Raises EngineFailed when it does not start."""
        if not self.context.execute_async_v3(self.stream.cuda_stream):
            raise failure(Sentence("could_not_launch", name=self._name, errors=last_lines(self._log.errors)))

    def forget(self) -> None:
        """Fill the output buffers with UNWRITTEN (NaN in every float format); returns once that is done."""
        import torch

        for buffer in self._outputs.values():
            buffer.view(-1).view(torch.uint8).fill_(UNWRITTEN)
        torch.cuda.current_stream().synchronize()

    def not_capturable(self) -> str:
        """Return why TensorRT does not let this engine be captured; empty where it does or cannot tell."""
        if not hasattr(self.context, "is_stream_capturable"):
            return ""
        capturable = self.context.is_stream_capturable(self.stream.cuda_stream)
        return "" if capturable else Sentence("graph_unsupported", name=self._name)

    def profile(self, runs: int) -> list[list[tuple[str, float]]]:
        """Return, for each run, its kernels in execution order with their milliseconds, from TensorRT's profiler."""
        import torch

        self._profiler = profiler = _make_profiler(self._trt)
        self.context.profiler = profiler  # from here on every launch waits for its kernels and reports them
        found: list[list[tuple[str, float]]] = []
        with torch.cuda.stream(self.stream):
            for _ in range(PROFILE_WARM_UP + runs):
                profiler.times = []
                self.launch()
                self.stream.synchronize()
                found.append(profiler.times)
        return found[PROFILE_WARM_UP:]

    def close(self) -> None:
        """Wait for the engine and free the context and the buffers; the engine itself stays loaded."""
        if self.context is not None:
            self.stream.synchronize()
            self._workspace.free()
        self.context = self._engine = self._profiler = None
        self.inputs, self._outputs = {}, {}

    def _bind_input(self, tensor: EngineTensor, given: torch.Tensor) -> torch.Tensor:
        import torch

        buffer = torch.empty(given.shape, dtype=given.dtype, device="cpu" if tensor.on_host else self._device)
        buffer.copy_(given)
        if not self.context.set_input_shape(tensor.name, tuple(buffer.shape)):
            said = last_lines(self._log.errors)
            raise EngineRefused(
                Sentence("refuses_input", name=self._name, name_2=tensor.name, shape=tuple(buffer.shape), said=said)
            )
        self._set_address(tensor.name, buffer)
        return buffer

    def _bind_output(self, tensor: EngineTensor) -> torch.Tensor:
        import torch

        shape = tuple(self.context.get_tensor_shape(tensor.name))
        if -1 in shape:
            raise NotJudged(Sentence("shape_of_data_timed", name=self._name, name_2=tensor.name))
        device = torch.device("cpu") if tensor.on_host else self._device
        memory = torch.full((math.prod(shape) * tensor.dtype.itemsize,), UNWRITTEN, dtype=torch.uint8, device=device)
        buffer = memory.view(tensor.dtype).reshape(shape)
        self._set_address(tensor.name, buffer)
        return buffer

    def _set_address(self, name: str, buffer: torch.Tensor) -> None:
        address = buffer.data_ptr() or self._spare.data_ptr()
        if not self.context.set_tensor_address(name, address):
            raise EngineFailed(
                Sentence("refuses_memory", name=self._name, name_2=name, errors=last_lines(self._log.errors))
            )


def _make_profiler(trt: Any) -> Any:
    """Return what TensorRT calls with the time of every kernel; it may not raise into TensorRT."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.append((layer_name, float(ms)))

    return Profiler()
