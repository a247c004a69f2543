"""Time ``harness.compare`` of small and large tensors, against Polygraphy's (CPU) and a copy of a tensor (GPU).

    python benchmarks/compare.py

Says which parts did not run, and why; a part that misses its target says so. Times of the GPU are medians.
"""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.compare import compare
from harness.records import ErrorStats
from harness.timing import between_events_ms, host_ms

CPU_ELEMENTS = 2**24
GPU_BYTES = 2**30
SMALL = (1000, 2 * 77 * 768, 2**20)
"""Elements of pairs whose comparison takes as long as its launches; the second is a value of a CLIP text encoder."""


def main() -> None:
    """Print one line per figure."""
    for part in (cpu, gpu):
        try:
            part()
        except NotHere as reason:
            print(f"{part.__name__}: not run, {reason}")


class NotHere(Exception):
    """A part cannot run on this machine; the text says why."""


def pair(elements: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a tensor and the same with FP16-sized errors."""
    generator = torch.Generator(device).manual_seed(0)
    expected = torch.randn(elements, generator=generator, device=device)
    actual = torch.randn(elements, generator=generator, device=device).mul_(1e-3).add_(expected)
    return actual, expected


def cpu() -> None:
    """Compare 16M FP32 elements with both in turns, and small tensors."""
    print(f"CPU, {torch.get_num_threads()} threads; of several calls the one that other programs disturbed least")
    for elements in SMALL:
        small = pair(elements, "cpu")
        spent = least_of(partial(compare, *small), repeats=max(20, 2**22 // elements))
        print(f"  compare of {elements:9,} elements {spent:8.3f} ms")
    actual, expected = pair(CPU_ELEMENTS, "cpu")
    ours = least_of(lambda: compare(actual, expected), repeats=5)
    print(f"a pair of {CPU_ELEMENTS / 2**20:.0f}M FP32 elements")
    try:
        from polygraphy import __version__
        from polygraphy.comparator import IterationResult, SimpleCompareFunc
        from polygraphy.logger import G_LOGGER
    except ImportError as error:
        print(f"  compare      {ours / 1e3:8.3f} s")
        raise NotHere(f"Polygraphy cannot be imported ({error})") from error
    results = [IterationResult(outputs={"y": tensor.numpy()}) for tensor in (actual, expected)]
    check = SimpleCompareFunc()
    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    theirs = math.inf
    with contextlib.redirect_stdout(io.StringIO()):
        for _ in range(5):
            theirs = min(theirs, least_of(lambda: check(*results), repeats=1))
            ours = min(ours, least_of(lambda: compare(actual, expected), repeats=5))
    print(f"  compare      {ours / 1e3:8.3f} s")
    print(f"  Polygraphy   {theirs / 1e3:8.3f} s   ({__version__}, SimpleCompareFunc)")
    print(f"  ratio        {theirs / ours:8.1f} x   (target: at least 25) {verdict(theirs / ours >= 25)}")


def gpu() -> None:
    """Compare 1 GiB FP32 tensors, in units of the time to copy one."""
    if not torch.cuda.is_available():
        raise NotHere("there is no NVIDIA GPU")
    actual, expected = pair(GPU_BYTES // 4, "cuda")
    copy = median_of(between_events_ms, partial(torch.empty_like(actual).copy_, actual), repeats=15)
    stats = compare(actual, expected)
    ours = median_of(between_events_ms, lambda: compare(actual, expected), repeats=15)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    compare(actual, expected)
    extra = (torch.cuda.max_memory_allocated() - before) / 2**20
    print(f"GPU, {torch.cuda.get_device_name()}, a pair of 1 GiB FP32 tensors")
    print(f"  copy of one  {copy:8.3f} ms")
    print(f"  compare      {ours:8.3f} ms  {ours / copy:.1f} copies (target: at most 6) {verdict(ours <= 6 * copy)}")
    print(f"  extra memory {extra:8.1f} MiB (target: at most 256) {verdict(extra <= 256)}")
    print(f"  against float64 operations of PyTorch: {verdict(agrees(stats, actual, expected))}")
    for elements in SMALL:
        small = pair(elements, "cuda")
        spent = median_of(host_ms, partial(compare, *small), repeats=51)
        print(f"  compare of {elements:9,} elements {spent:8.3f} ms (target: at most 0.5) {verdict(spent <= 0.5)}")
    profile(actual, expected)


def agrees(stats: ErrorStats, actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether the figures are those of whole float64 tensors."""
    a, e = actual.double(), expected.double()
    errors = (a - e).abs()
    last = len(errors) - 1
    ratios = (errors / e.abs())[(e != 0) | (errors == 0)].nan_to_num(nan=0.0).sort().values
    defined = len(ratios) - 1
    exact = {
        stats.absolute["max"]: errors.max(),
        stats.relative["median"]: ratios[defined // 2],
        stats.relative["p99"]: ratios[99 * defined // 100],
        stats.relative["max"]: ratios[-1],
    }
    close = {
        stats.absolute["mean"]: errors.mean(),
        stats.relative["mean"]: ratios.mean(),
        stats.relative_l2: errors.norm() / e.norm(),
        stats.cosine: (a @ e) / a.norm() / e.norm(),
    }
    del ratios
    errors = errors.sort().values
    exact |= {stats.absolute["median"]: errors[last // 2], stats.absolute["p99"]: errors[99 * last // 100]}
    return all(got == float(want) for got, want in exact.items()) and all(
        math.isclose(got, float(want), rel_tol=1e-9) for got, want in close.items()
    )


def profile(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Print where the GPU's time goes."""
    from torch.profiler import ProfilerActivity

    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as run:
        compare(actual, expected)
        torch.cuda.synchronize()
    rows = sorted(run.key_averages(), key=lambda row: -row.self_device_time_total)[:10]
    for row in rows:
        print(f"    {row.self_device_time_total / 1e3:7.3f} ms  {row.count:4d} x  {row.key[:80]}")


def median_of(clock: Callable[[Callable[[], Any]], float], work: Callable[[], Any], repeats: int) -> float:
    """Return the median of what a clock measures of a call, in milliseconds, after three calls to warm up."""
    for _ in range(3):
        work()
    return statistics.median(clock(work) for _ in range(repeats))


def least_of(work: Callable[[], Any], repeats: int) -> float:
    """Return the least time of a call in milliseconds."""
    return min(host_ms(work) for _ in range(repeats))


def verdict(passed: bool) -> str:
    """Return a word for the end of a line."""
    return "ok" if passed else "MISSED"


if __name__ == "__main__":
    main()
