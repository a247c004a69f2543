"""What this machine is: its GPU and driver, the versions installed, and the key that makes latencies comparable."""

from __future__ import annotations

from harness.machine.environment import commit, describe
from harness.machine.gpu import NOT_LOCKED, POWER_CAP, Gpu, Snapshot, growth, open_gpu
from harness.machine.identity import Machine, machine, system_keys

__all__ = [
    "NOT_LOCKED",
    "POWER_CAP",
    "Gpu",
    "Machine",
    "Snapshot",
    "commit",
    "describe",
    "growth",
    "machine",
    "open_gpu",
    "system_keys",
]
