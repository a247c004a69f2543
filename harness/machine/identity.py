"""The machine that a latency belongs to: as a key, which a baseline must share, and as facts for a reader."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.machine import environment
from harness.machine.gpu import open_gpu
from harness.machine.variables import timed_variables


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine of a session; a baseline must have the same key."""

    key: str
    """Hash of everything that makes latencies comparable: GPU, power limit, driver, CUDA, backend version, CPU."""
    class_key: str
    """Hash of the GPU model, memory and MIG profile: sessions of the same class give advice but no verdict."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The hashed facts, and others (host name, UUID)."""
    system_key: str = ""
    """Hash of the facts of ``key`` without the backend and its version: the same for sessions of all backends."""


KEY_LENGTH = 16
RECORDED = ("host", "uuid", "persistence", "pcie_generation", "pcie_width", "max_sm_mhz", "confidential_compute")
"""Facts that are recorded and not hashed: on cloud machines of one name they vary."""
CLASS = ("gpu", "memory_gib", "mig", "multiprocessors", "cpu")
"""Facts of the class, which is independent of the driver."""
BACKEND = ("backend", "backend_version")
"""Facts of the key that the system key lacks."""


def machine(backend_name: str, backend_version: str, on_gpu: bool, *, locked_mhz: int | None = None) -> Machine:
    """Return this machine; ``locked_mhz`` is the clock that it was locked at during the measurement.

    The key is over everything that makes latencies comparable: GPU, multiprocessors, memory, power limit, MIG, ECC,
    locked clock, driver, CUDA, the backend and its version, the CPU model, on the CPU how many cores may be used, and
    the environment variables that make libraries faster or slower, where any is set.
    """
    import torch

    facts: dict[str, Any] = {
        "backend": backend_name,
        "backend_version": backend_version,
        "cpu": environment.cpu_name(),
        "host": platform.node(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if on_gpu:
        facts |= _gpu_facts() | {"locked_mhz": locked_mhz}
    else:
        facts |= {"cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}
    if variables := timed_variables():
        facts["variables"] = variables
    hashed = {name: value for name, value in facts.items() if name not in RECORDED}
    # The class of a GPU is independent of the CPU.
    kind = {name: facts[name] for name in CLASS if name in facts and not (on_gpu and name == "cpu")}
    system = {name: value for name, value in hashed.items() if name not in BACKEND}
    return Machine(key=key_of(hashed), class_key=key_of(kind), system_key=key_of(system), facts=facts)


def system_keys() -> set[str]:
    """Return the system keys of sessions that are measured here now: on the CPU, and on the GPU if there is one."""
    import torch

    places = (False, True) if torch.cuda.is_available() else (False,)
    return {machine("", "", on_gpu).system_key for on_gpu in places}


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the first KEY_LENGTH digits of the SHA-256 of facts, sorted by name."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _gpu_facts() -> dict[str, Any]:
    import torch

    device = torch.device("cuda", torch.cuda.current_device())
    properties = torch.cuda.get_device_properties(device)
    with open_gpu(device) as gpu:
        facts = gpu.facts()
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        # Rounded: the amount that the driver reserves varies.
        "memory_gib": round(properties.total_memory / 2**30),
        "cuda": torch.version.cuda,
        **facts,
    }
