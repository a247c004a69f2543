"""Quick medians that no verdict is based on: of one run, and of every kernel of an engine."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch

from harness.backends import ProfileSession, Session
from harness.errors import NotJudged
from harness.sentences import Sentence

WARM_UP_S = 0.2
MEASURE_S = 0.5
FEWEST = 10
"""Runs that are timed at least."""


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


def kernel_times(session: Session, inputs: Mapping[str, torch.Tensor], *, runs: int = 20) -> list[tuple[str, float]]:
    """Return the median milliseconds of every kernel (or node) over the runs, in execution order.

    A name that a run has twice stays twice. Raises NotJudged where the backend has no profiler, or its profiles of
    several runs do not name the same kernels.
    """
    if not isinstance(session, ProfileSession):
        raise NotJudged(Sentence("no_profiler"))
    profiles = session.profile(inputs, runs=runs)
    if not profiles or not profiles[0]:
        raise NotJudged(Sentence("no_kernel_reported"))
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for profile in profiles:
        for key, ms in _numbered(profile):
            times[key].append(ms)
    if uneven := next((name for (name, _), found in times.items() if len(found) != len(profiles)), None):
        raise NotJudged(Sentence("kernels_uneven", uneven=uneven))
    return [(name, statistics.median(found)) for (name, _), found in times.items()]


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


def _numbered(profile: Sequence[tuple[str, float]]) -> list[tuple[tuple[str, int], float]]:
    """Return the times by name and occurrence: a kernel in a loop has one name and several times."""
    seen: dict[str, int] = defaultdict(int)
    numbered = []
    for name, ms in profile:
        numbered.append(((name, seen[name]), ms))
        seen[name] += 1
    return numbered
