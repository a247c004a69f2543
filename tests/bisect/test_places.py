"""The smallest parts of a graph that show the faults of an engine, all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bisecting import TWO_KERNELS, build_through, with_faults
from fake import quiet
from planted import PLANTED, Fault, Planted, PlantedBackend, all_nan, install, linear, ready, scaled

from harness import Target
from harness.bisect.context import Context
from harness.bisect.dataflow import Dataflow
from harness.bisect.places import MOST_OVERLAPPING, Places, search_places
from harness.records.diagnosis import Culprit, Diagnosis
from harness.records.layers import LayerReport, ValueFinding


class Branches(torch.nn.Module):
    """Two branches whose operations alternate in the graph: linear, linear_1, gelu, gelu_1, add, add_1, output."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = linear(0), linear(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.left(x), self.right(x)
        left, right = torch.nn.functional.gelu(left), torch.nn.functional.gelu(right)
        left, right = left + x, right + x
        return left * right


IN_ONE_BRANCH = with_faults(Fault(value="add", change=scaled(1.05), fused_with="gelu"), build=Branches)


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that searches the places of a plant's faults, given what a look named and compared."""

    def placed(
        plant: Planted, *culprits: str, known: Sequence[str] = (), most: int = 60, stop: int = 0, **options: Any
    ) -> tuple[Places, PlantedBackend]:
        engine = install(monkeypatch, plant)
        context = Context(
            subject=plant.subject, target=Target("planted", "fp16"), case="one", settings=quiet(tmp_path / "engines"),
            folder=tmp_path, max_builds=most,
        )  # fmt: skip
        result = context.judge(context.target).result
        build_through(engine, lambda number, _: interrupt(number == stop))
        named = [Culprit(value=name, op="", module="", source="") for name in culprits]
        report = look(known or culprits) if culprits else None
        return search_places(
            context, context.target, result, report, Diagnosis(culprits=tuple(named)), **options
        ), engine

    return placed


def interrupt(now: bool) -> None:
    if now:
        raise KeyboardInterrupt


def look(known: Sequence[str]) -> LayerReport:
    values = tuple(
        ValueFinding(name=name, op="", module="", source="", depth=depth, status="compared")
        for depth, name in enumerate(known)
    )
    return LayerReport(
        subject="s", case="one", backend="planted", precision="fp16", mode="unfused", values=values, modules=(),
        observer=(), trusted=True,
    )  # fmt: skip


def names(places: Places) -> list[tuple[str, ...]]:
    return [place.region.names for place in places.found]


def test_a_culprit_that_shows_alone_takes_one_build(placed: Any):
    places, engine = placed(PLANTED["wrong_kernel"], "linear_1")
    assert names(places) == [("linear_1",)]
    assert (places.found[0].culprit, places.found[0].instead) == ("linear_1", False)
    assert (places.rest_right, places.complete, engine.builds) == (True, True, 3)


def test_a_culprit_that_shows_in_a_fusion_only_is_shown_by_what_is_fused(placed: Any):
    places, _ = placed(PLANTED["wrong_when_fused"], "add_2")
    assert names(places) == [("gelu_2", "add_2")]
    assert places.found[0].culprit == "add_2"


@pytest.mark.parametrize("culprits", [("add_2",), ()])
def test_a_value_that_is_wrong_only_inside_a_kernel_is_shown_without_what_reads_it(
    culprits: tuple[str, ...], placed: Any
):
    """The plain part needs the sum behind GELU, which is right; negated, the result of GELU stays inside."""
    fault = Fault(value="gelu_2", change=scaled(1.05), inside=True)
    places, _ = placed(with_faults(fault), *culprits, known=("add_1", "linear_2", "add_2") if culprits else ())
    [place] = places.found
    assert place.region.names == ("gelu_2",)
    assert place.region.covered
    assert [output.name for output in place.region.result.outputs] == ["gelu_2_negated"]
    assert place.instead == bool(culprits)


@pytest.mark.parametrize("culprits", [("add",), ()])
def test_a_part_leaves_out_the_other_branch_that_lies_between(culprits: tuple[str, ...], placed: Any):
    places, _ = placed(IN_ONE_BRANCH, *culprits)
    assert names(places) == [("gelu", "add")]
    assert places.rest_right is True


def test_what_was_seen_behind_its_cause_is_named_by_its_cause(placed: Any):
    places, _ = placed(PLANTED["wrong_kernel"], "add_1", known=("add", "add_1"))
    assert names(places) == [("linear_1",)]
    assert (places.found[0].culprit, places.found[0].instead) == ("add_1", True)


@pytest.mark.parametrize("culprits", [("linear", "linear_3"), ("linear_3",), ()])
def test_all_faults_are_found_whatever_the_look_named(culprits: tuple[str, ...], placed: Any):
    places, _ = placed(TWO_KERNELS, *culprits)
    assert sorted(names(places)) == [("linear",), ("linear_3",)]
    assert {place.culprit for place in places.found} == {*culprits, *([""] if len(culprits) < 2 else [])}
    assert places.rest_right is True


def test_the_place_of_the_first_culprit_comes_first_though_it_takes_longer(placed: Any):
    faults = (Fault(value="add_2", change=scaled(1.05), fused_with="gelu_2"), Fault(value="linear", change=scaled(1.1)))
    places, _ = placed(with_faults(*faults), "add_2", "linear")
    assert [place.culprit for place in places.found] == ["add_2", "linear"]
    assert names(places) == [("gelu_2", "add_2"), ("linear",)]


def test_a_wrong_name_does_not_hide_the_fault(placed: Any):
    places, _ = placed(PLANTED["wrong_kernel"], "gelu_3", known=Dataflow(ready("wrong_kernel").program.model).order)
    assert [(place.region.names, place.culprit) for place in places.found] == [(("linear_1",), "")]


def test_nan_among_other_faults_is_found_while_it_hides(placed: Any):
    faults = (
        Fault(value="linear_1", change=all_nan, hidden=True),
        Fault(value="linear_3", change=scaled(1.1)),
    )
    places, _ = placed(with_faults(*faults))
    assert sorted(names(places)) == [("linear_1",), ("linear_3",)]


def test_a_search_without_builds_says_so(placed: Any):
    places, engine = placed(TWO_KERNELS, most=3)
    assert not places.complete
    assert places.rest_right is None
    assert engine.builds == 3
    assert names(places), "the smallest part so far"


@pytest.mark.parametrize("culprits", [(), ("linear", "linear_3")])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_search_keeps_what_was_seen_to_fail(culprits: tuple[str, ...], stop: int, placed: Any):
    places, _ = placed(TWO_KERNELS, *culprits, stop=stop)
    assert places.interrupted
    assert places.rest_right is None
    assert all(place.region.result.verdict == "fail" for place in places.found)
    assert bool(places.found) == (stop > 1)


def test_of_overlapping_kernels_few_parts_are_built_and_none_is_called_the_smallest(placed):
    found, engine = placed(with_faults(Fault(value="linear_1", change=all_nan)), overlapping=True)
    before = engine.builds
    assert 0 < before - 1 <= MOST_OVERLAPPING
    assert [place.smallest for place in found.found] == [False]
    assert "linear_1" in found.found[0].region.names
