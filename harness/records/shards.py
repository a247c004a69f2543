"""A run in shards: what the record of each says of itself, and the record that they make together of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard. A merged record has all fields of each; in a shard's own record the last six are its top level."""

    index: int
    """From 1."""
    of: int
    """How many there are; 1 of a run that was not split."""
    stage: str = ""
    """``latency`` where all of its tests measure latency."""
    split_sha256: str = ""
    """Hash of all tests and the shard of each; empty until they are collected."""
    durations: str = ""
    """Hash of the record whose durations split the tests; empty where they were split by count."""
    gpu: str = ""
    """What CUDA_VISIBLE_DEVICES was set to for it; empty where that was not set, or for each of its workers."""
    run: str = ""
    command: str = ""
    complete: bool = True
    error: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    """What the run was asked for."""
