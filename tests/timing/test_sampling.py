"""When a device is warm, when a sample is large enough, and which of its blocks do not count."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.machine.gpu import Gpu, Snapshot
from harness.timing import sampling
from harness.timing.monitor import MOST_DISCARDED, GpuMonitor, relative_range
from harness.timing.sampling import LEAST, Sampling, block_size, half_width, sample, sample_secondary, warm_up

QUICK = Sampling(
    warm_up_s=0.0, warm_up_cap_s=0.2, sample_s=0.0, sample_cap_s=0.2, secondary_s=0.0, block_s=0.001, fewest=20
)  # fmt: skip


class FakeGpu(Gpu):
    """Answers from lists: one snapshot and one set of counters per look, the last ones for ever."""

    def __init__(self, snapshots: list[Snapshot], counters: list[int] | None = None, foreign: set[int] = frozenset()):
        super().__init__(reason="")
        self.snapshots, self.counters = self._last_for_ever(snapshots), self._last_for_ever(counters or [0])
        self.foreign = foreign

    @staticmethod
    def _last_for_ever(values: list) -> Iterator:
        return itertools.chain(values, itertools.repeat(values[-1]))

    def snapshot(self) -> Snapshot:
        return next(self.snapshots)

    def throttle_counters(self) -> dict[str, int]:
        return {"hardware thermal slow-down": next(self.counters), "power cap": 0}

    def foreign_processes(self, known: tuple[int, ...] = ()) -> tuple[int, ...]:
        return tuple(sorted(self.foreign - set(known)))


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BACK_OFF_S", 0.0)


def calm(mhz: float = 1980.0, **changes: object) -> Snapshot:
    return replace(Snapshot(sm_mhz=mhz, memory_mhz=2619.0, power_w=300.0, temperature_c=40.0), **changes)


def steady(count: int) -> list[float]:
    return [1.0] * count


# How large


def test_the_interval_of_a_median_is_made_of_order_statistics() -> None:
    values = [float(value) for value in range(1, 101)]
    # ranks 50 -+ 9.8 of 100, counted from 0: the values 41 and 61, half of whose distance is 10
    assert half_width(values) == pytest.approx(10 / 50.5)
    assert half_width([2.0] * 10) == 0


def test_the_interval_narrows_with_the_root_of_the_sample() -> None:
    draw = random.Random(4)
    values = [draw.gauss(1, 0.01) for _ in range(40_000)]
    assert half_width(values[:400]) / half_width(values) == pytest.approx(10, rel=0.5)


@pytest.mark.parametrize(
    ("values", "wanted"), [([100.0, 101.0, 102.0], 2 / 101), ([5.0, None], 0.0), ([None], 0.0), ([], 0.0)]
)
def test_the_range_of_what_is_known(values: list[float | None], wanted: float) -> None:
    assert relative_range(values) == pytest.approx(wanted)


def test_a_block_is_as_large_as_its_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert block_size(clock.block(0.001), Sampling(block_s=0.05)) == 50
    assert block_size(clock.block(0.2), Sampling(block_s=0.05)) == 1


class Clock:
    """A clock that only blocks move, so that nothing depends on the machine's speed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.samples = 0.0, 0
        monkeypatch.setattr(sampling.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(sampling.time, "sleep", lambda seconds: None)

    def block(self, each: float, values: Iterator[float] | None = None) -> sampling.Block:
        def take(count: int) -> list[float]:
            self.now += each * count
            self.samples += count
            return [next(values) if values else 1.0 for _ in range(count)]

        return take


def test_a_narrow_interval_ends_the_sample_once_it_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    samples = sample(clock.block(0.01), 5, GpuMonitor(Gpu()), Sampling(sample_s=1.0, sample_cap_s=9.0, fewest=100))
    assert len(samples) == 100
    assert clock.now == pytest.approx(1.0)


def test_a_wide_interval_ends_at_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, draw = Clock(monkeypatch), random.Random(5)
    noisy = (draw.uniform(1, 2) for _ in itertools.count())
    samples = sample(
        clock.block(1 / 64, noisy), 4, GpuMonitor(Gpu()), Sampling(sample_s=1.0, sample_cap_s=3.0, fewest=100)
    )
    assert len(samples) == 3 * 64


def test_slow_runs_are_sampled_a_few_times_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert len(sample(clock.block(10.0), 1, GpuMonitor(Gpu()), Sampling(sample_cap_s=3.0))) == LEAST


def test_a_secondary_figure_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert len(sample_secondary(clock.block(1 / 64), Sampling(secondary_s=0.5, block_s=1 / 8))) == 32


# Warm


def test_warm_is_when_medians_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    falling = itertools.chain([2.0, 1.5, 1.2], itertools.repeat(1.0))
    spent, stable = warm_up(clock.block(0.05, falling), 1, GpuMonitor(Gpu()), Sampling(warm_up_s=0.2))
    assert stable
    assert clock.samples == 3 + sampling.STABLE_BLOCKS
    assert spent == pytest.approx(400)


def test_a_device_that_never_stands_still_is_not_called_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    spent, stable = warm_up(
        clock.block(0.05, itertools.cycle([1.0, 1.1])), 1, GpuMonitor(Gpu()), Sampling(warm_up_cap_s=1.0)
    )
    assert not stable
    assert spent == pytest.approx(1000, abs=60)


def test_a_clock_that_still_rises_is_not_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    rising = FakeGpu([calm(1200.0 + 40 * step) for step in range(20)])
    warm_up(clock.block(0.05), 1, GpuMonitor(rising), Sampling(warm_up_s=0.2))
    assert clock.samples > 20


# What counts


def test_a_block_during_a_slow_down_is_thrown_away() -> None:
    monitor = GpuMonitor(FakeGpu([calm(), calm(slowdowns=("power brake",)), calm()]))
    values = itertools.chain([1.0] * 8, [9.0] * 8, itertools.repeat(1.0))
    samples = sample(lambda count: [next(values) for _ in range(count)], 8, monitor, QUICK)
    assert set(samples) == {1.0}
    assert monitor.conditions().discarded_blocks == 1
    assert monitor.invalid() == []


def test_a_counter_tells_of_a_slow_down_that_is_over() -> None:
    monitor = GpuMonitor(FakeGpu([calm()], counters=[5, 5, 5, 700, 700]))
    sample(steady, 8, monitor, QUICK)
    assert monitor.discarded == 1


def test_too_many_slow_downs_make_the_figures_invalid() -> None:
    monitor = GpuMonitor(FakeGpu([calm(slowdowns=("hardware slow-down",))]))
    samples = sample(steady, 8, monitor, QUICK)
    assert samples
    assert monitor.discarded == MOST_DISCARDED + 1
    assert monitor.invalid() == [
        "the GPU slowed itself down (hardware slow-down): 6 blocks of samples were thrown away; cool it or lower its "
        "load, and measure again"
    ]


def test_a_power_cap_is_normal_and_noted() -> None:
    monitor = GpuMonitor(FakeGpu([calm(power_capped=True)]))
    assert len(sample(steady, 10, monitor, QUICK)) >= QUICK.fewest
    assert monitor.conditions().power_capped
    assert monitor.invalid() == []


def test_another_process_makes_the_figures_invalid() -> None:
    monitor = GpuMonitor(FakeGpu([calm()], foreign={31, 77}), known=(31,))
    sample(steady, 10, monitor, QUICK)
    assert monitor.invalid() == ["another process computed on the GPU (pid 77); end it, and measure again"]


def test_a_clock_that_jumps_is_flagged() -> None:
    monitor = GpuMonitor(FakeGpu([calm(), calm(1755.0), calm()]))
    sample(steady, 5, monitor, QUICK)
    assert monitor.flags() == ["clock jumped"]


def test_a_steady_clock_is_not() -> None:
    monitor = GpuMonitor(FakeGpu([calm(), calm(1965.0), calm()]))
    sample(steady, 5, monitor, QUICK)
    assert monitor.flags() == []
    conditions = monitor.conditions()
    assert 1965 < (conditions.sm_mhz or 0) < 1980
    assert (conditions.memory_mhz, conditions.power_w, conditions.temperature_c) == (2619.0, 300.0, 40.0)


def test_without_a_gpu_nothing_is_known_and_nothing_is_wrong() -> None:
    monitor = GpuMonitor(Gpu(reason="there is no GPU"))
    sample(steady, 10, monitor, QUICK)
    assert (monitor.flags(), monitor.invalid()) == ([], [])
    assert monitor.conditions().sm_mhz is None
