"""What a backend is: it builds engines and loads them into sessions that run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from harness.backends.inspector import Kernel
from harness.errors import EngineRefused
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch

    from harness.settings import Settings


Shape = tuple[int, ...]
RUNS_ON_CPU = 2
"""Runs of an engine before it is judged."""
RUNS_ON_GPU = 8
"""A race between kernels that gives a wrong result in half of the runs goes unseen in 8 runs once in 128 times."""


@dataclass(frozen=True, kw_only=True)
class ShapeRange:
    """The shapes one network input may take."""

    minimum: Shape
    """The smallest shape the engine accepts."""
    optimum: Shape
    """The shape the engine is tuned for."""
    maximum: Shape
    """The largest shape the engine accepts."""

    def holds(self, shape: Shape) -> bool:
        """Return whether a shape lies between the smallest and the largest."""
        low, high = self.minimum, self.maximum
        return len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))

    def words(self) -> str:
        """Return the shapes in words: ``[1 to 8, 64]``."""
        sizes = zip(self.minimum, self.maximum, strict=True)
        return f"[{', '.join(str(low) if low == high else f'{low} to {high}' for low, high in sizes)}]"


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """Everything a backend needs to build one engine."""

    onnx: Path
    """The typed graph: its dtypes are the precision (networks are strongly typed)."""
    tf32: bool
    """Allow TF32 in what the graph types as FP32."""
    shapes: Mapping[str, ShapeRange]
    """By input name; an input of fixed shape has its three shapes equal."""
    taps: bool = False
    """Mark unfused tensors as debug tensors, so that the session can tap them; only for backends that have the mode."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Files of weights that are not written beside the graph: a link of this name there leads to each."""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What is known of an engine once it is built."""

    layers: int | None = None
    """Layers (kernels) in the engine, where the backend reports them."""
    network_layers: int | None = None
    """Layers of the network before they are fused, where the backend reports them."""
    notes: tuple[str, ...] = ()
    """Warnings worth showing beside the result."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Build options as they took effect."""


class InputPort(Protocol):
    """An input of a loaded engine."""

    @property
    def name(self) -> str:
        """Its name in the graph."""

    @property
    def dtype(self) -> torch.dtype:
        """The only dtype it takes."""

    def takes(self, shape: Shape) -> bool:
        """Return whether a tensor of this shape fits."""

    def accepted(self) -> str:
        """Return the shapes that fit, in words."""


def check_inputs(ports: Iterable[InputPort], given: Mapping[str, torch.Tensor], backend: str) -> None:
    """Raise EngineRefused unless names, dtypes and shapes are the engine's."""
    wanted = {port.name: port for port in ports}
    if wanted.keys() != given.keys():
        missing, unexpected = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        raise EngineRefused(Sentence("inputs_differ", backend=backend, missing=missing, unexpected=unexpected))
    for name, port in wanted.items():
        dtype, shape = given[name].dtype, tuple(given[name].shape)
        if dtype != port.dtype:
            raise EngineRefused(Sentence("input_dtype", backend=backend, name=name, dtype=dtype, dtype_2=port.dtype))
        if not port.takes(shape):
            raise EngineRefused(
                Sentence("input_shape", backend=backend, name=name, shape=shape, accepted=port.accepted())
            )


class Session(Protocol):
    """A loaded engine. Use it as a context manager; leaving frees its memory."""

    layers: int | None
    """Layers (kernels) after fusion; None where the backend does not tell."""

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run once and return fresh tensors by output name, ordered after all work queued on the current stream.

        Raises EngineFailed when the engine raises, EngineRefused when it cannot take these shapes.
        """

    def close(self) -> None:
        """Free the engine; a closed session does not run again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


@runtime_checkable
class TapSession(Session, Protocol):
    """A session whose engine was built with ``taps``: its unfused tensors can be observed while it runs."""

    def tap(
        self, inputs: Mapping[str, torch.Tensor], on_tensor: Callable[[str, torch.Tensor], None]
    ) -> dict[str, torch.Tensor]:
        """Run once and return the outputs, as ``run`` does.

        ``on_tensor(name, tensor)`` is called for every unfused tensor as it is made, in execution order, with the
        engine's own name and its memory in the shape the engine gives it; the tensor is the caller's to keep. An
        exception from ``on_tensor`` ends the observation and is raised once the engine has stopped.
        """

    def kernels(self) -> list[Kernel]:
        """Return the kernels in the order of execution. Raises EngineRefused when their ONNX nodes are not known."""


class BoundRun(Protocol):
    """One run, ready to be launched again and again: fixed input buffers and a stream of its own."""

    stream: Any
    """The ``torch.cuda.Stream`` that ``launch`` works on; the caller makes it the current stream first."""
    inputs: Mapping[str, torch.Tensor]
    """The buffers that are read, by input name; what is copied into them is what the next run sees."""

    @property
    def outputs(self) -> Mapping[str, torch.Tensor]:
        """The outputs of the last launch, by name."""

    def launch(self) -> None:
        """Queue one run and return without waiting for it. Raises EngineFailed when it does not start."""

    def forget(self) -> None:
        """Overwrite the outputs where launches share their buffers, so that a launch that writes none is seen."""

    def not_capturable(self) -> str:
        """Return why ``launch`` cannot be captured into a CUDA graph, where the engine says so; empty otherwise."""

    def close(self) -> None:
        """Wait for the run and free its memory."""


@runtime_checkable
class BenchSession(Session, Protocol):
    """A session on a GPU whose runs can be launched without allocating or copying anything: they can be timed."""

    def bind(self, inputs: Mapping[str, torch.Tensor]) -> BoundRun:
        """Return a run on copies of these inputs, with an execution context of its own.

        Raises EngineRefused when the engine does not take the inputs, NotJudged when memory runs out or an output has
        no fixed shape.
        """


@runtime_checkable
class ProfileSession(Session, Protocol):
    """A session that can say how long each of its kernels (or nodes) takes."""

    def profile(self, inputs: Mapping[str, torch.Tensor], *, runs: int) -> list[list[tuple[str, float]]]:
        """Return, for each run, its kernels in execution order with their milliseconds.

        Every kernel is timed separately, which makes the run slower. Raises what ``run`` raises.
        """


@runtime_checkable
class CompilesOnLoad(Protocol):
    """A backend whose engines may be compiled further when they are loaded; what that gives is kept beside them."""

    def runtime_key(self) -> Mapping[str, str]:
        """Return what the compiled kernels depend on: version, GPU, driver. Empty where nothing is compiled here."""


@runtime_checkable
class Starter(Protocol):
    """A backend whose engines run in a process of their own, which can start while something else is done."""

    def start_ahead(self) -> None:
        """Start that process, where the engines of this process run in one; return at once."""


class Backend(Protocol):
    """Builds engines and loads them."""

    name: str
    """As typed after ``-b``."""
    precisions: tuple[str, ...]
    """The plain precisions it can honour; a plan counts by the dtype it lowers to."""
    tap_modes: tuple[str, ...]
    """How values of its engines can be observed: ``unfused`` (tensors between kernels), ``outputs`` (as outputs)."""

    def unavailable(self) -> str | None:
        """Return why nothing can be built here (a package that is missing), or None."""

    def cannot_run(self) -> str | None:
        """Return why a built engine cannot be run here (no GPU), or None."""

    def version(self) -> str:
        """Return the version, as it enters cache keys and provenance."""

    def cache_key(self) -> Mapping[str, str]:
        """Return what an engine depends on besides its graph: the version, the GPU."""

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        """Write the engine file. Raises EngineRefused with the op and node named where the backend tells."""

    def load(self, engine: Path) -> Session:
        """Load a verified engine file. Raises EngineRefused when the file cannot be loaded here."""
