"""What the harness costs over the number of things: times, their slope, and whether any is worse than n log n.

    python -m benchmarks.scaling                               # all parts: a table of each
    python -m benchmarks.scaling --only cache --plot cache.png

A part is a function that takes a number and returns seconds by name; ``PARTS`` lists them. The slope is that of the
logarithms, by least squares: 1 is linear, 2 quadratic. Runs anywhere; nothing here is a figure of TensorRT.

Exit status: 0, or 1 where a slope is over that of n log n by more than ``SLACK``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SLACK = 0.2
"""Two runs of one figure on a busy machine differ by as much."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing whose number grows."""

    of: str
    """What is counted."""
    sizes: tuple[int, ...]
    measure: Callable[[int], dict[str, float]]
    """Takes the number; returns seconds by name."""


def cache(count: int) -> dict[str, float]:
    """Fill an engine cache with engines of ten bytes, find each again, list, count against the limit, and empty it."""
    from harness.backends import BuildReport, EngineCache

    def build(path: Path) -> BuildReport:
        path.write_bytes(b"an engine!")
        return BuildReport()

    def get_all() -> None:
        for number in range(count):
            engines.get({"engine": number}, build, progress=lambda line: None, name="clip")

    with tempfile.TemporaryDirectory() as folder:
        engines = EngineCache(Path(folder) / "engines", limit_bytes=2**30)
        taken = {
            "fill": seconds(get_all),
            "find each": seconds(get_all),
            "list": seconds(engines.entries),
            "find by content": seconds(lambda: engines.with_sha256("0" * 64)),
        }
        for number, entry in enumerate(engines.entries()):
            os.utime(entry.path, (number, number))  # none was used a moment ago
        engines.limit_bytes = 5 * count
        taken["evict half"] = seconds(lambda: engines._clean(keep=Path()))
        taken["empty"] = seconds(engines.clear)
    return taken


PARTS = {
    "cache": Part(of="engines in the cache", sizes=(100, 300, 1000, 3000, 10000), measure=cache),
}


def main() -> int:
    """Print a table per part; return the exit status."""
    options = parse()
    measured = {name: run(PARTS[name]) for name in options.only or PARTS}
    too_steep = [f"{name}: {what}" for name, times in measured.items() for what in report(PARTS[name], times)]
    if options.plot:
        plot(measured, options.plot)
    print(f"worse than n log n: {', '.join(too_steep) or 'nothing'}")
    return 1 if too_steep else 0


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS))
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture of all parts")
    return parser.parse_args()


def run(part: Part) -> dict[str, list[float]]:
    """Return the seconds of every figure, one per size."""
    rows = [part.measure(size) for size in part.sizes]
    return {name: [row[name] for row in rows] for name in rows[0]}


def report(part: Part, times: Mapping[str, Sequence[float]]) -> list[str]:
    """Print the table of one part; return the figures whose slope is too steep."""
    print(f"\n{part.of:<24}" + "".join(f"{size:>10}" for size in part.sizes) + f"{'slope':>8}")
    for name, figures in times.items():
        row = "".join(f"{figure:>10.3g}" for figure in figures)
        print(f"{name + ', s':<24}{row}{slope(part.sizes, figures):>8.2f}")
    most = slope(part.sizes, [size * math.log(size) for size in part.sizes]) + SLACK
    return [name for name, figures in times.items() if slope(part.sizes, figures) > most]


def slope(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """Return the slope of the logarithms by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(figure) for figure in figures]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def plot(measured: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draw every part: seconds over its number, both as logarithms."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(measured), figsize=(5 * len(measured), 4), squeeze=False)
    for (name, times), ax in zip(measured.items(), axes[0], strict=True):
        for what, figures in times.items():
            label = f"{what}: {slope(PARTS[name].sizes, figures):.2f}"
            ax.loglog(PARTS[name].sizes, figures, marker="o", label=label)
        ax.set(xlabel=PARTS[name].of, ylabel="seconds", title=name)
        ax.legend(title="slope")
    figure.tight_layout()
    figure.savefig(path)


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
