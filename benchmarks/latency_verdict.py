"""How often a latency verdict is wrong: false alarms and power of the rules in harness.latency and harness.history.

Sessions are simulated: the log medians of processes scatter normally about the level of their session, the sessions
about the true level. Every figure is a share of seeded trials through the public functions.

    python benchmarks/latency_verdict.py                 # about two minutes
    python benchmarks/latency_verdict.py --trials 200    # a rough look
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from harness.history import change_points, trend_of
from harness.latency import compare_in_turns, compare_sessions, holm, noise_of
from harness.machine import Machine
from harness.records import Comparison, Conditions, ProcessRun, Session, Summary

MACHINE = Machine(key="simulated", class_key="simulated")
SPREADS = (0.003, 0.005, 0.01)
Draw = Callable[[np.random.Generator, int], np.ndarray]


def summary(median_ms: float, *, cv: float = 0.005) -> Summary:
    """Return a summary of 1000 samples with this median and no percentiles."""
    half = 1.96 * 1.25 * cv / 1000**0.5
    return Summary(
        n=1000,
        median=median_ms,
        low=median_ms * (1 - half),
        high=median_ms * (1 + half),
        mean=median_ms,
        minimum=median_ms * (1 - 2 * cv),
        cv=cv,
    )


def session(medians_ms: np.ndarray, identity: str, *, clocks_mhz: np.ndarray | None = None, **fields) -> Session:
    """Return a session whose processes have these medians, and these clocks if given."""
    clocks = [None] * len(medians_ms) if clocks_mhz is None else [float(clock) for clock in clocks_mhz]
    runs = tuple(
        ProcessRun(
            started_at="",
            gpu_ms=(times := summary(float(median))),
            end_to_end_ms=times,
            enqueue_ms=None,
            graph=True,
            conditions=Conditions(sm_mhz=clock),
        )
        for median, clock in zip(medians_ms, clocks, strict=True)
    )
    known = {"subject": "simulated", "case": "a", "backend": "rtx", "precision": "fp16", "graph": True}
    return Session(id=identity, recorded_at="", runs=runs, **{**known, "machine": MACHINE, **fields})


def sessions(
    rng: np.random.Generator,
    *,
    spread: float,
    process_spread: float = 0.003,
    processes: int = 5,
    level: float = 1.0,
    name: str = "s",
) -> Iterator[Session]:
    """Yield sessions of one engine, for ever: ``spread`` between sessions, ``process_spread`` between processes."""
    for number in count():
        logs = rng.normal(rng.normal(0.0, spread), process_spread, processes)
        yield session(level * np.exp(logs), f"{name}{number}")


def verdict_of_one(rng: np.random.Generator, *, baseline: int, spread: float, change: float, **options) -> Comparison:
    """Return the verdict on one session whose engine is slower by ``change`` than the baseline's."""
    old, new = sessions(rng, spread=spread), sessions(rng, spread=spread, level=1 + change, name="new")
    accepted = [next(old) for _ in range(baseline)]
    return compare_sessions(next(new), accepted, previous=next(new), **options)


def share(trials: int, one: Callable[[np.random.Generator], bool]) -> float:
    """Return the share of seeded trials in which something holds."""
    rng = np.random.default_rng(0)
    return sum(bool(one(rng)) for _ in range(trials)) / trials


def against_baseline(trials: int) -> None:
    """Print the rates of a verdict against a stored baseline."""
    print("against a stored baseline: 0.3 % between processes, 5 processes, margin 1 %; share that is `regressed`")
    print("(+0 % is a false alarm; `twice` is what fails a build; `equal` is `equivalent` at +0 %)\n")
    print(f"{'sessions spread':>15} {'baseline':>8} {'+0 %':>7} {'twice':>7} {'margin 0':>9} {'equal':>7}", end="")
    print(f" {'+3 %':>7} {'+3 % twice':>11} {'+5 %':>7} {'smallest':>9}")
    for spread in SPREADS:
        for baseline in (1, 4, 8):
            rates = [
                share(
                    trials,
                    lambda rng, c=change, t=test, o=options, b=baseline, s=spread: t(  # type: ignore[misc]
                        verdict_of_one(rng, baseline=b, spread=s, change=c, **o)
                    ),
                )
                for change, options, test in (
                    (0.0, {}, regressed),
                    (0.0, {}, repeated),
                    (0.0, {"regress_margin": 0.0}, regressed),
                    (0.0, {}, lambda c: c.verdict == "equivalent"),
                    (0.03, {}, regressed),
                    (0.03, {}, repeated),
                    (0.05, {}, regressed),
                )
            ]
            rng = np.random.default_rng(1)
            found = [
                noise_of([next(series) for _ in range(baseline)]).smallest_change
                for series in (sessions(rng, spread=spread) for _ in range(max(trials // 10, 10)))
            ]
            widths = (7, 7, 9, 7, 7, 11, 7)
            row = " ".join(f"{rate:{width}.1%}" for rate, width in zip(rates, widths, strict=True))
            print(f"{spread:15.1%} {baseline:8} {row} {np.median(found):9.1%}")


def regressed(comparison: Comparison) -> bool:
    """Return whether the verdict is a regression."""
    return comparison.verdict == "regressed"


def repeated(comparison: Comparison) -> bool:
    """Return whether a build fails on it."""
    return comparison.verdict == "regressed" and comparison.repeated


def in_turns(trials: int) -> None:
    """Print the rates of two engines measured in turns, beside a test over pooled runs."""
    print("\ntwo engines in turns, one session: 0.3 % between processes; share that is `regressed`\n")
    print(f"{'processes':>9} {'+0 %, margin 0':>15} {'+0 %':>7} {'+3 %':>7} {'pooled runs, +0 %':>18}")
    for processes in (3, 5, 10):

        def one(rng: np.random.Generator, change: float, margin: float, k: int = processes) -> bool:
            a, b = (next(sessions(rng, spread=0.0, processes=k, level=level)) for level in (1 + change, 1.0))
            return regressed(compare_in_turns(a, b, regress_margin=margin))

        rates = [
            share(trials, lambda rng, c=change, m=margin: one(rng, c, m))  # type: ignore[misc]
            for change, margin in ((0.0, 0.0), (0.0, 0.01), (0.03, 0.01))
        ]
        pooled = share(min(trials, 500), lambda rng, k=processes: pooled_differs(rng, k))  # type: ignore[misc]
        print(f"{processes:9} {rates[0]:15.1%} {rates[1]:7.1%} {rates[2]:7.1%} {pooled:18.1%}")


def pooled_differs(rng: np.random.Generator, processes: int, *, runs: int = 200) -> bool:
    """Return whether Mann-Whitney over all runs (p < 1 %) calls two equal engines different."""
    from scipy.stats import mannwhitneyu

    sides = [(rng.normal(0, 0.003, (processes, 1)) + rng.normal(0, 0.005, (processes, runs))).ravel() for _ in range(2)]
    return float(mannwhitneyu(*sides).pvalue) < 0.01


def several(trials: int) -> None:
    """Print the rates of a run of several benchmarks, before and after Holm's correction."""
    print("\nseveral benchmarks in one run, 0.3 % between sessions, baseline of 8, margin 0:")
    print("share of runs with a false alarm, and of regressions of +3 % found in one benchmark (margin 1 %)\n")
    print(f"{'benchmarks':>10} {'alone':>7} {'Holm':>7} {'+3 % alone':>11} {'+3 % Holm':>10}")
    for number in (5, 20):
        rates = np.zeros(4)
        rng = np.random.default_rng(0)
        rounds = max(trials // number, 20)
        for _ in range(rounds):
            same = [
                verdict_of_one(rng, baseline=8, spread=0.003, change=0.0, regress_margin=0.0) for _ in range(number)
            ]
            mixed = [
                verdict_of_one(rng, baseline=8, spread=0.003, change=change) for change in (0.03, *[0.0] * (number - 1))
            ]
            rates += (any(map(regressed, same)), any(map(regressed, holm(same))), regressed(mixed[0]),
                      regressed(holm(mixed)[0]))  # fmt: skip
        alone, adjusted, power, power_adjusted = rates / rounds
        print(f"{number:10} {alone:7.1%} {adjusted:7.1%} {power:11.1%} {power_adjusted:10.1%}")


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return independent normal errors of spread 1."""
    return rng.standard_normal(n)


def outliers(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return normal errors with one in ten of five times the spread, all upward."""
    return np.where(rng.random(n) < 0.1, np.abs(rng.normal(0, 5, n)), rng.standard_normal(n))


def autoregressive(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return AR(1) errors of spread 1 with coefficient 0.5."""
    errors = rng.standard_normal(n)
    for i in range(1, n):
        errors[i] = 0.5 * errors[i - 1] + errors[i] * 0.75**0.5
    return errors


def drifts(trials: int) -> None:
    """Print the rates of change points and trends over series of 60 sessions."""
    print("\nseries of 60 sessions, 1 % between them: share in which anything is reported\n")
    print(f"{'errors':18} {'change':22} {'change point':>12} {'trend':>7}")
    cases: list[tuple[str, Draw, str, np.ndarray]] = [
        (draw.__name__, draw, "none", np.zeros(60)) for draw in (normal, outliers, autoregressive)
    ]
    for size in (0.02, 0.03, 0.05):
        for after in (5, 10, 20):
            step = np.where(np.arange(60) >= 60 - after, np.log1p(size), 0.0)
            cases.append(("normal", normal, f"step {size:+.0%}, {after} after", step))
    for size in (0.02, 0.03, 0.05):
        cases.append(("normal", normal, f"ramp {size:+.0%} in all", np.linspace(0, np.log1p(size), 60)))
    for name, draw, words, shape in cases:
        rates = [
            share(trials, lambda rng, f=find, d=draw, s=shape: f(np.exp(s + 0.01 * d(rng, 60))))  # type: ignore[misc]
            for find in (lambda series: bool(change_points(series)), lambda series: trend_of(series).drifts)
        ]
        print(f"{name:18} {words:22} {rates[0]:12.1%} {rates[1]:7.1%}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="trials per figure (default: 2000)")
    trials = parser.parse_args().trials
    against_baseline(trials)
    in_turns(trials)
    several(trials)
    drifts(max(trials // 4, 100))


if __name__ == "__main__":
    main()
