"""How long one run of a loaded engine or PyTorch module takes, measured in one process.

Three figures that are never mixed: GPU time (between CUDA events around the launch, launches queued two deep so that
their cost is hidden), end to end (the host's clock, with the copies, one run at a time) and enqueue time (how long a
launch keeps the host busy). On the CPU there is one: the time of a run, as end to end.
"""

from __future__ import annotations

import contextlib
import datetime
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.backends import BenchSession, BoundRun, ProfileSession, Session
from harness.errors import NotJudged, UsageError, first_line
from harness.graph import named_outputs
from harness.latency import cuda
from harness.latency.sampling import (
    MOST_VARIATION,
    ON_CPU,
    ON_GPU,
    Effort,
    Watch,
    block_size,
    sample,
    sample_aside,
    warm_up,
)
from harness.latency.spread import summarise
from harness.machine import open_gpu
from harness.records import ProcessRun, Summary

Tensors = Mapping[str, torch.Tensor]
Measure = Callable[[Session, Mapping[str, torch.Tensor]], float]
WARM_UP_S = 0.2
MEASURE_S = 0.5
FEWEST = 10
STREAMS = 2
"""Contexts and streams that make the load for the throughput; threads on the CPU."""
LAUNCH_BOUND = 0.8
"""Enqueue time over GPU time above which the GPU waits for the host (trtexec warns there too)."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a process knows of its place in a run of several."""

    known: Sequence[int] = ()
    """Ids of processes that may hold the GPU too: the one that started this one."""
    free_bytes: int | None = None
    """GPU memory that was free before anything was loaded; None where nobody looked."""
    lock_mhz: int | None = None
    """Clock to lock the GPU's multiprocessors at; None leaves them alone."""
    effort: Effort | None = None
    """How long to measure; None for the usual."""


ALONE = Surroundings()


def measure_engine(
    session: Session,
    inputs: Mapping[str, torch.Tensor],
    *,
    graph: bool,
    l2: str,
    load_ms: float,
    on_device: str,
    throughput: bool = True,
    surroundings: Surroundings = ALONE,
) -> ProcessRun:
    """Time a loaded engine on these inputs; ``on_device`` is ``cuda`` or ``cpu``, ``l2`` is ``warm`` or ``flush``.

    A CUDA graph that is asked for and cannot be had is recorded in ``graph_failure``. Raises UsageError for a flush on
    the CPU, NotJudged for one before runs that a GPU backend launches by itself, and what the session raises.
    """
    asked = _Asked(graph=graph, l2=l2, load_ms=load_ms, throughput=throughput, surroundings=surroundings)
    device = _device(on_device, l2)
    if device.type == "cuda" and isinstance(session, BenchSession):
        return _on_gpu(lambda: session.bind(inputs), inputs, device, asked)
    if l2 == "flush":
        raise NotJudged(
            "this backend copies and launches by itself, so that the L2 cache cannot be flushed before a run; leave "
            "out --l2 flush"
        )
    on_host = {name: tensor.cpu() for name, tensor in inputs.items()}

    def run() -> Tensors:
        return {name: tensor.cpu() for name, tensor in session.run(on_host).items()}

    return _on_host(run, device, asked, "this backend launches on a stream of its own, which nobody can capture")


def measure_module(
    call: Callable[[Mapping[str, torch.Tensor]], Any],
    inputs: Mapping[str, torch.Tensor],
    *,
    graph: bool,
    l2: str,
    load_ms: float,
    on_device: str,
    throughput: bool = True,
    surroundings: Surroundings = ALONE,
) -> ProcessRun:
    """Time a PyTorch function of named inputs under inference mode, as :func:`measure_engine` does an engine.

    The inputs have the dtypes the function takes. Raises what the function raises.
    """
    asked = _Asked(graph=graph, l2=l2, load_ms=load_ms, throughput=throughput, surroundings=surroundings)
    device = _device(on_device, l2)
    if device.type == "cuda":
        return _on_gpu(lambda: cuda.CallRun(call, inputs, device), inputs, device, asked)

    def run() -> Any:
        with torch.inference_mode():
            return call(inputs)

    return _on_host(run, device, asked, "")


def kernel_times(session: Session, inputs: Mapping[str, torch.Tensor], *, runs: int = 20) -> list[tuple[str, float]]:
    """Return the median milliseconds of every kernel (or node) over the runs, in execution order.

    A name that a run has twice stays twice. Raises NotJudged where the backend has no profiler, or its profiles of
    several runs do not name the same kernels.
    """
    if not isinstance(session, ProfileSession):
        raise NotJudged("this backend has no profiler; the time of single kernels is known of trt, rtx and ort-*")
    profiles = session.profile(inputs, runs=runs)
    if not profiles or not profiles[0]:
        raise NotJudged("the profiler reported no kernel")
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for profile in profiles:
        for key, ms in _numbered(profile):
            times[key].append(ms)
    if uneven := next((name for (name, _), found in times.items() if len(found) != len(profiles)), None):
        raise NotJudged(f"the profiler reported {uneven!r} in some runs and not in others: their times have no median")
    return [(name, statistics.median(found)) for (name, _), found in times.items()]


def median_ms(session: Session, inputs: Mapping[str, torch.Tensor]) -> float:
    """Return the median time of one run in milliseconds, after a warm-up: inputs bound, engine run, outputs made.

    On a GPU it is the time between CUDA events around the run, so work queued before it does not count.
    """
    on_gpu = torch.cuda.is_available() and any(tensor.is_cuda for tensor in inputs.values())
    measure = _gpu_ms if on_gpu else _cpu_ms
    _sample(session, inputs, WARM_UP_S, measure)
    return statistics.median(_sample(session, inputs, MEASURE_S, measure))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    graph: bool
    l2: str
    load_ms: float
    throughput: bool
    surroundings: Surroundings


def _device(name: str, l2: str) -> torch.device:
    device = torch.device(name)
    if l2 not in ("warm", "flush"):
        raise UsageError(f"the L2 cache is either warm or flush, not {l2!r}")
    if l2 == "flush" and device.type != "cuda":
        raise UsageError("only a GPU's L2 cache can be flushed; leave out --l2 flush on the CPU")
    return device


def _on_gpu(
    bind: Callable[[], BoundRun], inputs: Mapping[str, torch.Tensor], device: torch.device, asked: _Asked
) -> ProcessRun:
    started = _now()
    around, effort = asked.surroundings, asked.surroundings.effort or ON_GPU
    with contextlib.ExitStack() as stack:
        gpu = stack.enter_context(open_gpu(device))
        flags = [problem] if (problem := stack.enter_context(gpu.lock_clocks(around.lock_mhz))) else []
        stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.inference_mode())
        ready = cuda.make_ready(bind, graph=asked.graph)
        stack.callback(ready.run.close)
        taken = None if around.free_bytes is None else around.free_bytes - torch.cuda.mem_get_info(device)[0]
        watch = Watch(gpu, known=around.known)
        flush = cuda.flush_buffer(device) if asked.l2 == "flush" else None
        inner = cuda.runs_per_sample(ready) if flush is None else 1
        block = cuda.gpu_block(ready, inner=inner, flush=flush)
        size = block_size(block, effort)
        warm_ms, stable = warm_up(block, size, watch, effort)
        gpu_ms = summarise(sample(block, size, watch, effort))
        end_to_end = _aside(cuda.end_to_end_block(ready, inputs), effort)
        enqueue = _aside(cuda.enqueue_block(ready.run), effort)
        per_second, problems = _load(bind, ready, inner, device, effort) if asked.throughput else (None, [])
        not_finite = _not_finite(ready.run.outputs)
        watch.look()
    if not ready.captured and enqueue.median > LAUNCH_BOUND * gpu_ms.median:
        problems.append("launch-bound: the host takes as long to launch a run as the GPU to run it")
    return ProcessRun(
        started_at=started,
        gpu_ms=gpu_ms,
        end_to_end_ms=end_to_end,
        enqueue_ms=enqueue,
        throughput_per_s=per_second,
        streams=STREAMS if asked.throughput else 1,
        graph=ready.captured,
        graph_failure=ready.failure,
        inner=inner,
        warm_up_ms=warm_ms,
        load_ms=asked.load_ms,
        device_bytes=taken,
        conditions=watch.conditions(),
        flags=(*flags, *not_finite, *_flags(gpu_ms, watch, stable=stable, on_gpu=True), *problems),
        invalid=tuple(watch.invalid()),
    )


def _on_host(run: Callable[[], Any], device: torch.device, asked: _Asked, why_no_graph: str) -> ProcessRun:
    """Time whole runs by the host's clock: on the CPU, and where a backend does not let others launch."""
    started = _now()
    on_gpu = device.type == "cuda"
    around, effort = asked.surroundings, asked.surroundings.effort or (ON_GPU if on_gpu else ON_CPU)

    def block(count: int) -> list[float]:
        return [_host_ms(run) for _ in range(count)]

    not_finite = _not_finite(named_outputs(run()))
    with open_gpu(device) as gpu, gpu.lock_clocks(around.lock_mhz) as problem:
        watch = Watch(gpu, known=around.known)
        size = block_size(block, effort)
        warm_ms, stable = warm_up(block, size, watch, effort)
        taken = around.free_bytes - torch.cuda.mem_get_info(device)[0] if on_gpu and around.free_bytes else None
        end_to_end = summarise(sample(block, size, watch, effort))
        per_second = _host_load(run, effort) if asked.throughput else None
        watch.look()
    return ProcessRun(
        started_at=started,
        gpu_ms=None,
        end_to_end_ms=end_to_end,
        enqueue_ms=None,
        throughput_per_s=per_second,
        streams=STREAMS if asked.throughput else 1,
        graph_failure=(why_no_graph if on_gpu else "there is no GPU to capture a CUDA graph on") if asked.graph else "",
        warm_up_ms=warm_ms,
        load_ms=asked.load_ms,
        device_bytes=taken,
        conditions=watch.conditions(),
        flags=(*([problem] if problem else []), *not_finite, *_flags(end_to_end, watch, stable=stable, on_gpu=on_gpu)),
        invalid=tuple(watch.invalid()),
    )


def _load(
    bind: Callable[[], BoundRun], first: cuda.Ready, inner: int, device: torch.device, effort: Effort
) -> tuple[float | None, list[str]]:
    """Return the runs per second of several contexts at once, and what kept it from being measured."""
    with contextlib.ExitStack() as stack:
        readies = [first]
        try:
            while len(readies) < STREAMS:
                readies.append(cuda.make_ready(bind, graph=first.captured))
                stack.callback(readies[-1].run.close)
            per_second = cuda.runs_per_second(readies, effort.throughput_s, inner=inner, device=device)
        except (NotJudged, torch.cuda.OutOfMemoryError) as error:
            return None, [f"no throughput: {first_line(error)}"]
    uneven = any(ready.captured != first.captured for ready in readies)
    return per_second, ["the throughput mixes replayed and launched runs"] if uneven else []


def _not_finite(outputs: Tensors) -> list[str]:
    """Return which outputs hold no finite number at all: the time of such a run is that of nothing useful."""
    useless = [name for name, tensor in outputs.items() if tensor.numel() and not tensor.float().isfinite().any()]
    return [f"no finite number in the output {', '.join(useless)}"] if useless else []


def _host_load(run: Callable[[], Any], effort: Effort) -> float:
    def keep_busy(end: float) -> int:
        count = 0
        while time.perf_counter() < end or not count:
            run()
            count += 1
        return count

    return cuda.count_in_threads([keep_busy] * STREAMS, effort.throughput_s)


def _flags(summary: Summary, watch: Watch, *, stable: bool, on_gpu: bool) -> list[str]:
    flags = [] if stable else ["warm-up unstable"]
    if not summary.cv <= MOST_VARIATION:
        flags.append("unstable")
    if on_gpu and watch.gpu.reason:
        flags.append(f"clocks, throttling and other processes are not known: {watch.gpu.reason}")
    return flags + watch.flags()


def _aside(block: Callable[[int], list[float]], effort: Effort) -> Summary:
    return summarise(sample_aside(block, block_size(block, effort), effort))


def _numbered(profile: Sequence[tuple[str, float]]) -> list[tuple[tuple[str, int], float]]:
    """Return the times by name and occurrence: a kernel in a loop has one name and several times."""
    seen: dict[str, int] = defaultdict(int)
    numbered = []
    for name, ms in profile:
        numbered.append(((name, seen[name]), ms))
        seen[name] += 1
    return numbered


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _sample(session: Session, inputs: Mapping[str, torch.Tensor], seconds: float, measure: Measure) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < FEWEST:
        times.append(measure(session, inputs))
    return times


def _gpu_ms(session: Session, inputs: Mapping[str, torch.Tensor]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    session.run(inputs)
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop))


def _cpu_ms(session: Session, inputs: Mapping[str, torch.Tensor]) -> float:
    return _host_ms(lambda: session.run(inputs))


def _host_ms(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3
