"""What one bisection knows so far: its request, the answers it has, and the engines it may still build."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal, NoReturn

from harness import compare
from harness.bisect.regions import Regions
from harness.graph import Plan, load_plan
from harness.records import Gate, Kind, Price, Result, Trial
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.tensors import Tensors
from harness.verify import Run, judge_output, tolerance_for, verify_case

SHOWN = 4
"""Names that a sentence holds; the lists are elsewhere in the result."""


class Stop(Exception):
    """The bisection has come to its finding."""


class Hunt:
    """The state that the questions, the search for a region and the search for a plan share."""

    def __init__(
        self,
        subject: Subject,
        target: Target,
        case: str,
        settings: Settings,
        *,
        folder: Path,
        max_builds: int,
        limit: float | None,
        plan_file: Path | None,
        reproducer_folder: Path | None,
        executor: Executor | None,
        width: int,
    ) -> None:
        self.subject, self.target, self.case, self.settings, self.folder = subject, target, case, settings, folder
        self.max_builds, self.executor, self.width = max_builds, executor, width
        self.limit, self.plan_file, self.reproducer_folder = limit, plan_file, reproducer_folder
        self.session = Run(subject, settings, limit=limit)
        self.gates: list[Gate] = []
        self.trials: list[Trial] = []
        self.notes: list[str] = []
        self.kind: Kind = "not_judged"
        self.finding = ""
        self.advice: list[str] = []
        self.region: tuple[str, ...] = ()
        self.plan: tuple[str, ...] | None = None
        self.price: Price | None = None
        self.reproducer = ""
        self.complete, self.interrupted = True, False
        self.regions: Regions | None = None
        self.fp32_races = False
        """Whether the FP32 engine is right only when its kernels run one at a time: then no plan can be relied on."""
        self.only_tf32 = False
        """Whether FP32 is asked for, and the engine is wrong by no more than computing it in TF32."""
        self.gate_builds: int | None = None
        """Engines built before the search began, no part of its budget; None until it begins."""

    @property
    def builds(self) -> int:
        """Engines built so far; those from the cache do not count."""
        return self.session.engines.built + (self.regions.built if self.regions is not None else 0)

    @property
    def left(self) -> int:
        """Engines that may still be built."""
        return max(0, self.max_builds - (self.builds - (self.gate_builds or 0)))

    def right(self, outputs: Tensors) -> bool:
        """Return whether outputs of PyTorch would pass: within an explicit limit, else finite and not meaningless."""
        expected = self.session.prepared.references.reference(self.case, "fp32")
        plan = self.base_plan()
        for name, tensor in expected.items():
            stats = compare.compare(outputs[name], tensor, name=name)
            tolerance = tolerance_for(name, self.limit, self.subject.tolerances, plan)
            verdict = judge_output(
                name, stats, precision=plan.computes_in, floor=stats, tolerance=tolerance, is_floor=tolerance is None
            ).verdict
            if verdict != "pass":
                return False
        return True

    def floor_is_wrong(self) -> bool:
        """Return whether PyTorch in the same precision is as wrong as would fail an engine."""
        return not self.right(self.session.prepared.references.floor(self.case, self.base_plan()).outputs)

    def judge_target(self, target: Target) -> Result:
        """Return the verdict on a target. Raises UsageError only."""
        with self.session.target(target) as opened:
            return verify_case(opened, self.case).result

    def command(self, name: str, precision: str) -> str:
        """Return a command about the subject, the backend and the case in another precision."""
        options = ["-b", self.target.backend, "-p", precision, "--case", self.case]
        return f"parity {name} {self.subject.as_typed} {shlex.join(options)}"

    def base_plan(self) -> Plan:
        """Return the precision plan under test."""
        return load_plan(self.target.precision)

    def format(self) -> str:
        """Return the format its low-precision values compute in."""
        return self.base_plan().computes_in

    def say(self, words: str) -> None:
        """Say what is happening."""
        self.settings.progress(f"{self.subject.name}/{self.case} [{self.target}]: {words}")

    def gate(self, question: str, answer: Literal["yes", "no", "not asked"], detail: str) -> None:
        """Record the answer to a question."""
        self.gates.append(Gate(question=question, answer=answer, detail=detail))

    def stop(self, kind: Kind, finding: str) -> NoReturn:
        """End with this finding. Raises Stop."""
        self.kind, self.finding = kind, finding
        raise Stop


def few(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
