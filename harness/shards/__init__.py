"""Tests of one run on several runners: split into shards of nearly equal time, and their records merged into one."""

from __future__ import annotations

from harness.shards.durations import Durations, read_durations, seconds_of
from harness.shards.merging import merge, part_name, parts_of, problems
from harness.shards.split import LATENCY, Shard, shard_of, split, split_sha256, split_tests

__all__ = [
    "LATENCY",
    "Durations",
    "Shard",
    "merge",
    "part_name",
    "parts_of",
    "problems",
    "read_durations",
    "seconds_of",
    "shard_of",
    "split",
    "split_sha256",
    "split_tests",
]
