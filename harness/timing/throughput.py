"""Runs per second under load: several contexts on a GPU, several threads on the CPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from harness.backends import BoundRun
from harness.errors import NotJudged, first_line
from harness.sentences import Sentence
from harness.timing.cuda import DEPTH, TimedRun, make_timed_run

STREAMS = 2
"""Contexts, each on a stream of its own; threads on the CPU."""


def gpu_throughput(
    bind: Callable[[], BoundRun], first: TimedRun, *, inner: int, device: torch.device, seconds: float
) -> tuple[float | None, list[str]]:
    """Return the runs per second of several contexts at once (None where it failed), and flags on the figure."""
    with contextlib.ExitStack() as stack:
        timed = [first]
        try:
            while len(timed) < STREAMS:
                timed.append(make_timed_run(bind, graph=first.captured))
                stack.callback(timed[-1].run.close)
            workers = [partial(_keep_gpu_busy, one, inner, device) for one in timed]
            per_second = _count_in_threads(workers, seconds)
        except (NotJudged, torch.cuda.OutOfMemoryError) as error:
            return None, [Sentence("no_throughput", said=first_line(error))]
    uneven = any(one.captured != first.captured for one in timed)
    return per_second, [Sentence("throughput_mixed")] if uneven else []


def host_throughput(run: Callable[[], object], seconds: float) -> float:
    """Return the runs per second of several threads together, each with at least one run."""

    def keep_busy(end: float) -> int:
        count = 0
        while time.perf_counter() < end or not count:
            run()
            count += 1
        return count

    return _count_in_threads([keep_busy] * STREAMS, seconds)


def _keep_gpu_busy(timed: TimedRun, inner: int, device: torch.device, end: float) -> int:
    """Launch until ``end``, a time of ``perf_counter``; return the number of finished runs."""
    count = 0
    stream, marks = timed.run.stream, [torch.cuda.Event() for _ in range(DEPTH)]  # type: ignore[no-untyped-call]
    with torch.cuda.device(device), torch.inference_mode(), torch.cuda.stream(stream):
        while time.perf_counter() < end:
            mark = marks[count // inner % DEPTH]
            if count >= DEPTH * inner:
                mark.synchronize()
            for _ in range(inner):
                timed.launch()
            mark.record(stream)
            count += inner
        stream.synchronize()
    return count


def _count_in_threads(workers: Sequence[Callable[[float], int]], seconds: float) -> float:
    """Run every worker in a thread until its argument, a time of ``perf_counter``; return their counts per second."""
    with ThreadPoolExecutor(len(workers)) as pool:
        started = time.perf_counter()
        futures = [pool.submit(worker, started + seconds) for worker in workers]
        total = sum(future.result() for future in futures)
        return total / (time.perf_counter() - started)
