"""What one run hands out: the memory of its outputs, and the tensors that a tap delivers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.backends.base import Shape
from harness.backends.gpu import copy_memory
from harness.backends.tensorrt.tensors import TORCH_DTYPES, EngineTensor
from harness.errors import EngineFailed, first_line
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch


class EngineOutput:
    """The memory of one output during one run; ``shape`` is None until the engine says it."""

    def __init__(self, tensor: EngineTensor, device: torch.device, shape: Shape | None) -> None:
        self.tensor = tensor
        self.shape = shape
        self.allocator: Any = None
        self._device = device
        self._memory: torch.Tensor | None = None
        self.address = 0 if shape is None else self.allocate(math.prod(shape) * tensor.dtype.itemsize)

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes of a pattern that is no likely result, so that an unwritten output is noticed."""
        import torch

        # 0xFF in every byte is NaN in every float format; in integers 0x7F is rarer than -1.
        pattern = 0xFF if self.tensor.dtype.is_floating_point else 0x7F
        device = torch.device("cpu") if self.tensor.on_host else self._device
        self._memory = torch.full((size,), pattern, dtype=torch.uint8, device=device)
        return self._memory.data_ptr()

    def collect(self, side: Any, current: Any) -> torch.Tensor:
        """Return the output as a tensor of its dtype and shape."""
        if self._memory is None or self.shape is None:
            raise EngineFailed(Sentence("output_without_memory", name=self.tensor.name))
        size = math.prod(self.shape) * self.tensor.dtype.itemsize
        value = self._memory[:size].view(self.tensor.dtype).reshape(self.shape)
        if self.tensor.on_host:
            side.synchronize()
            value = value.to(self._device)
        elif value.is_cuda:
            value.record_stream(current if self.allocator else side)
        self.allocator = self._memory = None  # the allocator refers back to this object: without the cycle it is freed
        return value


def make_allocator(trt: Any, output: EngineOutput, side: Any, log: Any) -> Any:
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


def make_listener(trt: Any, on_tensor: Callable[[str, torch.Tensor], None], device: torch.device) -> Any:
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
