"""How often the trend of an accuracy warns where nothing changed, and how soon it warns where something did.

    python benchmarks/accuracy_trend.py                          # ten minutes on two cores that others use as well
    python benchmarks/accuracy_trend.py --plot docs/accuracy-trend.png

Each series is looked at after every run, as CI does. ``false alarms``: the share of series of 100 runs of one engine of
which a warning was seen after any of them, and after the last. ``found``: the share in which a rise was warned of,
the runs that took (median and 9 in 10), and how far from the true place the change point was said to be.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.history import RUNS_BEFORE, ratio_changes

LEVEL = 1.1
RUNS = 100
BEFORE = 30
"""Runs before a change."""

Noise = Callable[[np.random.Generator, int], np.ndarray]
"""Logarithms of so many ratios about their level."""


def jumps(rng: np.random.Generator, runs: int, share: float, size: float) -> np.ndarray:
    """Return 0, and in a share of the runs ``size``: another machine, another tactic."""
    return size * (rng.random(runs) < share)


def outliers(rng: np.random.Generator, runs: int, share: float, noise: float) -> np.ndarray:
    """Return noise, and in a share of the runs a rise to about 2.7 times the level."""
    return noise * rng.standard_normal(runs) + (rng.random(runs) < share) * np.abs(1 + rng.standard_normal(runs))


NOISES: dict[str, Noise] = {
    "constant": lambda rng, n: np.zeros(n),
    "constant, 3 % of runs off by 0.1 %": lambda rng, n: 0.001 * rng.standard_normal(n) * (rng.random(n) < 0.03),
    "normal, 2 %": lambda rng, n: np.log(np.maximum(1 + 0.02 * rng.standard_normal(n), 0.1)),
    "normal, 10 %": lambda rng, n: np.log(np.maximum(1 + 0.1 * rng.standard_normal(n), 0.1)),
    "lognormal, 20 %": lambda rng, n: 0.2 * rng.standard_normal(n),
    "lognormal, 40 %": lambda rng, n: 0.4 * rng.standard_normal(n),
    "Student t of 3 degrees, 10 %": lambda rng, n: 0.1 * rng.standard_t(3, n),
    "constant, 2 % outliers": lambda rng, n: outliers(rng, n, 0.02, 0.0),
    "normal 10 %, 5 % outliers": lambda rng, n: outliers(rng, n, 0.05, 0.1),
    "normal 5 %, a rise of 30 % in 1 of 50 runs": lambda rng, n: (
        0.05 * rng.standard_normal(n) + jumps(rng, n, 0.02, 0.3)
    ),
    "two machines in turn, 1.1 and 1.6": lambda rng, n: jumps(rng, n, 0.5, np.log(1.6 / LEVEL)),
    "one machine of ten at 1.6": lambda rng, n: jumps(rng, n, 0.1, np.log(1.6 / LEVEL)),
    "weekends on a machine at 1.6": lambda rng, n: np.log(1.6 / LEVEL) * (np.arange(n) % 7 >= 5),
}
WORSE = math.log(1.6 / LEVEL) / 2
"""A run on one of several machines is on the worse one from this logarithm on."""
SHAPES = {
    "step to 1.5": np.full(30, 1.5),
    "step to 2.9": np.full(30, 2.9),
    "creep to 2.9 in 20 runs": np.concatenate([np.linspace(LEVEL, 2.9, 21)[1:], np.full(10, 2.9)]),
}
JITTERS = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Standard deviations of the logarithm with which rises are drawn."""


def warned(ratios: np.ndarray, hosts: Sequence[str] = ()) -> int | None:
    """Return where the newest level begins if it is a rise, which is what warns; else None."""
    found = ratio_changes(list(ratios), hosts)
    return found[-1].index if found and found[-1].after > found[-1].before else None


def false_alarms(name: str, series: int) -> tuple[float, float]:
    """Return the share of series with a warning after any run, and after the last."""
    rng = np.random.default_rng(20261203)
    ever = last = 0
    for _ in range(series):
        logs = NOISES[name](rng, RUNS)
        hosts = ["other" if log > WORSE else "usual" for log in logs] if "machine" in name else []
        ratios = LEVEL * np.exp(logs)
        seen = [warned(ratios[:n], hosts[:n]) is not None for n in range(RUNS_BEFORE + 2, RUNS + 1)]
        ever += any(seen)
        last += seen[-1]
    return ever / series, last / series


def found(case: tuple[str, float], series: int) -> tuple[float, list[int], list[int]]:
    """Return the share of rises that were found, after how many runs each, and how far off its place was said to be."""
    name, jitter = case
    rng = np.random.default_rng(20261203)
    after, off = [], []
    for _ in range(series):
        level = np.concatenate([np.full(BEFORE, LEVEL), SHAPES[name]])
        ratios = level * np.exp(jitter * rng.standard_normal(len(level)))
        for runs in range(BEFORE + 1, len(level) + 1):
            if warned(ratios[:runs]) is not None:
                after.append(runs - BEFORE)
                break
        place = warned(ratios[: BEFORE + 20])
        off += [] if place is None else [place - BEFORE]
    return len(after) / series, after, off


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=1000, help="of one engine; rises are a fifth of it")
    parser.add_argument("--plot", type=Path, help="draw two series with what is found of them, and write nothing else")
    options = parser.parse_args()
    if options.plot:
        draw(options.plot)
        return
    cases = [(name, jitter) for name in SHAPES for jitter in JITTERS]
    with ProcessPoolExecutor() as pool:
        alarms = pool.map(partial(false_alarms, series=options.series), NOISES)
        rises = pool.map(partial(found, series=max(options.series // 5, 1)), cases)
        print(f"| one engine, {RUNS} runs | false alarms after any | after the last |\n| --- | ---: | ---: |")
        for name, (ever, last) in zip(NOISES, alarms, strict=True):
            print(f"| {name} | {ever:.1%} | {last:.1%} |", flush=True)
        print(f"\n| from {LEVEL}, after {BEFORE} runs | jitter | found | after runs, median | 9 in 10 | place off by |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for (name, jitter), (share, after, off) in zip(cases, rises, strict=True):
            delays = [f"{np.percentile(after, p):.0f}" for p in (50, 90)] if after else ["-", "-"]
            places = f"{np.percentile(off, 10):+.0f} to {np.percentile(off, 90):+.0f}" if off else "-"
            print(f"| {name} | {jitter:.0%} | {share:.0%} | {' | '.join(delays)} | {places} |", flush=True)


def draw(path: Path) -> None:
    """Draw a creep and a series without one, with what is found of them."""
    from matplotlib.figure import Figure

    rng = np.random.default_rng(3)
    creep = np.concatenate([np.full(BEFORE, LEVEL), SHAPES["creep to 2.9 in 20 runs"][:20]])
    drawn = {
        "creep to 2.9 floors, 5 % jitter": creep * np.exp(0.05 * rng.standard_normal(len(creep))),
        "one engine, 10 % jitter, 5 % outliers": LEVEL * np.exp(NOISES["normal 10 %, 5 % outliers"](rng, len(creep))),
    }
    figure = Figure(figsize=(10, 3.2), dpi=110, layout="constrained")
    for axes, (name, ratios) in zip(figure.subplots(1, 2, sharey=True), drawn.items(), strict=True):
        axes.plot(ratios, "-o", color="#1f5fa8", markersize=3, linewidth=0.8)
        axes.axhline(3, color="#a8170f", linewidth=0.8)
        for change in ratio_changes(list(ratios)):
            axes.axvline(change.index - 0.5, color="#a8170f", linestyle="--", linewidth=1)
            words = f"{change.before:.2g} to {change.after:.2g} floors"
            axes.annotate(words, (change.index - 0.5, 2.6), xytext=(-4, 0), textcoords="offset points", ha="right")
        axes.set(title=name, xlabel="run", ylim=(0, None))
    figure.axes[0].set_ylabel("error over floor; red: limit")
    figure.savefig(path)


if __name__ == "__main__":
    main()
