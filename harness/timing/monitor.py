"""The state of the GPU while one process measures: which blocks of samples count, flags and conditions."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

from harness.machine import POWER_CAP, Gpu, Snapshot, growth
from harness.records import Conditions
from harness.sentences import Sentence

CLOCK_JUMP = 0.02
"""Relative range of the clock during the sample above which it is flagged."""
MOST_DISCARDED = 5
"""Discarded blocks above which the sample is invalid."""


class GpuMonitor:
    """Reads the state of the GPU between blocks of samples, never during one."""

    def __init__(self, gpu: Gpu, *, known: Collection[int] = ()) -> None:
        """``known`` are the ids of processes that may use the GPU too."""
        self.gpu = gpu
        self.discarded = 0
        """Blocks during which the hardware slowed itself down."""
        self._known = tuple(known)
        self._foreign: set[int] = set()
        self._kept: list[Snapshot] = []
        self._capped = False
        self._slowdowns: set[str] = set()
        self._counters: dict[str, int] = {}
        self.start_block()

    def start_block(self) -> None:
        """Begin a block: earlier slow-downs do not count."""
        self._counters = self.gpu.throttle_counters()

    def observe(self) -> Snapshot:
        """Return the state of the GPU, and record which other processes compute on it."""
        self._foreign |= set(self.gpu.foreign_processes(self._known))
        return self.gpu.snapshot()

    def end_block(self) -> bool:
        """End a block, begin the next, and return whether its samples count."""
        seen, before = self.observe(), self._counters
        self.start_block()
        grown = growth(before, self._counters)
        slow = {*seen.slowdowns, *grown} - {POWER_CAP}
        if slow:
            self.discarded += 1
            self._slowdowns |= slow
            return False
        self._capped |= seen.power_capped or POWER_CAP in grown
        self._kept.append(seen)
        return True

    @property
    def too_many_discarded(self) -> bool:
        """Whether more than MOST_DISCARDED blocks were discarded."""
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
        """Return the flags of the device, each a sentence."""
        flags: list[str] = []
        if relative_range([seen.sm_mhz for seen in self._kept]) > CLOCK_JUMP:
            flags.append(Sentence("clock_jumped"))
        if self.gpu.confidential_compute():
            flags.append(Sentence("confidential_computing"))
        if self.gpu.processes_unclear:
            flags.append(Sentence("nvml_no_process"))
        return flags

    def invalid(self) -> list[str]:
        """Return why the figures are invalid; empty when they are valid."""
        sentences: list[str] = []
        if self.too_many_discarded:
            sentences.append(Sentence("gpu_slowed_down", slowdowns=sorted(self._slowdowns), discarded=self.discarded))
        if self._foreign:
            pids = ", ".join(str(pid) for pid in sorted(self._foreign))
            sentences.append(Sentence("another_process", pids=pids))
        return sentences


def relative_range(values: Sequence[float | None]) -> float:
    """Return (largest - smallest) / median of the known values; 0 without any."""
    known = [value for value in values if value is not None]
    middle = statistics.median(known) if known else 0.0
    return (max(known) - min(known)) / middle if middle else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
