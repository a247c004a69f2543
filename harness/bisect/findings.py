"""What a bisection has found so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.bisect.goals import Aim
from harness.bisect.plan_search import PlanFound
from harness.bisect.regions import Region
from harness.bisect.screening import Screened
from harness.bisect.units import Candidates
from harness.errors import few
from harness.graph import Plan, is_fp32, load_plan
from harness.records import Diagnosis, Kind, LayerReport, OutputResult, Price, Question, Result, Trial
from harness.subject import Target
from harness.verify import cannot_hold

PYTORCH_TRIALS = 3
"""Plans tried in PyTorch that are recorded: those that were tried last decided."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known so far. Every step of :mod:`harness.bisect.bisection` returns a new one."""

    target: Target
    """The engine that the figures are of: the requested one, or the FP32 engine where that is wrong too."""
    questions: tuple[Question, ...] = ()
    """In the order they were asked."""
    notes: tuple[str, ...] = ()
    """Sentences on how far the finding holds."""
    kind: Kind = "not_judged"
    """Where the error comes from."""
    finding: str = ""
    """The finding in one sentence; empty until there is one."""
    ended: bool = False
    """Whether nothing is left to find out."""
    complete: bool = True
    """False when something was not tried that might have given more."""
    interrupted: bool = False
    """Whether a KeyboardInterrupt ended it."""
    result: Result | None = None
    """The verdict on the target; None until the first step is done."""
    fp32_right: bool = False
    """Whether the FP32 engine is right, but for computing in TF32 or racing: then the export is right too."""
    fp32_races: bool = False
    """Whether the FP32 engine is right only when its kernels run one at a time: then no plan can be relied on."""
    races: bool = False
    """Whether the target's error shrinks when its kernels run one at a time."""
    only_tf32: bool = False
    """Whether FP32 is requested, and the error is no larger than that of computing in TF32."""
    export: Diagnosis | None = None
    """The operations that the export gets wrong; None where it is right."""
    report: LayerReport | None = None
    """The values of the target's engine; None where they could not be observed."""
    diagnosis: Diagnosis | None = None
    """Every culprit of the engine and the export; None before they were searched."""
    cause: str = ""
    """What the precision cannot hold first, where that is to blame."""
    region: tuple[str, ...] = ()
    """The values (engine, export) or the patterns (precision) that show the fault."""
    part: Region | None = None
    """The smallest part of the graph that shows the fault when it is built alone."""
    candidates: Candidates | None = None
    """What a plan may have to keep in FP32; None before the search for the region."""
    aim: Aim | None = None
    """What the outputs of a plan may lose; None before the search for the region."""
    screened: Screened | None = None
    """What the search in PyTorch found; None where there was none."""
    plans: PlanFound | None = None
    """What the search on engines found; None where no plan was searched."""
    reproducer: str = ""
    """The folder of the reproducer; empty where there is none."""
    price: Price | None = None

    @property
    def base_plan(self) -> Plan:
        """The precision plan of the target."""
        return load_plan(self.target.precision)

    @property
    def failure(self) -> Result:
        """The verdict on the target; from the second step on there is one, and it fails."""
        assert self.result is not None
        return self.result

    @property
    def without_floor(self) -> tuple[OutputResult, ...]:
        """The outputs of which PyTorch loses too much in this precision to be a floor, or has none."""
        outputs, precision = self.failure.outputs, self.base_plan.computes_in
        return tuple(it for it in outputs if it.floor is None or cannot_hold(it.floor, precision))

    @property
    def loses_too_much(self) -> bool:
        """Whether an output was not judged only because PyTorch loses too much in this precision to be a floor."""
        return not is_fp32(self.base_plan) and any(it.floor and it.verdict == "not_judged" for it in self.without_floor)

    @property
    def plan(self) -> tuple[str, ...] | None:
        """The patterns of the smallest plan that passed; None when none did."""
        return self.plans.plan if self.plans is not None else None

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The last plans tried in PyTorch, and every plan tried on an engine."""
        in_pytorch = self.screened.trials[-PYTORCH_TRIALS:] if self.screened is not None else ()
        return (*in_pytorch, *(self.plans.trials if self.plans is not None else ()))

    def asked(self, *questions: Question) -> Findings:
        """Return a copy with more questions."""
        return replace(self, questions=(*self.questions, *questions))

    def noted(self, *notes: str) -> Findings:
        """Return a copy with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def ending(self, kind: Kind, finding: str) -> Findings:
        """Return a copy that ends the bisection."""
        return replace(self, kind=kind, finding=finding, ended=True)


def shortened(names: Sequence[str]) -> str:
    """Return the first four names, and the number of others."""
    return few(names, 4)
