"""When a device is warm and when a sample is large enough.

Samples are taken in blocks of 50 ms. Between blocks the GPU is asked what it is doing: a block during which the
hardware slowed itself down is discarded.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.timing.monitor import GpuMonitor, relative_range

Block = Callable[[int], list[float]]
"""Takes so many samples and returns them, in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How long is sampled, in seconds, and what is enough; ``*_cap_s`` ends it whatever was reached."""

    warm_up_s: float = 0.2
    """At least so long, before anything counts."""
    warm_up_cap_s: float = 2.0
    sample_s: float = 0.6
    """At least so long for the figure that verdicts are about."""
    sample_cap_s: float = 2.0
    secondary_s: float = 0.15
    """For each figure that no verdict is about."""
    throughput_s: float = 0.4
    block_s: float = 0.05
    fewest: int = 100
    """Samples, unless ``sample_cap_s`` ends before."""
    stable_within: float = 0.005
    """A device is warm once the medians of the last five blocks span no more than this, relative."""
    half_width: float = 0.0025
    """A sample is large enough once the 95 % interval of its median is no wider than this to each side, relative."""


ON_GPU = Sampling()
ON_CPU = Sampling(warm_up_cap_s=0.6, sample_s=0.6, sample_cap_s=1.2, fewest=30, stable_within=0.03)
"""Other programs share the CPU, so that more time does not make the interval as narrow as on a GPU."""
LEAST = 5
"""Samples that are taken however long they last."""
STABLE_BLOCKS = 5
CLOCK_STABLE = 0.01
"""A clock that moves no more than this, relative, over the last blocks stands still."""
BACK_OFF_S = 0.05
"""Pause after the first discarded block; it doubles with every further one."""


def block_size(block: Block, sampling: Sampling) -> int:
    """Return how many samples last one block."""
    for count in (1, LEAST):  # the first run may be a cold one; a run that fills a block by itself is not repeated
        started = time.perf_counter()
        block(count)
        each = (time.perf_counter() - started) / count
        if each >= sampling.block_s:
            return 1
    return max(1, math.ceil(sampling.block_s / max(each, 1e-9)))


def warm_up(block: Block, size: int, monitor: GpuMonitor, sampling: Sampling) -> tuple[float, bool]:
    """Run until medians and clock stand still; return how long that took in milliseconds, and whether they did."""
    started = time.perf_counter()
    medians: list[float] = []
    clocks: list[float | None] = []
    while True:
        medians.append(statistics.median(block(size)))
        clocks.append(monitor.observe().sm_mhz)
        spent = time.perf_counter() - started
        last = slice(-STABLE_BLOCKS, None)
        still = relative_range(medians[last]) <= sampling.stable_within and relative_range(clocks[last]) <= CLOCK_STABLE
        stable = len(medians) >= STABLE_BLOCKS and still
        if (stable and spent >= sampling.warm_up_s) or spent >= sampling.warm_up_cap_s:
            return spent * 1e3, stable


def sample(block: Block, size: int, monitor: GpuMonitor, sampling: Sampling) -> list[float]:
    """Return samples in milliseconds: until the interval of their median is narrow, or ``sample_cap_s`` has passed.

    When the GPU slows itself down too often the discarded blocks are all there is, and are returned;
    ``monitor.invalid()`` then says so.
    """
    started = time.perf_counter()
    kept: list[float] = []
    discarded: list[float] = []
    pause = BACK_OFF_S
    monitor.start_block()
    while True:
        samples = block(size)
        if monitor.end_block():
            kept += samples
        else:
            discarded += samples
            time.sleep(pause)
            pause *= 2
        spent = time.perf_counter() - started
        enough = len(kept) >= sampling.fewest and spent >= sampling.sample_s and half_width(kept) <= sampling.half_width
        at_cap = spent >= sampling.sample_cap_s and len(kept) >= LEAST
        if enough or at_cap or monitor.too_many_discarded:
            return kept or discarded


def sample_secondary(block: Block, sampling: Sampling) -> list[float]:
    """Return samples of a figure that no verdict is about, in milliseconds: for a fixed time, on a warm device."""
    size = block_size(block, sampling)
    end = time.perf_counter() + sampling.secondary_s
    samples = block(max(LEAST, min(size, sampling.fewest)))
    while time.perf_counter() < end:
        samples += block(size)
    return samples


def half_width(samples: Sequence[float]) -> float:
    """Return half the 95 % interval of the median over the median, from order statistics.

    The ranks are those of the normal approximation to the binomial, n / 2 -+ 1.96 sqrt(n) / 2.
    """
    ordered = sorted(samples)
    reach = 1.96 * math.sqrt(len(ordered)) / 2
    low = max(0, math.floor(len(ordered) / 2 - reach))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + reach))
    middle = statistics.median(ordered)
    return (ordered[high] - ordered[low]) / 2 / middle if middle else math.inf
