"""What a plan may lose, and why: the limit that was asked for, or what PyTorch loses once the culprits are in FP32.

An engine of a mixed plan is never held against its own floor alone: where the plan leaves a culprit in low precision,
PyTorch is as wrong as the engine, and anything would pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.graph import Plan, load_plan
from harness.records import Goal, OutputResult, Result
from harness.sentences import Sentence
from harness.subject import Target
from harness.tensors import Tensors
from harness.verify import FACTOR, OpenTarget, Run, judged_by, tolerance_for


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What an engine's outputs are held against, besides the floor of its own plan."""

    goal: Goal
    """As it is recorded."""
    plain: Plan
    """The plan without anything added: nothing is judged more loosely than its engine was."""
    floor: Plan | None = None
    """The plan with all culprits in FP32; None where the goal does not come from one."""
    without: Mapping[str, OutputResult]
    """The verdicts on the engine without a plan: what it got wrong must not get worse."""

    def judge(self, opened: OpenTarget, case: str, actual: Tensors | None = None) -> str:
        """Return why outputs do not reach the goal; empty where they do.

        Those of ``opened`` are judged, or ``actual`` in their place.
        """
        plans = [plan for plan in (self.floor, self.plain) if plan is not None]
        for plan in plans:
            for output in judged_by(opened, case, plan, actual=actual):
                # A format that cannot hold the model is no floor, and judges nothing.
                if output.verdict != "pass" and (plan is plans[0] or output.verdict == "fail"):
                    return Sentence("of", name=output.name, reason=output.reason)
                if reason := _worse(output, self.without.get(output.name)):
                    return reason
        return ""


def _worse(now: OutputResult, before: OutputResult | None) -> str:
    """Return that an output which was wrong as a whole has become more so; else an empty string."""
    if before is None or before.verdict == "pass" or before.stats is None or now.stats is None:
        return ""
    was, limit = before.stats.relative_l2, before.allowed.get("relative_l2", -math.inf)
    if was > limit and now.stats.relative_l2 > was and not before.stats.mismatched_nonfinite:
        return Sentence("worse_than_without", name=now.name, relative_l2=now.stats.relative_l2, was=was)
    return ""


def aim_of(run: Run, case: str, precision: str, result: Result) -> Aim:
    """Return the goal where PyTorch holds the model in a plain precision: its own error there, unless there is a limit.

    ``result`` is the verdict on the engine without a plan. Raises NotJudged where PyTorch cannot run the model so.
    """
    plain = load_plan(precision)
    without = {output.name: output for output in result.outputs}
    floor = run.prepared.references.floor(case, plain).outputs
    with run.target(Target("torch", precision)) as opened:
        limits = _limits(judged_by(opened, case, plain, actual=floor))
    if run.limit is not None:
        goal = Goal(source="limit", limits=dict.fromkeys(without, run.limit), reason=Sentence("limit_asked_for"))
    elif all(tolerance_for(name, None, run.subject.tolerances, plain) for name in without):
        goal = Goal(source="declared", limits=limits, reason=Sentence("tolerance_of_subject"))
    else:
        what = Sentence("times_pytorch_loses", factor=FACTOR, computes_in=plain.computes_in)
        goal = Goal(source="floor", limits=limits, reason=what)
    return Aim(goal=goal, plain=plain, without=without)


def with_floor(aim: Aim, floor: Plan, judged: Sequence[OutputResult], reason: str, *, few: bool) -> Aim:
    """Return a goal that follows from a plan with the culprits in FP32; ``judged`` are PyTorch's outputs in it."""
    goal = Goal(source="region" if few else "holds", limits=_limits(judged), reason=reason)
    return replace(aim, floor=floor, goal=goal)


def _limits(outputs: Sequence[OutputResult]) -> dict[str, float]:
    return {output.name: output.allowed["relative_l2"] for output in outputs if "relative_l2" in output.allowed}
