"""Groups of tests to shards, by what they cost: every runner finds the same, and every group is in one shard."""

from __future__ import annotations

import hashlib
import heapq
import json
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.records import name_of
from harness.shards.durations import Durations, Name

LATENCY = "latency"
"""The stage that measures latency, and the mark of its tests."""
MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One part of a run."""

    index: int
    """From 1."""
    of: int
    """How many there are."""

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def shard_of(text: str) -> Shard:
    """Return the shard that ``I/N`` names. Raises ArgumentTypeError for anything else."""
    index, _, of = text.partition("/")
    if not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in (index, of)):
        raise ArgumentTypeError(f"{text!r} is no shard; give I/N, such as 2/3")
    found = Shard(index=int(index), of=int(of))
    if not 1 <= found.index <= found.of <= MOST:
        raise ArgumentTypeError(f"there is no shard {text}: of N the shards are 1/N to N/N, and N is at most {MOST}")
    return found


def split(costs: Mapping[str, float], of: int) -> dict[str, int]:
    """Return the shard of each group, from 1: the costliest first, each to the shard that has the least so far.

    No shard costs more than 4/3 - 1/(3 ``of``) times what the best split has (R. L. Graham, Bounds on multiprocessing
    timing anomalies, 1969). Groups of equal cost go by their names, so the order of ``costs`` changes nothing.
    """
    shards = [(0.0, 0, number) for number in range(1, of + 1)]
    found = {}
    for name in sorted(costs, key=lambda name: (-costs[name], name)):
        cost, groups, number = shards[0]
        found[name] = number
        heapq.heapreplace(shards, (cost + costs[name], groups + 1, number))
    return found


def split_tests(tests: Mapping[str, Mapping[str, Any] | None], of: int, durations: Durations) -> dict[str, int]:
    """Return the shard of each test; those of one subject and target, which share an engine, are in one shard.

    ``tests`` has what each is to judge, or None. Without durations the groups cost as many as they have tests.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    names: dict[tuple[str, ...], set[Name]] = {}
    for test, asked in tests.items():
        name = name_of(asked) if asked else (test,)
        group = (name[0], *name[2:])
        groups.setdefault(group, []).append(test)
        names.setdefault(group, set()).add(name)
    costs = {
        json.dumps(group): durations.cost(names[group]) if durations.seconds else float(len(found))
        for group, found in groups.items()
    }
    shards = split(costs, of)
    return {test: shards[json.dumps(group)] for group, found in groups.items() for test in found}


def split_sha256(shards: Mapping[str, int]) -> str:
    """Return the hash of tests and the shard of each: of runners that collected or split otherwise it differs."""
    return hashlib.sha256(json.dumps(sorted(shards.items())).encode()).hexdigest()
