"""Parts of a graph as subjects of their own: which of them show a fault, and the search for the smallest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from fake import quiet
from planted import PLANTED, Fault, Planted, install, scaled

from harness import Target
from harness.bisect.context import Budget
from harness.bisect.questions import computes_in_tf32
from harness.bisect.regions import Regions
from harness.graph.plan import write_plan
from harness.records.accuracy import Result, is_nonfinite
from harness.verify.target import Run


def fails(result: Result) -> bool:
    return result.verdict == "fail"


def regions_of(
    plant: Planted, folder: Path, precision: str = "fp16", *, shows: Callable[[Result], bool] = fails, most: int = 100
) -> Regions:
    run = Run(plant.subject, quiet(folder))
    target = Target("planted", precision)
    return Regions(run, "one", target, folder=folder / "regions", shows=shows, budget=Budget(most))


@pytest.fixture
def regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Regions:
    install(monkeypatch, PLANTED["wrong_kernel"])
    return regions_of(PLANTED["wrong_kernel"], tmp_path)


def test_a_part_fails_when_it_holds_the_wrong_kernel(regions: Regions):
    assert regions.fails(["linear_1"]) is True
    assert regions.fails(["gelu_1", "linear_1"]) is True
    assert regions.fails(["linear_2"]) is False
    assert set(regions.failing) == {("linear_1",), ("linear_1", "gelu_1")}
    assert regions.budget.built == 3
    assert regions.fails(["linear_1"]) is True
    assert regions.budget.built == 3, "a part is judged once"


def test_a_part_that_is_wrong_but_finite_is_not_the_nan_that_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, PLANTED["wrong_kernel"])
    regions = regions_of(PLANTED["wrong_kernel"], tmp_path, shows=is_nonfinite)
    assert regions.fails(["linear_1"]) is False
    assert not regions.failing


def test_a_part_that_is_wrong_by_tf32_is_not_the_larger_fault_that_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    faults = (Fault(value="linear_1", change=scaled(1 + 5e-4), only_dtype=None),)
    plant = dataclasses.replace(PLANTED["wrong_kernel"], faults=faults)
    install(monkeypatch, plant).precisions = ("fp32", "tf32", "fp16")
    target = Target("planted", "fp32")

    def larger(result: Result) -> bool:
        return fails(result) and not computes_in_tf32(target, result.outputs)

    regions = regions_of(plant, tmp_path, precision="fp32", shows=larger)
    assert regions.fails(["linear_1"]) is False
    assert not regions.failing
    regions = regions_of(plant, tmp_path / "again", precision="fp32")
    assert regions.fails(["linear_1"]) is True


def test_a_part_keeps_in_fp32_what_the_plan_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PLANTED["wrong_kernel"])
    plan = tmp_path / "mine.toml"
    write_plan(plan, "fp16", ["blocks.1.linear"], comment=())
    regions = regions_of(PLANTED["wrong_kernel"], tmp_path, str(plan))
    assert regions.judge(["linear_1", "gelu_1"]).result.verdict == "pass"
    assert regions.judge(["gelu_1"]).precision == "fp16"


def test_a_part_is_not_built_beyond_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engine = install(monkeypatch, PLANTED["wrong_kernel"])
    regions = regions_of(PLANTED["wrong_kernel"], tmp_path, most=1)
    assert regions.fails(["linear_1"]) is True
    assert not regions.refused
    assert regions.fails(["gelu_3"]) is None
    assert regions.refused
    assert (engine.builds, regions.budget.left) == (1, 0)
    assert regions.fails(["linear_1"]) is True, "what is known needs no build"


def test_two_faults_in_question_share_what_was_built(regions: Regions):
    nan = regions.showing(is_nonfinite)
    assert regions.fails(["linear_1"]) is True
    assert nan.fails(["linear_1"]) is False
    assert regions.budget.built == 1
