"""Timed launches on a GPU: a run captured into a CUDA graph where possible, events around it, copies.

Every launch is on the run's own stream, which is the current one during a block of samples.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness.backends import BoundRun
from harness.compare import finite_error
from harness.errors import EngineFailed, first_line
from harness.sentences import Sentence
from harness.structure import flatten_outputs
from harness.timing.sampling import Block

Tensors = Mapping[str, torch.Tensor]
PLAIN_RUNS = 3
"""Runs before a capture: libraries allocate their workspaces in the first ones."""
SHORT_MS = 0.1
"""A sample of shorter runs spans several of them: events resolve about half a microsecond."""
SAMPLE_MS = 0.2
DEPTH = 2
"""Launches in the queue, so that the GPU never waits for the host (as trtexec does)."""
SAME_OUTPUTS = 0.01
"""Largest relative difference between a replayed and a launched run; the order of additions makes far less."""


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """A bound run that is warm, and how it is launched."""

    run: BoundRun
    launch: Callable[[], None]
    """The replay of a CUDA graph, or the run's own launch."""
    captured: bool
    failure: str = ""
    """Why a requested capture failed."""


class ModuleRun:
    """A PyTorch function on fixed inputs, as a :class:`harness.backends.BoundRun`."""

    def __init__(self, call: Callable[[Tensors], Any], inputs: Tensors, device: torch.device) -> None:
        self.stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.inputs: Tensors = {name: tensor.to(device, copy=True) for name, tensor in inputs.items()}
        self._call = call
        self._returned: Any = {}
        torch.cuda.current_stream().synchronize()  # the inputs are copied there, and read on the other stream

    @property
    def outputs(self) -> Tensors:
        """The outputs of the last launch; a captured one keeps its own."""
        return flatten_outputs(self._returned)

    def launch(self) -> None:
        """Call the function on the current stream."""
        self._returned = self._call(self.inputs)  # flattened when it is asked for: that takes time of the host

    def forget(self) -> None:
        """Do nothing: every launch writes fresh memory."""

    def not_capturable(self) -> str:
        """Return an empty string: PyTorch fails in the capture itself."""
        return ""

    def close(self) -> None:
        """Wait for the function and free its tensors."""
        self.stream.synchronize()
        self.inputs, self._returned = {}, {}


def make_timed_run(bind: Callable[[], BoundRun], *, graph: bool) -> TimedRun:
    """Bind a run, warm it up, and capture it if ``graph``; where the capture fails it is launched without a graph."""
    run = bind()
    try:
        _run_plainly(run)
        if not graph:
            return TimedRun(run=run, launch=run.launch, captured=False)
        failure, replay = capture(run)
    except BaseException:
        run.close()
        raise
    if replay is not None:
        return TimedRun(run=run, launch=replay, captured=True)
    # A failed capture may leave its stream and its memory pool unusable.
    run.close()
    run = bind()
    _run_plainly(run)
    return TimedRun(run=run, launch=run.launch, captured=False, failure=failure)


def capture(run: BoundRun) -> tuple[str, Callable[[], None] | None]:
    """Return why a run cannot be captured, or an empty string and the replay of its graph.

    The replay must give the outputs of the launch: a graph that captured nothing is very fast.
    """
    if reason := run.not_capturable():
        return reason, None
    expected = {name: tensor.clone() for name, tensor in run.outputs.items()}
    graph = torch.cuda.CUDAGraph()
    try:
        # The outer context restores the stream; torch.cuda.graph does not after an error.
        with torch.cuda.stream(run.stream), warnings.catch_warnings():
            # PyTorch gives this warning no class of its own.
            warnings.filterwarnings("error", message="The CUDA Graph is empty")
            with torch.cuda.graph(graph, stream=run.stream, capture_error_mode="thread_local"):
                run.launch()
        run.forget()
        with torch.cuda.stream(run.stream):
            graph.replay()
            run.stream.synchronize()
    except (RuntimeError, UserWarning, EngineFailed) as error:
        return Sentence("capture_failed", said=first_line(error)), None
    for name, tensor in expected.items():
        if (error_of := finite_error(run.outputs[name].double(), tensor.double())) > SAME_OUTPUTS:
            difference = Sentence("error_is", error_of=error_of)
            return Sentence("replay_differs", name=name, difference=difference), None
    return "", graph.replay


def gpu_block(timed: TimedRun, *, inner: int, flush: torch.Tensor | None) -> Block:
    """Return a block that samples between CUDA events, each over ``inner`` runs, after a flush of L2 if any."""
    events: list[tuple[Any, Any]] = []
    stream = timed.run.stream

    def block(count: int) -> list[float]:
        events.extend((_event(), _event()) for _ in range(count - len(events)))
        with torch.cuda.stream(stream):
            timed.launch()  # else the first sample starts from an empty queue and contains its own launch
            for index, (start, stop) in enumerate(events[:count]):
                if flush is not None:
                    flush.zero_()
                start.record(stream)
                for _ in range(inner):
                    timed.launch()
                stop.record(stream)
                if index >= DEPTH - 1:
                    events[index - DEPTH + 1][1].synchronize()
            stream.synchronize()
        return [start.elapsed_time(stop) / inner for start, stop in events[:count]]

    return block


def runs_per_sample(timed: TimedRun) -> int:
    """Return how many runs a sample spans: at least SAMPLE_MS of short ones, else one."""
    each = statistics.median(gpu_block(timed, inner=1, flush=None)(10))
    return math.ceil(SAMPLE_MS / max(each, 1e-4)) if each < SHORT_MS else 1


def end_to_end_block(timed: TimedRun, inputs: Tensors) -> Block:
    """Return a block of whole runs by the host's clock: pinned inputs to the device, run, outputs to pinned memory."""
    run = timed.run
    host = {name: pinned_like(tensor).copy_(tensor) for name, tensor in inputs.items()}
    back = {name: pinned_like(tensor) for name, tensor in run.outputs.items()}

    def once() -> float:
        started = time.perf_counter()
        for name, tensor in host.items():
            run.inputs[name].copy_(tensor, non_blocking=True)
        timed.launch()
        for name, tensor in run.outputs.items():
            back[name].copy_(tensor, non_blocking=True)
        run.stream.synchronize()
        return (time.perf_counter() - started) * 1e3

    return _on_stream(run, once)


def enqueue_block(run: BoundRun) -> Block:
    """Return a block of launches without a CUDA graph, by the host's clock until the launch returns."""

    def once() -> float:
        started = time.perf_counter()
        run.launch()
        spent = (time.perf_counter() - started) * 1e3
        run.stream.synchronize()
        return spent

    return _on_stream(run, once)


def flush_buffer(device: torch.device) -> torch.Tensor:
    """Return memory twice as large as the L2 cache: writing it evicts everything else."""
    size = 2 * int(torch.cuda.get_device_properties(device).L2_cache_size)
    return torch.empty(size, dtype=torch.uint8, device=device)


def pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return page-locked host memory of a tensor's shape and dtype."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


def _run_plainly(run: BoundRun) -> None:
    with torch.cuda.stream(run.stream):
        for _ in range(PLAIN_RUNS):
            run.launch()
        run.stream.synchronize()


def _on_stream(run: BoundRun, once: Callable[[], float]) -> Block:
    def block(count: int) -> list[float]:
        with torch.cuda.stream(run.stream):
            return [once() for _ in range(count)]

    return block


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
