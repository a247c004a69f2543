"""How contestants are timed: by how many processes, and what each of them does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import unknown_name
from harness.records import Runner

PROCESSES = 5
MOST_PROCESSES = 15
"""An inconclusive comparison gets more processes, up to so many."""


BASELINES: Mapping[str, tuple[Runner, str]] = {
    "eager-fp32": ("eager", "fp32"),
    "eager-tf32": ("eager", "tf32"),
    "eager-fp16": ("eager", "fp16"),
    "eager-bf16": ("eager", "bf16"),
    "compile": ("compile", "fp32"),
    "compile-fp16": ("compile", "fp16"),
}
"""PyTorch that an engine may be compared with: how it runs, and in which precision."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure."""

    processes: int = PROCESSES
    baselines: tuple[str, ...] | None = None
    """Names of ``BASELINES``; None for eager FP32, and on a GPU eager FP16 and torch.compile as well."""
    graph: bool = True
    """Replay a CUDA graph of the engine; PyTorch runs as it is."""
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
    """Where a process looks for the subject that is a suite's name."""
    locator: str = ""
    """What a process finds the subject by, where that is neither its own locator nor its name."""
    sampling: Mapping[str, Any] | None = None
    """Figures of ``harness.timing.sampling.Sampling`` that are to be others; None for its own."""

    def __post_init__(self) -> None:
        """Raise UsageError for a baseline that there is not."""
        for name in self.baselines or ():
            if name not in BASELINES:
                raise unknown_name("baseline", name, [*BASELINES, "none"])
