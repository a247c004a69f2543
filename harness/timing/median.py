"""The median time of one run, where a quick figure is enough and no verdict is about it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from harness.backends import Session

WARM_UP_S = 0.2
MEASURE_S = 0.5
FEWEST = 10
"""Runs, however long they last."""


def median_ms(session: Session, inputs: Mapping[str, torch.Tensor]) -> float:
    """Return the median time of one run in milliseconds, after a warm-up: inputs bound, engine run, outputs made.

    On a GPU it is the time between CUDA events around the run, so work queued before it does not count.
    """

    def run() -> None:
        session.run(inputs)

    on_gpu = torch.cuda.is_available() and any(tensor.is_cuda for tensor in inputs.values())
    once = between_events_ms if on_gpu else host_ms
    _sample(run, WARM_UP_S, once)
    return statistics.median(_sample(run, MEASURE_S, once))


def between_events_ms(run: Callable[[], object]) -> float:
    """Return the milliseconds between CUDA events around a run on the current stream."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop))


def host_ms(run: Callable[[], object]) -> float:
    """Return how many milliseconds a call takes by the host's clock."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def _sample(run: Callable[[], object], seconds: float, once: Callable[[Callable[[], object]], float]) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < FEWEST:
        times.append(once(run))
    return times
