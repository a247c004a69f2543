"""Execution contexts: how they compile their kernels, and the memory of their activations.

TensorRT for RTX captures only engines into a CUDA graph that allocate nothing themselves
(``BuilderFlag.REQUIRE_USER_ALLOCATION``): they get their memory here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.backends.tensorrt.build import last_lines

if TYPE_CHECKING:
    import torch

    from harness.backends.runtime_file import RuntimeFile


ALIGNMENT = 256
"""Bytes; TensorRT takes memory that begins at a multiple of it."""


def is_ours(trt: Any) -> bool:
    """Return whether this module's engines get the memory of their activations from the caller."""
    return hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")


class Contexts:
    """Makes the execution contexts of one engine, whose kernels are compiled once.

    TensorRT for RTX compiles an engine's kernels when a context is made, and those for the actual sizes in the
    background, running others until then: two runs would differ, and a CUDA graph would keep the first kernels. Here
    it waits for them. Its runtime cache keeps them for the next context, and in ``file`` for the next process.
    TensorRT's own engines hold their final kernels and need none of it.
    """

    def __init__(self, trt: Any, engine: Any, log: Any, file: RuntimeFile | None = None) -> None:
        self._trt, self._engine, self._log, self._file = trt, engine, log, file
        self._config: Any = None
        self._cache: Any = None
        self._known = 0
        """Bytes of the runtime cache that the file holds."""
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy") and hasattr(engine, "create_runtime_config"):
            self._configure()

    def make(self) -> Any:
        """Return an execution context, None where TensorRT makes none; it runs once :class:`Workspace` has fitted it.

        It must not outlive this object.
        """
        given: Any = [] if self._config is None else [self._config]
        if is_ours(self._trt):
            strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
            if self._config is None:
                given = [strategy]
            elif hasattr(self._config, "set_execution_context_allocation_strategy"):
                self._config.set_execution_context_allocation_strategy(strategy)
        return self._engine.create_execution_context(*given)

    def save(self) -> None:
        """Write the runtime cache into its file where it has grown; never an error."""
        cache = self._cache
        if self._file is None or cache is None or not hasattr(cache, "serialize"):
            return
        content = bytes(cache.serialize() or b"")
        if len(content) > self._known:
            self._file.write(content)
            self._known = len(content)

    def free(self) -> None:
        """Let go of the engine; no context of it may be in use."""
        self._config = self._cache = self._engine = None

    def _configure(self) -> None:
        self._config = config = self._engine.create_runtime_config()
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
        if hasattr(config, "create_runtime_cache") and hasattr(config, "set_runtime_cache"):
            self._cache = cache = config.create_runtime_cache()
            if self._file is not None and hasattr(cache, "deserialize"):
                self._read(cache, self._file)
            config.set_runtime_cache(cache)

    def _read(self, cache: Any, file: RuntimeFile) -> None:
        content = file.read()
        if not content:
            return
        try:
            refused = "" if cache.deserialize(content) else last_lines(self._log.errors)
        except Exception as error:  # whatever a library says of a file that it cannot use
            refused = str(error)
        if refused:
            file.discard(refused)
            self._log.errors.clear()  # they are not those of the engine
        else:
            self._known = len(content)


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
