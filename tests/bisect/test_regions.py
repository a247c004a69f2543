"""Parts of a graph as subjects of their own, plan files, and the operation that the export gets wrong."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from fake import quiet
from planted import PLANTED, Fault, Planted, install, scaled

from harness import Target, UsageError
from harness.bisect.regions import Regions, export_fault
from harness.graph.plan import load_plan, write_plan
from harness.verify.prepare import prepare
from harness.verify.target import Run


def regions_of(plant: Planted, folder: Path, precision: str = "fp16") -> Regions:
    run = Run(plant.subject, quiet(folder))
    return Regions(run, "one", Target("planted", precision), load_plan(precision), folder / "regions")


@pytest.fixture
def regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Regions:
    install(monkeypatch, PLANTED["wrong_kernel"])
    return regions_of(PLANTED["wrong_kernel"], tmp_path)


def test_a_part_fails_when_it_holds_the_wrong_kernel(regions: Regions):
    assert regions.fails(["linear_1"]) is True
    assert regions.fails(["gelu_1", "linear_1"]) is True
    assert regions.fails(["linear_2"]) is False
    assert set(regions.failing) == {("linear_1",), ("linear_1", "gelu_1")}
    assert regions.built == 3
    assert regions.fails(["linear_1"]) is True
    assert regions.built == 3, "a part is judged once"


def test_a_part_that_is_wrong_but_finite_is_not_the_nan_that_is_looked_for(regions: Regions):
    regions.nonfinite_only = True
    assert regions.fails(["linear_1"]) is False
    assert not regions.failing


def test_a_part_that_is_wrong_by_tf32_is_not_the_larger_fault_that_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    faults = (Fault(value="linear_1", change=scaled(1 + 5e-4), only_dtype=None),)
    plant = dataclasses.replace(PLANTED["wrong_kernel"], faults=faults)
    install(monkeypatch, plant)
    regions = regions_of(plant, tmp_path, precision="fp32")
    regions.beyond_tf32 = True
    assert regions.fails(["linear_1"]) is False
    assert not regions.failing
    regions = regions_of(plant, tmp_path / "again", precision="fp32")
    assert regions.fails(["linear_1"]) is True


def test_a_part_grows_until_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PLANTED["wrong_when_fused"])
    regions = regions_of(PLANTED["wrong_when_fused"], tmp_path)
    assert regions.fails(["add_2"]) is False
    found = regions.around(["add_2"])
    assert found is not None
    assert {"gelu_2", "add_2"} <= set(found.names)


def test_a_healthy_part_never_fails(regions: Regions):
    regions.order = regions.order[regions.order.index("linear_2") :]
    assert regions.around(["linear_2"]) is None


def test_upstream_stops_at_what_is_known(regions: Regions):
    assert regions.upstream("add_1", {"linear_1", "add"}) == ["gelu_1", "add_1"]
    assert regions.upstream("linear_1", set(regions.order) - {"linear_1"}) == ["linear_1"]


def test_a_part_keeps_in_fp32_what_the_plan_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PLANTED["wrong_kernel"])
    plan = tmp_path / "mine.toml"
    write_plan(plan, "fp16", ["blocks.1.linear"], comment=())
    regions = regions_of(PLANTED["wrong_kernel"], tmp_path, str(plan))
    assert regions.judge(["linear_1", "gelu_1"]).result.verdict == "pass"
    assert regions.judge(["gelu_1"]).precision == "fp16"


def test_a_plan_is_written_with_its_comment_and_read_again(tmp_path: Path):
    path = tmp_path / "new" / "plan.toml"
    write_plan(path, "bf16", ["blocks.1", "value:add"], comment=["Found by hand."])
    assert path.read_text().startswith("# Found by hand.\n")
    assert tomllib.loads(path.read_text()) == {"precision": "bf16", "keep_fp32": ["blocks.1", "value:add"]}
    assert load_plan(str(path)).keep_fp32 == ("blocks.1", "value:add")
    write_plan(path, "fp16", ['value:a"b\\c', "modüle"], comment=())
    assert load_plan(str(path)).keep_fp32 == ('value:a"b\\c', "modüle")
    with pytest.raises(UsageError, match="cannot be written"):
        write_plan(path / "below.toml", "fp16", [], comment=())


@pytest.mark.parametrize("name", ["wrong_epsilon", "wrong_axis", "wrong_kernel"])
def test_the_operation_that_the_export_gets_wrong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plant = PLANTED[name]
    install(monkeypatch, plant)
    fault = export_fault(prepare(plant.subject, quiet(tmp_path)), "one", limit=2.0**-14)
    if plant.kind == "export":
        assert fault is not None
        assert frozenset({fault.name}) == plant.answer
        assert fault.error > 0.1
    else:
        assert fault is None
