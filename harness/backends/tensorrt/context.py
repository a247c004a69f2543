"""Execution contexts: how they compile their kernels, and the memory of their activations.

TensorRT for RTX captures only engines into a CUDA graph that allocate nothing themselves
(``BuilderFlag.REQUIRE_USER_ALLOCATION``): they get their memory here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


ALIGNMENT = 256
"""Bytes; TensorRT takes memory that begins at a multiple of it."""


def is_ours(trt: Any) -> bool:
    """Return whether this module's engines get the memory of their activations from the caller."""
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


def runtime_config(trt: Any, engine: Any) -> tuple[Any, ...]:
    """Return the runtime configuration of contexts, so that they run their final kernels from the first run on.

    TensorRT for RTX compiles kernels for the actual sizes in the background and runs others until then: two runs would
    differ, and a CUDA graph would keep the first kernels. Here it waits for them, and keeps them for the next context.
    The configuration comes first, followed by what must live as long. Empty for TensorRT, whose engines hold their
    final kernels.
    """
    if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy") or not hasattr(engine, "create_runtime_config"):
        return ()
    config = engine.create_runtime_config()
    strategies = trt.DynamicShapesKernelSpecializationStrategy
    if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    if not hasattr(config, "create_runtime_cache") or not hasattr(config, "set_runtime_cache"):
        return (config,)
    cache = config.create_runtime_cache()
    config.set_runtime_cache(cache)
    return config, cache


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
