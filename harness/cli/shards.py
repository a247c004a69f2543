"""``parity verify --shard I/N``: the part of the targets that this run has."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.machine import VISIBLE, gpu_for, take_gpu
from harness.settings import print_progress
from harness.shards import Shard, split_sha256, split_tests

if TYPE_CHECKING:
    from harness.subject import Target

Json = dict[str, Any]
_SHARED = (
    "backend", "precision", "case", "require", "runs", "limit", "seed_random", "update_references", "no_engine_cache",
    "device", "timeout", "memory", "layers", "shape",
)  # fmt: skip
"""Options that all shards of a run must share."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a run has of what was asked for."""

    targets: tuple[Target, ...]
    keys: Json
    """Of its record: ``shard``, ``elsewhere``, ``parameters``."""
    elsewhere: frozenset[str] = field(default_factory=frozenset)
    """Backends that only other shards have."""


def take_gpu_of(options: argparse.Namespace) -> str:
    """Give this process the GPU of its shard, before CUDA starts; return which, empty where nothing changes."""
    shard: Shard | None = options.shard
    if options.gpus == () or not (shard or options.gpus):
        return ""
    variables = gpu_for(shard.index - 1 if shard else 0, options.gpus)
    take_gpu(variables)
    return variables.get(VISIBLE, "")


def part_of(
    options: argparse.Namespace, targets: Sequence[Target], asked: Sequence[Json], gpu: str, *, history: Path
) -> Part:
    """Return the targets of this run's shard, all without ``--shard``; ``asked`` is what the whole run judges.

    ``history`` is the folder of a history that no option names. Raises UsageError for a file that holds no durations.
    """
    from harness.history import durations_from

    given = {name: value for name in _SHARED if (value := vars(options)[name]) not in (None, [], False)}
    parameters = {name: str(value) for name, value in given.items()}
    shard: Shard | None = options.shard
    if shard is None:
        if options.durations_from is not None:
            raise UsageError("--durations-from splits targets; give --shard I/N as well")
        return Part(targets=tuple(targets), keys={"parameters": parameters, "shard": None, "elsewhere": []})
    durations = durations_from(options.durations_from, folder=history, url=options.history)
    tests: dict[str, Json] = {f"{one['case']} [{one['backend']}-{one['precision']}]": one for one in asked}
    shards = split_tests(tests, shard.of, durations)
    elsewhere = [
        {**one, "shard": shards[test], "stage": ""} for test, one in tests.items() if shards[test] != shard.index
    ]
    names = {(one["backend"], one["precision"]) for test, one in tests.items() if shards[test] == shard.index}
    mine = tuple(target for target in targets if (target.backend, target.precision_name) in names)
    print_progress(f"shard {shard}: {len(mine)} of {len(targets)} targets, split {durations.words}")
    found = {
        "index": shard.index, "of": shard.of, "stage": "", "split_sha256": split_sha256(shards),
        "durations": durations.sha256, "gpu": gpu,
    }  # fmt: skip
    return Part(
        targets=mine,
        keys={"parameters": parameters, "shard": found, "elsewhere": elsewhere},
        elsewhere=frozenset(one["backend"] for one in elsewhere) - {target.backend for target in mine},
    )
