"""The culprits of a wrong engine: those of a look, those of parts of the graph, and those of the export."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from bisecting import TWO_KERNELS, Bisect, with_faults, without_taps
from planted import PLANTED, Fault, all_nan, ready, scaled

from harness.bisect.culprits import diagnosis_of_engine, diagnosis_of_precision, look_at, of_region
from harness.bisect.places import Place, Places
from harness.bisect.regions import Region
from harness.bisect.screening import Screened
from harness.compare import compare
from harness.records.accuracy import OutputResult, Result
from harness.records.diagnosis import Culprit, Diagnosis
from harness.records.layers import LayerReport
from harness.verify.run import Repeats
from harness.verify.target import Outcome

VALUES = ready("wrong_kernel").program.values


def culprit(name: str, **fields: Any) -> Culprit:
    return Culprit(value=name, op="", module="", source="", **fields)


def part(*names: str) -> Region:
    wrong = OutputResult(name=names[-1], verdict="fail", reason="wrong")
    result = Result(
        subject="s", case="region", backend="planted", precision="fp16", verdict="fail", reason="", outputs=(wrong,)
    )
    return Region(
        names=names, subject=PLANTED["wrong_kernel"].subject, precision="fp16", outcome=Outcome(result=result)
    )


def test_two_faults_without_a_look_are_both_named_and_nothing_is_left(bisected: Bisect):
    found, _ = bisected(TWO_KERNELS, prepare_engine=without_taps, max_builds=60)
    assert found.diagnosis is not None
    assert sorted(it.value for it in found.diagnosis.culprits) == ["linear", "linear_3"]
    assert [it.alone for it in found.diagnosis.culprits] == [1, 1]
    assert all(it.error == pytest.approx(0.1, rel=0.05) for it in found.diagnosis.culprits)
    assert all(it.looks_like is not None and it.looks_like.kind == "scale" for it in found.diagnosis.culprits)
    assert found.diagnosis.complete
    assert found.region == (found.diagnosis.culprits[0].value,)


def test_an_overflow_says_how_large_it_became_and_where_the_format_ends(bisected: Bisect):
    fault = Fault(value="linear_1", change=all_nan)
    found, _ = bisected(with_faults(fault), prepare_engine=without_taps)
    assert found.diagnosis is not None
    [only] = found.diagnosis.culprits
    assert (only.value, only.error) == ("linear_1", None)
    assert only.reason.startswith("512 of 512 elements are not finite, the first at [0, 0, 0]")


@pytest.mark.parametrize(("largest", "words"), [(1.2e5, "reached 1.2e+05, fp16 ends at 65504"), (3.0, "1 of 4 ele")])
def test_a_part_that_is_not_finite_says_why(largest: float, words: str):
    actual, expected = torch.tensor([1.0, math.inf, 2.0, 3.0]), torch.tensor([1.0, largest, 2.0, 3.0])
    stats = compare(actual, expected)
    wrong = OutputResult(name="linear_1", verdict="fail", reason="", stats=stats)
    region = part("layer_norm_1", "linear_1")
    outcome = Outcome(
        result=dataclasses.replace(region.result, outputs=(wrong,)), repeats=Repeats(worst={"linear_1": actual}),
        expected={"linear_1": expected},
    )  # fmt: skip
    found = of_region(dataclasses.replace(region, outcome=outcome), VALUES)
    assert found.reason.startswith(words)
    assert found.looks_like is not None
    assert found.looks_like.kind == "non_finite"


def test_a_part_with_negated_outputs_is_read_with_its_own_sign(bisected: Bisect):
    fault = Fault(value="gelu_2", change=lambda tensor: tensor + 0.25, inside=True)
    found, _ = bisected(with_faults(fault))
    assert found.diagnosis is not None
    [only] = found.diagnosis.culprits
    assert (only.value, only.alone, found.region) == ("gelu_2", 1, ("gelu_2",))
    assert found.diagnosis.complete


def test_each_culprit_has_the_size_of_its_own_part_and_unnamed_ones_are_added():
    places = Places(
        found=(
            Place(region=part("gelu_1"), culprit="gelu_1"),
            Place(region=part("gelu_2", "add_2"), culprit="add_2"),
            Place(region=part("linear_3")),
        ),
        rest_right=True,
    )
    named = [culprit("add_2"), culprit("add"), culprit("gelu_1")]
    found = diagnosis_of_engine(Diagnosis(culprits=tuple(named)), places, None, VALUES)
    assert [(it.value, it.alone) for it in found.culprits] == [
        ("add_2", 2),
        ("add", None),
        ("gelu_1", 1),
        ("linear_3", 1),
    ]
    assert found.culprits[-1].op == "aten.linear.default"
    assert found.complete


def test_what_a_look_saw_die_out_is_no_culprit_although_its_part_fails_alone():
    unnamed = Places(found=(Place(region=part("linear_3")),))
    shown = diagnosis_of_engine(Diagnosis(), unnamed, None, VALUES).culprits
    assert len(shown) == 1
    left = diagnosis_of_engine(Diagnosis(), unnamed, None, VALUES, harmless={shown[0].value})
    assert left.culprits == ()


def test_a_culprit_is_renamed_by_the_part_that_shows_it_without_its_value():
    places = Places(found=(Place(region=part("linear_1"), culprit="add_1", instead=True),))
    found = diagnosis_of_engine(Diagnosis(culprits=(culprit("add_1", error=0.1),)), places, None, VALUES)
    [only] = found.culprits
    assert (only.value, only.op, only.error, only.alone) == ("linear_1", "aten.linear.default", 0.1, 1)
    assert "add_1" in only.reason
    assert not found.complete


@pytest.mark.parametrize(("alone", "whose"), [(None, ["export"]), (1, ["engine", "export"])])
def test_a_suspect_whose_part_is_right_by_its_own_graph_is_the_exporters(alone: int | None, whose: list[str]):
    exported = Diagnosis(culprits=(culprit("layer_norm_1", made_by="export"),))
    places = Places(found=(Place(region=part("layer_norm_1"), culprit="layer_norm_1"),) if alone else ())
    found = diagnosis_of_engine(Diagnosis(culprits=(culprit("layer_norm_1"),)), places, exported, VALUES)
    assert [it.made_by for it in found.culprits] == whose


def test_an_engine_and_an_export_that_are_both_wrong_are_both_named(bisected: Bisect):
    plant = PLANTED["wrong_epsilon"]
    both = dataclasses.replace(plant, faults=(Fault(value="linear_2", change=scaled(1.5), only_dtype=None),))
    found, _ = bisected(both, precision="fp32")
    assert found.diagnosis is not None
    named = {(it.value, it.made_by) for it in found.diagnosis.culprits}
    assert named == {("linear_2", "engine"), ("layer_norm_1", "export")}
    assert (found.kind, found.region) == ("engine", ("linear_2",))


def test_a_value_that_a_larger_part_shows_is_named_once():
    look = Diagnosis(culprits=(culprit("gelu_1"),), complete=True)
    places = Places(found=(Place(region=part("gelu_1"), culprit="", smallest=True),))
    [named] = diagnosis_of_engine(look, places, None, ready("wrong_kernel").program.values).culprits
    assert (named.value, named.alone) == ("gelu_1", 1)


def test_a_look_that_hides_the_fault_names_nobody():
    hiding = Diagnosis(culprits=(culprit("add_1"),), compared=7, left=0.1, complete=True, observed="hidden")
    report = LayerReport(
        subject="s", case="one", backend="planted", precision="fp16", mode="unfused", values=(), modules=(),
        observer=(), trusted=False, diagnosis=hiding,
    )  # fmt: skip
    assert look_at(report) == Diagnosis(compared=7, observed="hidden")
    assert look_at(dataclasses.replace(report, diagnosis=None)) == look_at(None) == Diagnosis()


@pytest.mark.parametrize("few", [True, False])
def test_what_a_precision_cannot_hold_comes_first_then_what_costs_most(few: bool):
    values = ready("wrong_kernel").program.values
    shares = {"linear_1": 0.2, "gelu": 0.7, "gelu_3": 0.7, "linear": None}
    found = diagnosis_of_precision(
        Screened(few=few, shares=shares, left=0.01), values, "linear overflows (1e+05 in FP32, beyond 65504)"
    )
    assert found.left == 0.01
    assert found.complete is few
    first = values["linear"]
    expected = [("linear", None), ("gelu", 0.7), ("gelu_3", 0.7), ("linear_1", 0.2)] if few else []
    assert [(it.value, it.explains) for it in found.culprits] == expected
    assert {it.made_by for it in found.culprits} <= {"precision"}
    for it in found.culprits[:1]:
        assert it.reason == "overflows (1e+05 in FP32, beyond 65504)"
        assert (it.op, it.module, it.source) == (first.op, first.module, first.source)
    assert not any(it.reason for it in found.culprits[1:])
