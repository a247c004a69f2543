"""What a bisection found, as data. See docs/json.md."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from harness.records.accuracy import Result
from harness.records.data import TargetRecord
from harness.records.diagnosis import Diagnosis

Kind = Literal["none", "precision", "engine", "export", "not_judged"]
Answer = Literal["yes", "no", "not asked"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question asked before anything is blamed, and its answer."""

    question: str
    """Such as ``is the engine repeatable?``"""
    answer: Answer
    """``yes``, ``no`` or ``not asked``."""
    detail: str
    """The figures, in one sentence."""
    good: Literal["yes", "no"] = "yes"
    """The answer of an engine that is right."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What was seen, what it means and what to do about it: a phrase each, without a full stop."""

    indicator: str
    """What was seen, with the figures."""
    meaning: str
    """What that means."""
    action: str
    """What to do."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One precision plan that was tried."""

    keep_fp32: tuple[str, ...]
    """The patterns it kept in FP32."""
    where: Literal["pytorch", "engine"]
    """Whether it ran in PyTorch or on an engine."""
    passed: bool | None
    """None when it could not be judged: the build was refused, or the reason says what else."""
    error: float | None
    """Largest relative L2 error of an output."""
    reason: str = ""
    """Why it did not pass, or was not judged; one sentence."""
    values: int | None = None
    """How many values that keeps in FP32; None in files from before it was counted."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the outputs of a plan may lose."""

    source: Literal["limit", "declared", "floor", "region", "holds"]
    """``limit``: asked for by ``--limit``; ``declared``: the subject's tolerances; ``floor``: from what PyTorch loses
    in the plain precision; ``region``: from what it loses with the values that are out of line in FP32; ``holds``: none
    is out of line, so from what it loses in the first plan in which it holds the model."""
    limits: dict[str, float]
    """By output of floats: relative L2 error that the whole may have; its parts have limits of their own."""
    reason: str
    """Where the limits come from; one phrase."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What PyTorch loses with so many values in FP32, those first whose rounding costs most."""

    values: int
    error: float | None
    """Largest relative L2 error of an output; None where it is not finite."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """GPU (or CPU) time of one run of three engines, in turns: of each the smaller of two medians."""

    device: str
    """What the engines ran on: a GPU's name, or ``CPU``."""
    plan_ms: float
    """Of the engine with the plan."""
    low_ms: float
    """Of the engine in full low precision."""
    fp32_ms: float
    """Of the FP32 engine."""


@dataclass(frozen=True, kw_only=True)
class Bisection(TargetRecord):
    """Whose fault it is, what to keep in FP32, and what it costs. The names of the fields are the keys of the JSON."""

    kind: Kind
    """``none`` when the engine passes."""
    finding: str
    """One sentence."""
    advice: tuple[Advice, ...]
    """What it means and what to do."""
    commands: tuple[str, ...] = ()
    """What to type next, one shell command each."""
    gates: tuple[Question, ...]
    """The questions in the order they were asked."""
    result: Result | None = None
    """The verdict on the engine that was bisected; None where there is none."""
    races: bool = False
    """Whether the error shrinks when the engine's kernels run one at a time: they overlap and must not."""
    diagnosis: Diagnosis | None = None
    """Every culprit, with the size of the part that shows it alone; None where nothing is wrong."""
    cause: str = ""
    """What the precision cannot hold first, such as ``add_5 overflows (2.23e+05 in FP32, beyond 65504)``; empty where
    it holds all, or is not to blame."""
    region: tuple[str, ...] = ()
    """The values (engine, export) or the patterns (precision) that show it."""
    plan: tuple[str, ...] | None = None
    """Patterns kept in FP32 by the plan of fewest values that passed on the engine as it is, without taps; None when
    none passed."""
    plan_values: int | None = None
    """How many values those patterns keep in FP32."""
    goal: Goal | None = None
    """What the outputs of a plan may lose; None where no plan was searched."""
    by_values: tuple[Kept, ...] = ()
    """What PyTorch loses with more and more values in FP32; empty where the precision is not at fault."""
    plan_file: str = ""
    """Where the plan was written."""
    reproducer: str = ""
    """The folder of the reproducer; empty when there is none."""
    price: Price | None = None
    """What the plan costs; None when nothing was timed."""
    trials: tuple[Trial, ...] = ()
    """Every plan tried on an engine, and the last ones tried in PyTorch."""
    builds: int = 0
    """Engines built, that of the reproducer's script with them; those from the cache do not count."""
    gate_builds: int = 0
    """Those of them that the questions and the look needed."""
    max_builds: int = 0
    """How many could be built, all together."""
    complete: bool = True
    """False when the search was ended early (signal, builds, time): the plan passes, and a smaller one may exist."""
    interrupted: bool = False
    """Whether a signal ended the search, such as Ctrl-C."""
    limit: str = ""
    """The option whose time ended the search, such as ``--budget``; empty where none did."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the figures."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys; figures that are not finite become None."""
        data = dataclasses.replace(self, result=None)
        return {**super(Bisection, data).to_json(), "result": self.result.to_json() if self.result else None}
