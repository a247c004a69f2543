"""What a plan may lose: never more than the plain precision may, never more than without a plan, and the goal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bisecting import Bisect, with_faults
from fake import quiet
from planted import Fault, linear, scaled

from harness import Target
from harness.bisect.goals import Aim, aim_of, with_floor
from harness.graph.plan import Plan, write_plan
from harness.records.accuracy import OutputResult, Result
from harness.subject import Tolerance
from harness.verify import OpenTarget, Run, judged_by, verify_case


class Blurred(torch.nn.Module):
    """A sum that costs 0.06 in FP16: little enough to be a floor, and far too much for what the rest loses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = linear(0), linear(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last((self.first(x) + 400.0) - 400.0)


PLANT = with_faults(build=Blurred)
FIXED = Plan(name="mixed", dtype="fp16", keep_fp32=("value:add", "value:sub"))
USELESS = Plan(name="mixed", dtype="fp16", keep_fp32=("last",))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(PLANT.subject, quiet(tmp_path))


@pytest.fixture
def judged(run: Run, tmp_path: Path) -> Callable[[Plan], OpenTarget]:
    """Return a function that opens PyTorch as a target with a plan."""

    def opened(plan: Plan) -> OpenTarget:
        path = tmp_path / "mixed.toml"
        write_plan(path, plan.dtype, plan.keep_fp32, comment=())
        with run.target(Target("torch", str(path))) as target:
            return target

    return opened


def without_plan(run: Run) -> Result:
    with run.target(Target("torch", "fp16")) as opened:
        return verify_case(opened, "one").result


def derived(run: Run) -> Aim:
    """Return the goal with the culprits in FP32."""
    aim = aim_of(run, "one", "fp16", without_plan(run))
    outputs = run.prepared.references.floor("one", FIXED).outputs
    with run.target(Target("torch", "fp16")) as opened:
        return with_floor(aim, FIXED, judged_by(opened, "one", FIXED, actual=outputs), "a test", few=True)


def test_a_plan_that_leaves_the_culprit_alone_is_no_plan_however_bad_its_own_floor(run: Run, judged: Any):
    aim = derived(run)
    bad = judged(USELESS)
    assert verify_case(bad, "one").result.verdict == "pass", "PyTorch is as bad in that plan"
    assert "relative error 0.0" in aim.judge(bad, "one")
    assert aim.judge(judged(FIXED), "one") == ""


def test_the_goal_says_how_much_and_why(run: Run):
    aim = derived(run)
    [limit] = aim.goal.limits.values()
    assert (aim.goal.source, aim.goal.reason) == ("region", "a test")
    assert limit < 0.003
    before = aim_of(run, "one", "fp16", without_plan(run)).goal
    assert before.source == "floor"
    assert 3 * 0.05 < before.limits["output"] < 4 * 0.06


def test_what_is_worse_than_without_a_plan_never_passes(run: Run, judged: Any):
    """The engine without a plan was not judged: 0.0005 is worse than the 0.0004 it had."""
    fixed = judged(FIXED)
    [now] = verify_case(fixed, "one").result.outputs
    assert now.stats is not None
    for factor, words in ((1.01, ""), (0.99, "worse than")):
        before = dataclasses.replace(now.stats, relative_l2=now.stats.relative_l2 * factor)
        output = OutputResult(name="output", verdict="not_judged", reason="", stats=before)
        aim = dataclasses.replace(derived(run), without={"output": output})
        assert (words in aim.judge(fixed, "one")) if words else aim.judge(fixed, "one") == ""


@pytest.mark.parametrize("limit", [0.1, 0.0001])
def test_a_limit_is_the_goal(tmp_path: Path, judged: Any, limit: float):
    run = Run(PLANT.subject, quiet(tmp_path), limit=limit)
    aim = aim_of(run, "one", "fp16", without_plan(run))
    assert (aim.goal.source, aim.goal.limits) == ("limit", {"output": limit})
    with run.target(Target("torch", "fp16")) as opened:
        assert (aim.judge(opened, "one") == "") is (limit > 0.06)


def test_a_tolerance_is_the_goal(tmp_path: Path):
    tolerance = Tolerance(why="a test", relative_l2=0.07)
    run = Run(dataclasses.replace(PLANT.subject, tolerances={"fp16": tolerance}), quiet(tmp_path))
    goal = aim_of(run, "one", "fp16", without_plan(run)).goal
    assert (goal.source, goal.limits) == ("declared", {"output": 0.07})


def test_an_engines_plan_is_held_against_what_pytorch_loses_without_one(bisected: Bisect):
    found, _ = bisected(with_faults(Fault(value="linear_1", change=scaled(1.1))))
    assert found.goal is not None
    assert found.goal.source == "floor"
    assert found.goal.limits["output"] < 0.01
    assert found.plan_values == 1


def test_a_plan_that_passes_in_pytorch_and_not_on_the_engine_is_said_so_with_both_errors(bisected: Bisect):
    """The engine's first product is 5 % too large in FP16, whatever else is in FP32."""
    fault = Fault(value="linear", change=scaled(1.05))
    found, _ = bisected(with_faults(fault, build=Blurred), limit=0.01)
    assert found.kind == "precision"
    [note] = [note for note in found.notes if "in PyTorch" in note]
    in_pytorch, on_engine = (
        next(t.error for t in found.trials if t.where == where and t.keep_fp32 == found.region)
        for where in ("pytorch", "engine")
    )
    assert in_pytorch is not None
    assert on_engine is not None
    assert f"{in_pytorch:.3g}" in note
    assert f"{on_engine:.3g}" in note
    assert found.plan_values == 3, "the product joins the two sums"
