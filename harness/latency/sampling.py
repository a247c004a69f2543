"""When is a device warm, when is a sample large enough, and which part of it does not count.

Samples are taken in blocks of 50 ms. Between blocks, never during one, the GPU is asked what it is doing: a block
during which the hardware slowed itself down is thrown away.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from harness.machine import POWER_CAP, Gpu, Snapshot, growth
from harness.records import Conditions

Block = Callable[[int], list[float]]
"""Takes so many samples and returns them, in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long is measured, in seconds; ``*_cap_s`` is where patience ends."""

    warm_up_s: float = 0.2
    warm_up_cap_s: float = 2.0
    sample_s: float = 0.6
    """At least so long for the figure that verdicts are about."""
    sample_cap_s: float = 2.0
    aside_s: float = 0.15
    """For each figure that no verdict is about."""
    throughput_s: float = 0.4
    block_s: float = 0.05
    fewest: int = 100
    """Samples, unless patience ends before."""
    stable_within: float = 0.005
    """A device is warm once the medians of the last five blocks span no more than this, relative."""
    half_width: float = 0.0025
    """A sample is large enough once the 95 % interval of its median is no wider than this to each side, relative."""


ON_GPU = Effort()
ON_CPU = Effort(warm_up_cap_s=0.6, sample_s=0.6, sample_cap_s=1.2, fewest=30, stable_within=0.03)
"""On the CPU other programs run beside, and no patience makes the interval as narrow as on a GPU."""
LEAST = 5
"""Samples that are taken however long they last."""
STABLE_BLOCKS = 5
CLOCK_STABLE = 0.01
CLOCK_JUMP = 0.02
"""A clock that moves more than this during the sample is flagged."""
MOST_DISCARDED = 5
BACK_OFF_S = 0.05
MOST_VARIATION = 0.025
"""Coefficient of variation above which a sample is called unstable; trtexec's own limit."""


class Watch:
    """What the GPU did while one process measured: asked between blocks, summed up at the end."""

    def __init__(self, gpu: Gpu, *, known: Collection[int] = ()) -> None:
        self.gpu = gpu
        self.discarded = 0
        self.foreign: set[int] = set()
        self._known = tuple(known)
        self._kept: list[Snapshot] = []
        self._capped = False
        self._reasons: set[str] = set()
        self._counters: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """Begin a block: slow-downs before it do not count."""
        self._counters = self.gpu.throttle_counters()

    def look(self) -> Snapshot:
        """Return what the GPU does now, and note who else is on it."""
        self.foreign |= set(self.gpu.foreign_processes(self._known))
        return self.gpu.snapshot()

    def keep(self) -> bool:
        """End a block; return whether it counts, and begin the next."""
        seen, before = self.look(), self._counters
        self.start()
        grown = growth(before, self._counters)
        slow = {*seen.slowdowns, *grown} - {POWER_CAP}
        if slow:
            self.discarded += 1
            self._reasons |= slow
            return False
        self._capped |= seen.power_capped or POWER_CAP in grown
        self._kept.append(seen)
        return True

    @property
    def given_up(self) -> bool:
        """Whether so many blocks were thrown away that the sample says nothing."""
        return self.discarded > MOST_DISCARDED

    def conditions(self) -> Conditions:
        """Return the means over the blocks that count."""
        return Conditions(
            sm_mhz=_mean([seen.sm_mhz for seen in self._kept]),
            memory_mhz=_mean([seen.memory_mhz for seen in self._kept]),
            power_w=_mean([seen.power_w for seen in self._kept]),
            temperature_c=_mean([seen.temperature_c for seen in self._kept]),
            power_capped=self._capped,
            discarded_blocks=self.discarded,
        )

    def flags(self) -> list[str]:
        """Return what a reader must know of the device."""
        flags = []
        if span([seen.sm_mhz for seen in self._kept]) > CLOCK_JUMP:
            flags.append("clock jumped")
        if self.gpu.confidential_compute():
            flags.append("confidential computing is on: times between CUDA events are not reliable")
        if self.gpu.processes_unclear:
            flags.append("NVML does not list this process: other processes on the GPU would go unseen")
        return flags

    def invalid(self) -> list[str]:
        """Return why the figures say nothing of what was measured; empty when they count."""
        sentences = []
        if self.given_up:
            sentences.append(
                f"the GPU slowed itself down ({', '.join(sorted(self._reasons))}): {self.discarded} blocks of samples "
                "were thrown away; cool it or lower its load, and measure again"
            )
        if self.foreign:
            pids = ", ".join(str(pid) for pid in sorted(self.foreign))
            sentences.append(f"another process computed on the GPU (pid {pids}); end it, and measure again")
        return sentences


def block_size(block: Block, effort: Effort) -> int:
    """Return how many samples last one block."""
    for count in (
        1,
        LEAST,
    ):  # the first run may be a cold one, and one that fills a block by itself need not be repeated
        started = time.perf_counter()
        block(count)
        each = (time.perf_counter() - started) / count
        if each >= effort.block_s:
            return 1
    return max(1, math.ceil(effort.block_s / max(each, 1e-9)))


def warm_up(block: Block, size: int, watch: Watch, effort: Effort) -> tuple[float, bool]:
    """Run until medians and clock stand still; return how long that took in milliseconds, and whether they did."""
    started = time.perf_counter()
    medians: list[float] = []
    clocks: list[float | None] = []
    while True:
        medians.append(statistics.median(block(size)))
        clocks.append(watch.look().sm_mhz)
        spent = time.perf_counter() - started
        last = slice(-STABLE_BLOCKS, None)
        still = span(medians[last]) <= effort.stable_within and span(clocks[last]) <= CLOCK_STABLE
        stable = len(medians) >= STABLE_BLOCKS and still
        if (stable and spent >= effort.warm_up_s) or spent >= effort.warm_up_cap_s:
            return spent * 1e3, stable


def sample(block: Block, size: int, watch: Watch, effort: Effort) -> list[float]:
    """Return samples in milliseconds: until the interval of their median is narrow, or patience ends.

    When the GPU slows itself down too often the blocks that were thrown away are all there is, and are returned;
    ``watch.invalid()`` then says so.
    """
    started = time.perf_counter()
    kept: list[float] = []
    dropped: list[float] = []
    pause = BACK_OFF_S
    watch.start()
    while True:
        samples = block(size)
        if watch.keep():
            kept += samples
        else:
            dropped += samples
            time.sleep(pause)
            pause *= 2
        spent = time.perf_counter() - started
        enough = len(kept) >= effort.fewest and spent >= effort.sample_s and half_width(kept) <= effort.half_width
        patience = spent >= effort.sample_cap_s and len(kept) >= LEAST
        if enough or patience or watch.given_up:
            return kept or dropped


def sample_aside(block: Block, size: int, effort: Effort) -> list[float]:
    """Return samples of a figure that no verdict is about: for a fixed time, warm already."""
    end = time.perf_counter() + effort.aside_s
    samples = block(max(LEAST, min(size, effort.fewest)))
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


def span(values: Sequence[float | None]) -> float:
    """Return the distance between smallest and largest over the median; 0 where nothing is known."""
    known = [value for value in values if value is not None]
    middle = statistics.median(known) if known else 0.0
    return (max(known) - min(known)) / middle if middle else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
