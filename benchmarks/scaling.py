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

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # records that are made up are there
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


def history(count: int) -> dict[str, float]:
    """Open a history of one series with a step every 500 sessions, read it, search it for changes, and show it."""
    import random
    from datetime import datetime, timedelta

    from history_records import BENCHMARK, KEY, session

    from harness.history import open_history
    from harness.report.text import history_text, series_of

    dice, start = random.Random(0), datetime(2026, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "history.sqlite")
        with open_history(path) as store:
            store.add_all(
                session(
                    0, id=f"s{i}", recorded_at=(start + timedelta(hours=i)).isoformat(),
                    median=dice.gauss(2.0, 0.02) + 0.1 * (i // 500 % 2),
                )
                for i in range(count)
            )  # fmt: skip
        taken = {"open": seconds(lambda: open_history(path).close())}
        with open_history(path) as store:
            taken["read"] = seconds(lambda: store.sessions(BENCHMARK, KEY))
            sessions = store.sessions(BENCHMARK, KEY)
            taken["changes and text"] = seconds(lambda: history_text([series_of(sessions)]))
    return taken


def page(count: int) -> dict[str, float]:
    """Read results of one subject, of which a tenth failed and was bisected, and write the page and the summary."""
    from dataclasses import replace

    from recorded import bisection, result

    from harness.records import document, load, save_json
    from harness.report import summary
    from harness.report.html import save_page

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [result("pass" if i % 10 else "fail", case=f"c{i}").to_json() for i in range(count)]
        save_json(document(rows, environment={}, command="parity verify"), folder / "results.json")
        for i in range(0, count, 10):
            found = replace(bisection(), subject="net", case=f"c{i}", backend="rtx", precision="fp16").to_json()
            data = document([], environment={}, command="parity bisect") | {"bisect": found}
            save_json(data, folder / f"bisect-{i}.json")
        taken = {"read": seconds(lambda: load([folder]))}
        records = load([folder])
        taken["page"] = seconds(lambda: save_page(records, folder / "page.html"))
        return {**taken, "summary": seconds(lambda: summary(records))}


def outputs(count: int) -> dict[str, float]:
    """Keep outputs of PyTorch of one number each, find each again, and empty the cache."""
    import torch

    from harness.reference import OutputCache

    def get_all() -> None:
        for number in range(count):
            kept.get({"run": number}, lambda: ({"y": torch.zeros(1)}, ()), torch.device("cpu"))

    with tempfile.TemporaryDirectory() as folder:
        kept = OutputCache(Path(folder) / "outputs", enabled=True)
        return {"keep": seconds(get_all), "find each": seconds(get_all), "empty": seconds(kept.clear)}


PARTS = {
    "cache": Part(of="engines in the cache", sizes=(100, 300, 1000, 3000, 10000), measure=cache),
    "history": Part(of="sessions of a series", sizes=(1250, 2500, 5000, 10000, 20000), measure=history),
    "page": Part(of="results on a page", sizes=(312, 625, 1250, 2500, 5000), measure=page),
    "outputs": Part(of="kept outputs of PyTorch", sizes=(100, 300, 1000, 3000), measure=outputs),
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
