"""What one bisection was asked for."""

from __future__ import annotations

import math
import shlex
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.settings import Settings
from harness.subject import Subject, Target


@dataclass(frozen=True, kw_only=True)
class Request:
    """One bisection as it was asked for. Raises UsageError for limits that make no sense."""

    subject: Subject
    target: Target
    """The engine that is wrong, or may be."""
    case: str
    settings: Settings
    folder: Path
    """For the plans and parts of the graph that are tried; whoever made it deletes it."""
    max_builds: int
    """Engines that the search may build; those that the questions need come on top."""
    limit: float | None
    """The relative L2 error that outputs may have, in place of the limits derived or declared."""
    plan_file: Path | None
    """Where the smallest plan that passes is written."""
    reproducer: Path | None
    """The folder of the reproducer; None for one below ``reports``."""
    executor: Executor | None
    """Builds engines of candidate plans at the same time."""
    width: int
    """How many of them at a time."""

    def __post_init__(self) -> None:
        if self.max_builds < 1:
            raise UsageError(f"--max-builds {self.max_builds} leaves nothing to confirm a plan with; give at least 1")
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise UsageError(f"--limit {self.limit} is not a relative error; give a number above 0, such as 1e-3")

    def command(self, name: str, precision: str) -> str:
        """Return a command about the subject, the backend and the case in a precision, as a shell reads it."""
        options = ["-b", self.target.backend, "-p", precision, "--case", self.case]
        return f"parity {name} {self.subject.as_typed} {shlex.join(options)}"

    def say(self, target: Target, words: str) -> None:
        """Say what is happening to a target."""
        self.settings.progress(f"{self.subject.name}/{self.case} [{target}]: {words}")
