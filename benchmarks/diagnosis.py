"""How often the diagnosis is right: planted faults with a known answer, through ``verify --layers`` and ``bisect``.

    python -m benchmarks.diagnosis                              # all of them
    python -m benchmarks.diagnosis --only several --jobs 2      # a group, in two processes
    python -m benchmarks.diagnosis --only gpt --list            # what there is
    python -m benchmarks.diagnosis --only several --with REAL=0.1    # with another threshold of the look

Weights and inputs are random, engines are those of ONNX Runtime on the CPU with faults written into their graphs. Exit
status: 1 where something that is asked was missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import multiprocessing
import os
import random
import statistics
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.planted.listed import PLANTS
from benchmarks.planted.measure import Outcome, measure
from benchmarks.planted.plants import Plant

THRESHOLDS = {
    "LEFT": ("harness.layers.explaining",),
    "REAL": ("harness.layers.explaining", "harness.layers.diagnosis"),
    "LITTLE": ("harness.layers.explaining",),
    "SAME": ("harness.layers.effects",),
}
"""What a look decides by, and the modules that read it."""
LABEL = "random weights, random inputs, CPU"


def chosen(patterns: Sequence[str], sample: int, seed: int) -> list[Plant]:
    """Return the plants whose name holds or fits one of the patterns; a sample of them where a number is given."""
    found = [p for p in PLANTS if not patterns or any(it in p.name or fnmatch(p.name, it) for it in patterns)]
    if sample and sample < len(found):
        found = random.Random(seed).sample(found, sample)
    return sorted(found, key=lambda plant: (plant.network.name, plant.file))  # what is exported once is used again


def measured(plant: Plant, thresholds: Mapping[str, float] = MappingProxyType({}), **options: bool) -> Outcome:
    """Return the outcome of a plant; what the harness raises is one too. ``thresholds`` are other values by name."""
    import torch

    torch.set_num_threads(1)
    for name, value in thresholds.items():
        for module in THRESHOLDS[name]:
            setattr(importlib.import_module(module), name, value)
    try:
        return measure(plant, **options)
    except Exception:
        last = traceback.format_exc().strip().splitlines()
        return Outcome(
            name=plant.name, group=plant.group, expected=sorted(plant.answer), kind=plant.kind,
            error="; ".join([last[-1], *(line.strip() for line in last if "/harness/" in line)][:3]),
        )  # fmt: skip


def misses(outcome: Outcome) -> list[str]:
    """Return what is wrong with an outcome."""
    if outcome.error:
        return [f"raised {outcome.error}"]
    if outcome.invalid and outcome.group != "clean":
        return [f"INVALID: {outcome.invalid}"]
    found = [outcome.invalid] if outcome.invalid else []
    if outcome.kind_right is False:
        found.append(f"kind {outcome.kind_found}, not {outcome.kind}")
    if outcome.look_first is False:
        found.append(f"look names {_short(outcome.look)}")
    if outcome.bisect_first is False:
        found.append(f"bisect names {_short(outcome.bisect)}")
    for who, complete, names in (
        ("look", outcome.look_all, outcome.look), ("bisect", outcome.bisect_all, outcome.bisect)
    ):  # fmt: skip
        if complete is False:
            found.append(f"{who} names only {_short(names)}")
    if outcome.false:
        found.append(f"false: {_short(outcome.false)}")
    if outcome.group == "clean" and outcome.trusted is False:
        found.append("not trusted")
    if outcome.region is not None and outcome.region > 12:
        found.append(f"region of {outcome.region}")
    if outcome.plan_smallest is False:
        found.append(f"plan {outcome.plan}, smallest {outcome.smallest[:2]}")
    if outcome.shape_right is False:
        found.append(f"looks like {outcome.shape}")
    if outcome.reproducer is False:
        found.append("no reproducer")
    return found


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"


def share(answers: Iterable[bool | None]) -> tuple[int, int]:
    """Return how many are right, of how many that were asked."""
    asked = [answer for answer in answers if answer is not None]
    return sum(asked), len(asked)


def percentile(numbers: Sequence[int], part: float) -> float:
    """Return the smallest number that at least this part of them does not exceed."""
    ordered = sorted(numbers)
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)] if ordered else 0


HEADS = (
    "cases", "kind", "look 1st", "bis 1st", "look all", "bis all", "false", "region", "smallest", "shape",
    "repro",    "builds", "s",
)  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the table by group."""
    yield f"{'':14}" + "".join(f"{head:>11}" for head in HEADS)
    groups = list(dict.fromkeys(outcome.group for outcome in outcomes))
    for group in [*groups, "all"]:
        own = [it for it in outcomes if group in (it.group, "all") and not it.invalid and not it.error]
        if not own:
            continue
        regions = [it.region for it in own if it.region is not None]
        builds = [it.builds for it in own if it.builds is not None]
        cells = [
            str(len(own)),
            *(_of([getattr(it, field) for it in own]) for field in
              ("kind_right", "look_first", "bisect_first", "look_all", "bisect_all")),
            str(sum(bool(it.false) for it in own)),
            f"{percentile(regions, 0.5):g} / {percentile(regions, 0.95):g}" if regions else "-",
            _of([it.plan_smallest for it in own]),
            _of([it.shape_right for it in own]),
            _of([it.reproducer for it in own]),
            f"{statistics.median(builds):g}" if builds else "-",
            f"{statistics.median(it.seconds for it in own):.1f}",
        ]  # fmt: skip
        yield f"{group:14}" + "".join(f"{cell:>11}" for cell in cells)


def _of(answers: Sequence[bool | None]) -> str:
    right, asked = share(answers)
    return f"{right}/{asked}" if asked else "-"


Goal = tuple[str, str, Callable[[Sequence[Outcome]], tuple[str, bool]]]


def _at_least(part: float, field: str) -> Callable[[Sequence[Outcome]], tuple[str, bool]]:
    def judge(outcomes: Sequence[Outcome]) -> tuple[str, bool]:
        right, asked = share(getattr(it, field) for it in outcomes)
        return f"{right}/{asked}" + (f" = {right / asked:.1%}" if asked else ""), right >= part * asked

    return judge


def _none(wrong: Callable[[Outcome], bool]) -> Callable[[Sequence[Outcome]], tuple[str, bool]]:
    def judge(outcomes: Sequence[Outcome]) -> tuple[str, bool]:
        count = sum(map(wrong, outcomes))
        return f"{count} of {len(outcomes)}", not count

    return judge


def _regions(part: float, most: int) -> Callable[[Sequence[Outcome]], tuple[str, bool]]:
    def judge(outcomes: Sequence[Outcome]) -> tuple[str, bool]:
        found = percentile([it.region for it in outcomes if it.region is not None], part)
        return f"{found:g}", found <= most

    return judge


GOALS: tuple[Goal, ...] = (
    ("kind right", "100 %", _at_least(1.0, "kind_right")),
    ("named first by the look", "99 %", _at_least(0.99, "look_first")),
    ("named first by bisect", "99 %", _at_least(0.99, "bisect_first")),
    ("all culprits of several", "95 %", _at_least(0.95, "bisect_all")),
    ("cases with a false suspect", "none", _none(lambda it: bool(it.false))),
    ("clean runs called wrong or not trusted", "none",
     _none(lambda it: it.group == "clean" and (it.verdict != "pass" or it.trusted is False))),
    ("operations that show it, median", "3", _regions(0.5, 3)),
    ("the same, 95th percentile", "12", _regions(0.95, 12)),
    ("smallest FP32 set", "brute force", _at_least(1.0, "plan_smallest")),
    ("plants without an answer", "none", _none(lambda it: bool(it.error or it.invalid) and it.group != "clean")),
)  # fmt: skip


def goals(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, bool]]:
    """Yield a line for each figure that is asked, and whether it is met."""
    valid = [it for it in outcomes if not it.error and not it.invalid]
    for name, asked, judge in GOALS:
        figure, met = judge(outcomes if name in ("plants without an answer", GOALS[5][0]) else valid)
        yield f"{name:42}{asked:>14}{figure:>18}   {'met' if met else 'MISSED'}", met


def run(plants: Sequence[Plant], jobs: int, thresholds: Mapping[str, float], **options: bool) -> Iterator[Outcome]:
    """Yield the outcomes as they come."""
    if jobs == 1:
        yield from map(partial(measured, thresholds=thresholds, **options), plants)
        return
    named = partial(_measured_by_name, thresholds=thresholds, **options)  # no plant can be pickled
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(named, [plant.name for plant in plants], chunksize=2)


def _measured_by_name(name: str, **options: Any) -> Outcome:
    return measured(next(plant for plant in PLANTS if plant.name == name), **options)


def _threshold(given: str) -> tuple[str, float]:
    name, _, value = given.partition("=")
    if name not in THRESHOLDS:
        raise argparse.ArgumentTypeError(f"no threshold {name!r}")
    return name, float(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="plants whose name holds or fits this; repeatable")
    parser.add_argument("--sample", type=int, default=0, help="so many of them, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--reproducers", action="store_true", help="run the script of every reproducer once more")
    parser.add_argument("--check", action="store_true", help="only whether the plants are valid")
    parser.add_argument(
        "--with", dest="thresholds", action="append", default=[], type=_threshold, metavar="NAME=VALUE",
        help=f"another threshold of the look: {', '.join(THRESHOLDS)}; repeatable",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    plants = chosen(given.only, given.sample, given.seed)
    if not plants:
        parser.error(f"no plant is called {' or '.join(given.only)}; --list has the names")
    if given.list:
        print("\n".join(plant.name for plant in plants))
        return 0
    outcomes = []
    for outcome in run(plants, given.jobs, dict(given.thresholds), check=given.check, scripts=given.reproducers):
        outcomes.append(outcome)
        if wrong := misses(outcome):
            print(
                f"{outcome.name}: expected {_short(outcome.expected or [outcome.kind])}; {'; '.join(wrong)}", flush=True
            )
        if given.json is not None:
            given.json.write_text(json.dumps([dataclasses.asdict(it) for it in outcomes], indent=1), encoding="utf-8")
    print(f"\n{len(outcomes)} plants, {LABEL}\n")
    if given.check:
        return 1 if any(it.invalid or it.error for it in outcomes) else 0
    print("\n".join(table(outcomes)), end="\n\n")
    lines = list(goals(outcomes))
    print("\n".join(line for line, _ in lines))
    return 0 if all(met for _, met in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
