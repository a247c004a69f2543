"""How long one run of a loaded engine takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from harness.backends.base import Session

Measure = Callable[[Session, Mapping[str, torch.Tensor]], float]
WARM_UP_S = 0.2
MEASURE_S = 0.5
FEWEST = 10


def median_ms(session: Session, inputs: Mapping[str, torch.Tensor]) -> float:
    """Return the median time of one run in milliseconds, after a warm-up: inputs bound, engine run, outputs made.

    On a GPU it is the time between CUDA events around the run, so work queued before it does not count.
    """
    on_gpu = torch.cuda.is_available() and any(tensor.is_cuda for tensor in inputs.values())
    measure = _gpu_ms if on_gpu else _cpu_ms
    _sample(session, inputs, WARM_UP_S, measure)
    return statistics.median(_sample(session, inputs, MEASURE_S, measure))


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
    started = time.perf_counter()
    session.run(inputs)
    return (time.perf_counter() - started) * 1e3
