"""This machine: its GPU and driver, the installed versions, and the key that makes latencies comparable."""

from __future__ import annotations

from harness.machine.choice import VISIBLE, gpu_for, take_gpu, visible_gpus
from harness.machine.command import command_line
from harness.machine.environment import CHANGED, commit, describe, installed_version, user_name
from harness.machine.gpu import POWER_CAP, ClockLock, Gpu, Snapshot, growth, open_gpu
from harness.machine.identity import Machine, key_of, machine, system_keys
from harness.machine.variables import BUILDING, COMPUTING, set_variables

__all__ = [
    "BUILDING",
    "CHANGED",
    "COMPUTING",
    "POWER_CAP",
    "VISIBLE",
    "ClockLock",
    "Gpu",
    "Machine",
    "Snapshot",
    "command_line",
    "commit",
    "describe",
    "gpu_for",
    "growth",
    "installed_version",
    "key_of",
    "machine",
    "open_gpu",
    "set_variables",
    "system_keys",
    "take_gpu",
    "user_name",
    "visible_gpus",
]
