"""How often a latency verdict is wrong: false alarms and power of the rules in harness.latency and harness.history.

Sessions are simulated: the log medians of processes scatter about the level of their session, the sessions about the
true level as one of ``WORLDS`` has it. Every figure is a share of seeded trials through the public functions.

    python benchmarks/latency_verdict.py                            # every table; half an hour of one core
    python benchmarks/latency_verdict.py --only gate --trials 20    # a rough look at the gate, a minute
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from harness.history import RECENT, age_of, change_points, trend_of
from harness.latency import (
    ACCEPTED,
    ROUNDS,
    Control,
    compare_in_turns,
    compare_sessions,
    is_suspicious,
    judged_again,
)
from harness.machine import Machine
from harness.records import Comparison, Conditions, ProcessRun, Session, Summary

MACHINE = Machine(key="simulated", class_key="simulated")
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
    return compare_sessions(next(new), accepted, **options)


def share(trials: int, one: Callable[[np.random.Generator], bool]) -> float:
    """Return the share of seeded trials in which something holds."""
    rng = np.random.default_rng(0)
    return sum(bool(one(rng)) for _ in range(trials)) / trials


@dataclass(frozen=True, kw_only=True)
class World:
    """How a machine's times scatter: sessions about the truth, processes about their session."""

    spread: float = 0.005
    """Standard deviation of sessions, in the long run; of a walk its step."""
    kind: str = "normal"
    """The name of a method of ``Levels`` that draws the levels of sessions."""
    slow_processes: float = 0.0
    """Share of processes that are slower by 3 %."""
    accepted_outlier: float = 0.0
    """By how much one of the accepted sessions is slower."""


WORLDS = {
    "normal": World(),
    "lognormal": World(kind="lognormal"),
    "AR(1) 0.5": World(kind="autoregression_5"),
    "AR(1) 0.9": World(kind="autoregression_9"),
    "random walk": World(kind="walk"),
    "bimodal sessions": World(kind="bimodal", spread=0.003),
    "bimodal processes": World(slow_processes=0.25),
    "outliers": World(kind="outliers"),
    "outlier accepted": World(accepted_outlier=0.1),
}
"""The noise models: 0.3 % between processes, and in each session a linear drift of 0.3 % (standard deviation)."""
PROCESS_SPREAD, SESSION_DRIFT = 0.003, 0.003
CHANGES, BASELINES, GAPS, TARGETS = (0.01, 0.03, 0.05, 0.1), (4, 8), (0, 20, 60), 20
PYTORCH_SPREAD = 0.0015
"""Of sessions, by which PyTorch differs from the engine beside it."""


class Levels:
    """The level of one session after another, as the logarithm of a ratio."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng, self.level = world, rng, 0.0
        self.next = getattr(self, world.kind)
        for _ in range(50 if world.kind.startswith("auto") else 0):
            self.next()

    def normal(self) -> float:
        return float(self.rng.normal(0, self.world.spread))

    def lognormal(self) -> float:
        return self.world.spread * float(np.exp(self.rng.normal(0, 0.8)) - np.exp(0.32)) / 1.31

    def autoregression_5(self) -> float:
        return self._autoregression(0.5)

    def autoregression_9(self) -> float:
        return self._autoregression(0.9)

    def _autoregression(self, memory: float) -> float:
        self.level = memory * self.level + self.normal() * (1 - memory**2) ** 0.5
        return self.level

    def walk(self) -> float:
        self.level += self.normal()
        return self.level

    def bimodal(self) -> float:
        return self.normal() + (np.log(1.03) if self.rng.random() < 0.25 else 0.0)

    def outliers(self) -> float:
        return self.normal() + (np.log(1.1) if self.rng.random() < 0.05 else 0.0)


def medians(world: World, rng: np.random.Generator, level: float, processes: int, drift: float = 0.0) -> np.ndarray:
    """Return the medians of the processes of one session, in ms."""
    slow = np.log(1.03) * (rng.random(processes) < world.slow_processes)
    return np.exp(level + drift + rng.normal(0, PROCESS_SPREAD, processes) + slow)


class Target:
    """One target on a machine: its accepted baseline, what came since, and the session that is judged."""

    def __init__(self, world: World, rng: np.random.Generator, *, baseline: int, gap: int) -> None:
        self.world, self.rng = world, rng
        levels = Levels(world, rng)
        drawn = [levels.next() for _ in range(baseline)]
        drawn[-1] += np.log1p(world.accepted_outlier)
        old = [session(medians(world, rng, level, 5), f"b{i}") for i, level in enumerate(drawn)]
        self.accepted, self.drawn = old, drawn
        later = [levels.next() for _ in range(gap)][-RECENT:]
        since = [float(np.median(medians(world, rng, level, 5))) for level in later]
        self.age = age_of([float(np.median(one.medians())) for one in old], since, days=gap)
        self.level = levels.next()

    def of_pytorch(self) -> float:
        return float(self.rng.normal(0, PYTORCH_SPREAD))

    def first_look(self, change: float) -> Comparison:
        """Return the verdict by stored times."""
        new = session(medians(self.world, self.rng, self.level + np.log1p(change), 5), "new")
        return replace(compare_sessions(new, self.accepted), age=self.age)

    def judged(self, change: float, control: str = ACCEPTED) -> Comparison:
        """Return the verdict of the whole gate on an engine that is slower by ``change``."""
        first = self.first_look(change)
        if not control or not is_suspicious(first):
            return first
        beside, own = self.accepted, 0.0
        if control != ACCEPTED:
            levels = [level + self.of_pytorch() for level in self.drawn]
            beside = [session(medians(self.world, self.rng, level, 5), "p") for level in levels]
            own = self.of_pytorch()
        found, total, mine, theirs = None, 0, np.array([]), np.array([])
        drift = self.rng.normal(0, SESSION_DRIFT)
        for total in ROUNDS:
            place = np.arange(2 * ROUNDS[-1]).reshape(-1, 2)
            place[1::2] = place[1::2, ::-1]  # A B B A
            part = drift * place[len(mine) : total] / (2 * ROUNDS[1])  # a longer look drifts further
            size = len(part)
            theirs = np.append(theirs, medians(self.world, self.rng, self.level + own, size, part[:, 0]))
            mine = np.append(mine, medians(self.world, self.rng, self.level + np.log1p(change), size, part[:, 1]))
            side = Control(name=control, now=session(theirs, "c"), then=list(zip(self.accepted, beside, strict=True)))
            found = judged_again(first, session(mine, "again"), side, last=total == ROUNDS[-1])
            if found is not None:
                break
        assert found is not None
        return found


def rates(world: World, trials: int, *, baseline: int, gap: int, control: str = ACCEPTED) -> dict[str, float]:
    """Return the shares of seeded trials, each a run of TARGETS targets of which one may be slower."""
    rng = np.random.default_rng(baseline * 100 + gap)
    counts = dict.fromkeys(("alarm", "run", "looks", "equivalent", "machine_changed", "inconclusive", *CHANGES), 0.0)
    for _ in range(trials):
        targets = [Target(world, rng, baseline=baseline, gap=gap) for _ in range(TARGETS)]
        same = [target.judged(0.0, control) for target in targets]
        alarms = [repeated(one) for one in same]
        counts["run"] += any(alarms) * TARGETS
        counts["alarm"] += sum(alarms)
        counts["looks"] += sum(one.second_look is not None for one in same)
        for verdict in ("equivalent", "machine_changed", "inconclusive"):
            counts[verdict] += sum(one.verdict == verdict for one in same)
        for change in CHANGES:
            counts[change] += repeated(targets[0].judged(change, control)) * TARGETS
    return {name: count / trials / TARGETS for name, count in counts.items()}


def gate(trials: int, control: str, gaps: tuple[int, ...] = GAPS) -> None:
    """Print false alarms and power of the whole design."""
    print(
        f"\nthe gate, {trials} runs of {TARGETS} targets a row; second look against: {control}; every engine is a new"
    )
    print(
        "file. Sessions 0.5 % apart, 0.3 % in two modes; a walk moves by 0.5 % a session. False alarms per target and"
    )
    print(
        "per run; A/A: second looks and verdicts per target; power: the one slower target of a run fails it (the same"
    )
    print("for 1 and 20 targets: nothing is corrected for their number)\n")
    heads = ("target", "run of 20", "looks", "equal", "machine", "unclear", *(f"{change:+.0%}" for change in CHANGES))
    print(f"{'noise':18} {'base':>4} {'later':>5} " + " ".join(f"{head:>9}" for head in heads))
    for name, world in WORLDS.items():
        for baseline in BASELINES:
            for gap in gaps:
                row = rates(world, trials, baseline=baseline, gap=gap, control=control)
                cells = " ".join(f"{share:9.2%}" for share in row.values())
                print(f"{name:18} {baseline:4} {gap:5} {cells}", flush=True)


def regressed(comparison: Comparison) -> bool:
    """Return whether the verdict is a regression."""
    return comparison.verdict == "regressed"


def repeated(comparison: Comparison) -> bool:
    """Return whether a run fails on it."""
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
    parser.add_argument("--trials", type=int, default=500, help="runs of 20 targets per row (default: 500)")
    parser.add_argument("--only", choices=("gate", "pytorch", "series"), help="one part; default: all")
    options = parser.parse_args()
    if options.only in (None, "gate"):
        gate(options.trials, ACCEPTED)
    if options.only in (None, "pytorch"):
        gate(options.trials, "eager fp32", gaps=(0, 60))
    if options.only in (None, "series"):
        in_turns(options.trials * 4)
        drifts(max(options.trials, 100))


if __name__ == "__main__":
    main()
