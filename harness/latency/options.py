"""How contestants are timed: the number of processes, and what each measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import unknown_name
from harness.records import Runner

PROCESSES = 5
MOST_PROCESSES = 15
"""An inconclusive comparison gets more processes, up to this number."""
BASELINES: Mapping[str, tuple[Runner, str]] = {
    "eager-fp32": ("eager", "fp32"),
    "eager-tf32": ("eager", "tf32"),
    "eager-fp16": ("eager", "fp16"),
    "eager-bf16": ("eager", "bf16"),
    "compile": ("compile", "fp32"),
    "compile-fp16": ("compile", "fp16"),
}
"""PyTorch as a baseline: runner and precision by name."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure."""

    processes: int = PROCESSES
    baselines: tuple[str, ...] | None = None
    """Names of ``BASELINES``; None for eager FP32, and on a GPU eager FP16 and torch.compile as well."""
    graph: bool = True
    """Replay a CUDA graph of the engine; PyTorch runs without one."""
    l2: Literal["warm", "flush"] = "warm"
    """The GPU's L2 cache before each run."""
    throughput: bool = True
    """Measure the runs per second under load as well."""
    kernels: bool = False
    """Time every kernel as well."""
    record: bool = True
    """Add the sessions to the history."""
    lock_clocks: int | None = None
    """MHz; None leaves the clocks alone."""
    suites: Path = Path("suites")
    """Where a process finds the subject of a suite."""
    locator: str = ""
    """The subject's locator for a process; empty for the subject's own, or its name."""
    neighbours: tuple[int, ...] = ()
    """The ids of processes that may hold memory of the GPU meanwhile: they wait."""
    sampling: Mapping[str, Any] | None = None
    """Fields of ``harness.timing.sampling.Sampling`` that differ from their defaults."""

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown baseline."""
        for name in self.baselines or ():
            if name not in BASELINES:
                raise unknown_name("baseline", name, [*BASELINES, "none"])
