"""Memory for an engine's activations, where the engine was built not to allocate any itself.

TensorRT for RTX captures only such engines into a CUDA graph (``BuilderFlag.REQUIRE_USER_ALLOCATION``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ALIGNMENT = 256


def is_ours(trt: Any) -> bool:
    """Return whether engines of this flavour get their memory from us."""
    return hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")


def make_context(trt: Any, engine: Any, config: Any = None) -> Any:
    """Return an execution context, or None where TensorRT makes none; it runs once :class:`Workspace` has fitted it."""
    if not is_ours(trt):
        return engine.create_execution_context(*([] if config is None else [config]))
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if config is None:
        return engine.create_execution_context(strategy)
    if hasattr(config, "set_execution_context_allocation_strategy"):
        config.set_execution_context_allocation_strategy(strategy)
    return engine.create_execution_context(config)


class Workspace:
    """The memory of one execution context. It must outlive every run of the context."""

    def __init__(self, trt: Any, engine: Any, device: torch.device) -> None:
        self._needed, self._engine, self._device = is_ours(trt), engine, device
        self._memory: torch.Tensor | None = None

    def fit(self, context: Any, stream: Any) -> None:
        """Give the context the memory that its input shapes need; before every run. ``stream`` is where it runs."""
        if not self._needed:
            return
        import torch

        size = max(context.update_device_memory_size_for_shapes(), self._engine.device_memory_size_v2, ALIGNMENT)
        if self._memory is None or self._memory.numel() < size:
            stream.synchronize()  # the run before may still be using the old memory
            self._memory = torch.empty(size, dtype=torch.uint8, device=self._device)
            if self._memory.is_cuda:
                self._memory.record_stream(stream)
        context.set_device_memory(self._memory.data_ptr(), self._memory.numel())

    def free(self) -> None:
        """Let go of the memory; nothing may be running."""
        self._memory = self._engine = None
