"""What TensorRT calls with the tensors between kernels while an engine runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.backends.memory import copy_memory
from harness.backends.tensorrt.tensors import TORCH_DTYPES

if TYPE_CHECKING:
    import torch


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
