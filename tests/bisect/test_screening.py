"""The search in PyTorch: what is out of line, what a plan may lose, and the fewest values that reach it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bisecting import with_faults
from fake import quiet
from planted import PLANTED, Planted, linear, ready

from harness import NotJudged, Target
from harness.bisect.goals import Aim, aim_of
from harness.bisect.screening import Screen, Screened
from harness.compare.norms import total_error
from harness.graph.plan import Plan
from harness.subject import Tolerance
from harness.verify import Run, verify_case


def screen(plant: Planted, limit: float | None = None) -> Screen:
    """Return a screen of a plant whose engine is PyTorch in FP16."""
    run = Run(plant.subject, quiet(Path()), limit=limit)
    if plant.name in PLANTED:
        run.__dict__["_prepared"] = ready(plant.name)
    with run.target(Target("torch", "fp16")) as opened:
        result = verify_case(opened, "one").result
    return Screen(run, "one", "fp16", aim_of(run, "one", "fp16", result))


def searched(plant: Planted, limit: float | None = None) -> tuple[Screen, Screened]:
    tried = screen(plant, limit)
    return tried, tried.search(lambda message: None)


def kept(tried: Screen, found: Screened) -> frozenset[str]:
    return frozenset(name for pattern in found.region for name in tried.units.members(pattern))


def fewest(tried: Screen, limit: float) -> int:
    """Return how many values have to be kept in FP32 at least, of all sets of values there are."""
    for size in range(len(tried.free)):
        for part in itertools.combinations(tried.free, size):
            if total_error(tried.outputs(part), tried.expected) <= limit:
                return size
    return len(tried.free)


# Networks of few values, so that every set of them can be tried.


class RootMeanSquareNorm(torch.nn.Module):
    """Squares of 300 overflow; once the mean is in FP32, the rest fits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 300
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class TwoSizes(torch.nn.Module):
    """A sum that swamps its input, and one that swamps a tenth as much."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = linear(0), linear(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = ((self.first(x) + 2048.0) - 2048.0).tanh()
        return self.last((x + 100.0) - 100.0)


class NormAndSoftmax(torch.nn.Module):
    """A variance that overflows, and logits that all become equal."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = RootMeanSquareNorm(), linear(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.head(self.norm(x)) + 20000.0, -1)


class Underflow(torch.nn.Module):
    """An epsilon that FP16 does not hold, below rows of zeros nearly."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 1e-4
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-9).sqrt()


SMALL = [RootMeanSquareNorm, TwoSizes, NormAndSoftmax, Underflow]


@pytest.mark.parametrize("build", SMALL)
def test_no_set_of_fewer_values_reaches_the_goal(build: type[torch.nn.Module]):
    tried, found = searched(with_faults(build=build))
    assert found.few
    assert found.aim is not None
    assert found.aim.goal.source == "region"
    [limit] = found.aim.goal.limits.values()
    assert limit < 0.01
    assert len(kept(tried, found)) == fewest(tried, limit)
    assert total_error(tried.outputs(kept(tried, found)), tried.expected) <= limit


@pytest.mark.parametrize("limit", [0.3, 0.1, 0.03, 0.01])
def test_under_a_limit_no_set_of_fewer_values_is_enough(limit: float):
    tried, found = searched(with_faults(build=TwoSizes), limit)
    assert len(kept(tried, found)) == fewest(tried, limit)


@pytest.mark.parametrize(
    "name", ["swamping", "large_softmax", "group_norm", "two_culprits", "non_monotonic", "flipped_decision"]
)
def test_the_fewest_values_of_a_plant_are_found(name: str):
    for limit in {PLANTED[name].limit, None}:
        tried, found = searched(PLANTED[name], limit)
        assert found.aim is not None
        assert len(kept(tried, found)) == fewest(tried, min(found.aim.goal.limits.values()))
        assert found.few
        assert not found.interrupted


def test_a_network_that_grows_worse_has_no_culprit_and_a_goal_all_the_same():
    tried, found = searched(PLANTED["growing_stream"])
    assert not found.few
    assert found.aim is not None
    assert found.aim.goal.source == "holds"
    [limit] = found.aim.goal.limits.values()
    assert limit <= 0.1
    assert len(kept(tried, found)) == fewest(tried, limit)


def test_errors_fall_with_the_values_that_are_kept():
    _, found = searched(PLANTED["growing_stream"])
    assert [row.values for row in found.by_values] == [0, 1, 2, 3, 4]
    errors = [row.error for row in found.by_values if row.error is not None]
    assert len(errors) == 5
    assert errors == sorted(errors, reverse=True)
    _, found = searched(PLANTED["overflow"])
    assert (found.by_values[0].values, found.by_values[0].error) == (0, None)


def test_a_declared_tolerance_is_the_goal():
    plant = PLANTED["swamping"]
    tolerance = Tolerance(why="a test", relative_l2=0.1)
    declared = dataclasses.replace(plant.subject, tolerances={"fp16": tolerance})
    _, found = searched(dataclasses.replace(plant, subject=declared))
    assert found.aim is not None
    assert (found.aim.goal.source, found.aim.goal.limits) == ("declared", {"output": 0.1})


def test_a_program_without_floats_has_nothing_to_choose():
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    integers = with_faults(build=Doubled, inputs=lambda: {"x": torch.arange(6)})
    with pytest.raises(NotJudged, match="no float value"):
        screen(integers)


def test_the_last_trial_is_the_region_and_trials_count_values():
    tried, found = searched(PLANTED["overflow"])
    assert (found.trials[-1].keep_fp32, found.trials[-1].passed) == (found.region, True)
    assert found.trials[-1].values == len(kept(tried, found)) == 4
    assert all(trial.where == "pytorch" and (trial.passed or trial.reason) for trial in found.trials)


def test_values_that_stay_in_fp32_anyway_are_no_candidates(tmp_path: Path):
    plan = tmp_path / "mine.toml"
    plan.write_text('precision = "fp16"\nkeep_fp32 = ["blocks.2.norm"]\n')
    whole = screen(PLANTED["overflow"])
    rest = Screen(whole.run, "one", str(plan), dataclasses.replace(whole.aim, plain=mine(plan)))
    assert set(whole.free) - set(rest.free) == whole.units.members("blocks.2.norm")
    assert rest.error(frozenset()) < 0.01
    assert whole.error(frozenset()) == math.inf


def mine(path: Path) -> Plan:
    return Plan(name="mine", dtype="fp16", keep_fp32=("blocks.2.norm",), source=str(path))


@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_interruption_keeps_the_fewest_that_passed(after: int, monkeypatch: pytest.MonkeyPatch):
    judge, asked = Aim.judge, iter(range(100))
    passed: list[bool] = []

    def interrupted(aim: Aim, *arguments: Any) -> str:
        if next(asked) == after:
            raise KeyboardInterrupt
        reason = judge(aim, *arguments)
        passed.append(not reason)
        return reason

    monkeypatch.setattr(Aim, "judge", interrupted)
    _, found = searched(PLANTED["group_norm"])
    assert found.interrupted
    assert len(passed) == after
    assert bool(found.region) is any(passed)
