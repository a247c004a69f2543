"""When a device is warm and when a sample is large enough.

Samples are taken in blocks of 50 ms. The state of the GPU is read between blocks: a block during which the hardware
slowed itself down is discarded.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.timing.monitor import GpuMonitor, relative_range

Block = Callable[[int], list[float]]
"""Takes this number of samples and returns them, in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How long to sample, in seconds, and the criteria that end it; ``*_cap_s`` ends it without them."""

    warm_up_s: float = 0.2
    """At least; nothing before counts."""
    warm_up_cap_s: float = 2.0
    sample_s: float = 0.6
    """At least, for the figure that the verdict uses."""
    sample_cap_s: float = 2.0
    secondary_s: float = 0.15
    """For each other figure."""
    throughput_s: float = 0.4
    block_s: float = 0.05
    fewest: int = 100
    """Samples, unless ``sample_cap_s`` ends it earlier."""
    stable_within: float = 0.005
    """Largest relative range of the medians of the last five blocks on a warm device."""
    half_width: float = 0.0025
    """Largest half of the 95 % interval of the median of a sample that is large enough, relative."""


ON_GPU = Sampling()
ON_CPU = Sampling(warm_up_cap_s=0.6, sample_s=0.6, sample_cap_s=1.2, fewest=30, stable_within=0.03)
"""Other programs share the CPU, so more time does not make the interval as narrow as on a GPU."""
LEAST = 5
"""Samples that are always taken."""
STABLE_BLOCKS = 5
CLOCK_STABLE = 0.01
"""Largest relative range of a stable clock over the last blocks."""
BACK_OFF_S = 0.05
"""Pause after the first discarded block; each further one doubles it."""


def block_size(block: Block, sampling: Sampling) -> int:
    """Return how many samples fill one block."""
    for count in (1, LEAST):  # the first run may be cold; a run as long as a block is not repeated
        started = time.perf_counter()
        block(count)
        each = (time.perf_counter() - started) / count
        if each >= sampling.block_s:
            return 1
    return max(1, math.ceil(sampling.block_s / max(each, 1e-9)))


def warm_up(block: Block, size: int, monitor: GpuMonitor, sampling: Sampling) -> tuple[float, bool]:
    """Run until medians and clock are stable; return the time in milliseconds, and whether they became stable."""
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

    When too many blocks are discarded and none was kept, those are returned; ``monitor.invalid()`` then says so.
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
    """Return samples in milliseconds, taken for ``secondary_s`` on a warm device; no verdict uses them."""
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
