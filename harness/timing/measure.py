"""The time of one run of a loaded engine or PyTorch module, measured in one process.

There are three figures: GPU time (between CUDA events around the launch, with two launches queued, which hides their
cost), end to end (host clock, with copies, one run at a time) and enqueue time (host clock, until the launch returns).
On the CPU there is one: the time of a run, as end to end.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.backends import BenchSession, BoundRun, Session
from harness.errors import NotJudged, UsageError
from harness.machine import ClockLock, open_gpu
from harness.records import ProcessRun, Summary
from harness.sentences import Sentence
from harness.structure import flatten_outputs
from harness.timing import cuda
from harness.timing.median import host_ms
from harness.timing.monitor import GpuMonitor
from harness.timing.sampling import ON_CPU, ON_GPU, Block, Sampling, block_size, sample, sample_secondary, warm_up
from harness.timing.summary import summarise
from harness.timing.throughput import STREAMS, gpu_throughput, host_throughput

Tensors = Mapping[str, torch.Tensor]
LAUNCH_BOUND = 0.8
"""Enqueue time over GPU time above which the GPU waits for the host (trtexec warns there too)."""
MOST_VARIATION = 0.025
"""Coefficient of variation above which a sample is called unstable; trtexec's own limit."""
_OWN_STREAM = Sentence("own_stream")
_NO_GPU = Sentence("no_gpu_to_capture")


@dataclass(frozen=True, kw_only=True)
class TimingOptions:
    """How one process times a run, and which other processes it knows."""

    device: str
    """``cuda`` or ``cpu``."""
    graph: bool
    """Replay a CUDA graph; ``ProcessRun.graph_failure`` records why there is none."""
    l2: str = "warm"
    """The GPU's L2 cache before each run: ``warm`` or ``flush``."""
    throughput: bool = True
    """Measure the runs per second under load as well."""
    known_processes: Sequence[int] = ()
    """Ids of processes that may use the GPU too: the parent."""
    free_bytes: int | None = None
    """GPU memory that was free before anything was loaded; None where it is not known."""
    lock_mhz: int | None = None
    """Clock to lock the GPU's multiprocessors at; None does not lock it."""
    sampling: Sampling | None = None
    """How long to measure; None for ``ON_GPU`` or ``ON_CPU``."""
    began: float | None = None
    """When the process started, on ``time.perf_counter``, without the time that it waited; None where not known."""


def measure_engine(session: Session, inputs: Tensors, options: TimingOptions, *, load_ms: float) -> ProcessRun:
    """Time a loaded engine on these inputs; ``load_ms`` is the time of loading, for the record.

    Raises UsageError for a flush on the CPU, NotJudged for a flush on a GPU backend without BenchSession, and what the
    session raises.
    """
    device = _device(options)
    if device.type == "cuda" and isinstance(session, BenchSession):
        return _on_gpu(lambda: session.bind(inputs), inputs, device, options, load_ms)
    if options.l2 == "flush":
        raise NotJudged(
            "this backend copies and launches by itself, so the L2 cache cannot be flushed before a run; leave "
            "out --l2 flush"
        )
    on_host = {name: tensor.cpu() for name, tensor in inputs.items()}

    def run() -> Tensors:
        return {name: tensor.cpu() for name, tensor in session.run(on_host).items()}

    return _on_host(run, device, options, load_ms)


def measure_module(
    call: Callable[[Tensors], Any], inputs: Tensors, options: TimingOptions, *, load_ms: float
) -> ProcessRun:
    """Time a PyTorch function of named inputs in inference mode, as :func:`measure_engine` times an engine.

    The inputs have the dtypes that the function takes. Raises what the function raises.
    """
    device = _device(options)
    if device.type == "cuda":
        return _on_gpu(lambda: cuda.ModuleRun(call, inputs, device), inputs, device, options, load_ms)

    def run() -> Any:
        with torch.inference_mode():
            return call(inputs)

    return _on_host(run, device, options, load_ms)


def _device(options: TimingOptions) -> torch.device:
    device = torch.device(options.device)
    if options.l2 not in ("warm", "flush"):
        raise UsageError(f"the L2 cache is either warm or flush, not {options.l2!r}")
    if options.l2 == "flush" and device.type != "cuda":
        raise UsageError("only a GPU's L2 cache can be flushed; leave out --l2 flush on the CPU")
    return device


def _on_gpu(
    bind: Callable[[], BoundRun], inputs: Tensors, device: torch.device, options: TimingOptions, load_ms: float
) -> ProcessRun:
    started, sampling = _now(), options.sampling or ON_GPU
    with contextlib.ExitStack() as stack:
        gpu = stack.enter_context(open_gpu(device))
        lock = stack.enter_context(gpu.lock_clocks(options.lock_mhz))
        stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.inference_mode())
        timed = cuda.make_timed_run(bind, graph=options.graph)
        stack.callback(timed.run.close)
        taken = _bytes_taken(options, device)
        monitor = GpuMonitor(gpu, known=options.known_processes)
        flush = cuda.flush_buffer(device) if options.l2 == "flush" else None
        inner = cuda.runs_per_sample(timed) if flush is None else 1
        first_ms = _since_ms(options.began)
        gpu_ms, warm_ms, stable = _sampled(cuda.gpu_block(timed, inner=inner, flush=flush), monitor, sampling)
        end_to_end = summarise(sample_secondary(cuda.end_to_end_block(timed, inputs), sampling))
        enqueue = summarise(sample_secondary(cuda.enqueue_block(timed.run), sampling))
        per_second, problems = None, list[str]()
        if options.throughput:
            per_second, problems = gpu_throughput(
                bind, timed, inner=inner, device=device, seconds=sampling.throughput_s
            )
        not_finite = _not_finite(timed.run.outputs)
        monitor.observe()
    if not timed.captured and enqueue.median > LAUNCH_BOUND * gpu_ms.median:
        problems.append(Sentence("launch_bound"))
    return ProcessRun(
        started_at=started,
        gpu_ms=gpu_ms,
        end_to_end_ms=end_to_end,
        enqueue_ms=enqueue,
        throughput_per_s=per_second,
        streams=STREAMS if options.throughput else 1,
        graph=timed.captured,
        graph_failure=timed.failure,
        inner=inner,
        warm_up_ms=warm_ms,
        load_ms=load_ms,
        first_sample_ms=first_ms,
        device_bytes=taken,
        locked_mhz=lock.mhz,
        conditions=monitor.conditions(),
        flags=(*_flags(lock, not_finite, gpu_ms, monitor, stable=stable, on_gpu=True), *problems),
        invalid=tuple(monitor.invalid()),
    )


def _on_host(run: Callable[[], Any], device: torch.device, options: TimingOptions, load_ms: float) -> ProcessRun:
    """Time whole runs by the host's clock: on the CPU, and for a GPU backend without BenchSession."""
    started, on_gpu = _now(), device.type == "cuda"
    sampling = options.sampling or (ON_GPU if on_gpu else ON_CPU)

    def block(count: int) -> list[float]:
        return [host_ms(run) for _ in range(count)]

    not_finite = _not_finite(flatten_outputs(run()))
    with open_gpu(device) as gpu, gpu.lock_clocks(options.lock_mhz) as lock:
        monitor = GpuMonitor(gpu, known=options.known_processes)
        first_ms = _since_ms(options.began)
        end_to_end, warm_ms, stable = _sampled(block, monitor, sampling)
        taken = _bytes_taken(options, device)
        per_second = host_throughput(run, sampling.throughput_s) if options.throughput else None
        monitor.observe()
    return ProcessRun(
        started_at=started,
        gpu_ms=None,
        end_to_end_ms=end_to_end,
        enqueue_ms=None,
        throughput_per_s=per_second,
        streams=STREAMS if options.throughput else 1,
        graph_failure=(_OWN_STREAM if on_gpu else _NO_GPU) if options.graph else "",
        warm_up_ms=warm_ms,
        load_ms=load_ms,
        first_sample_ms=first_ms,
        device_bytes=taken,
        locked_mhz=lock.mhz,
        conditions=monitor.conditions(),
        flags=tuple(_flags(lock, not_finite, end_to_end, monitor, stable=stable, on_gpu=on_gpu)),
        invalid=tuple(monitor.invalid()),
    )


def _sampled(block: Block, monitor: GpuMonitor, sampling: Sampling) -> tuple[Summary, float, bool]:
    """Return the figure that the verdict uses, the warm-up time in ms, and whether the device got warm."""
    size = block_size(block, sampling)
    warm_ms, stable = warm_up(block, size, monitor, sampling)
    return summarise(sample(block, size, monitor, sampling)), warm_ms, stable


def _since_ms(began: float | None) -> float | None:
    return None if began is None else (time.perf_counter() - began) * 1e3


def _bytes_taken(options: TimingOptions, device: torch.device) -> int | None:
    if options.free_bytes is None or device.type != "cuda":
        return None
    return options.free_bytes - int(torch.cuda.mem_get_info(device)[0])


def _not_finite(outputs: Tensors) -> list[str]:
    """Return a flag that names the outputs without any finite number."""
    not_finite = [name for name, tensor in outputs.items() if tensor.numel() and not tensor.float().isfinite().any()]
    return [Sentence("no_finite_number", not_finite=list(not_finite))] if not_finite else []


def _flags(
    lock: ClockLock, not_finite: Sequence[str], summary: Summary, monitor: GpuMonitor, *, stable: bool, on_gpu: bool
) -> list[str]:
    """Return the flags of this process, each a sentence."""
    flags = [
        *([lock.problem] if lock.problem else []),
        *not_finite,
        *([] if stable else [Sentence("warm_up_unstable")]),
    ]
    if not summary.cv <= MOST_VARIATION:
        flags.append("unstable")
    if on_gpu and monitor.gpu.reason:
        flags.append(Sentence("clocks_unknown", reason=monitor.gpu.reason))
    return flags + monitor.flags()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
