"""The search in PyTorch: units of a program, their ranking, and the smallest set that makes the outputs right."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from fake import quiet
from planted import PLANTED

from harness import NotJudged
from harness.bisect.screening import Screen, Units, plain, require_float
from harness.compare.norms import total_error
from harness.graph.plan import Plan
from harness.graph.values import Value
from harness.tensors import Tensors
from harness.verify.prepare import prepare


def value(name: str, module: str, dtype: str = "float32", op: str = "aten.add.Tensor") -> Value:
    return Value(name=name, origin=name, op=op, module=module, source="", dtype=dtype, shape=(2,))


UNITS = Units.of(
    {
        row.name: row
        for row in (
            value("a", "blocks.0.norm"), value("b", "blocks.0.norm#1"), value("c", "blocks.0"),
            value("d", "blocks.10"), value("e", ""), value("i", "blocks.0", "int64"),
        )
    }
)  # fmt: skip


def test_members_of_a_module_are_those_below_it_whatever_the_call():
    assert UNITS.members("blocks.0") == {"a", "b", "c"}
    assert UNITS.members("blocks.0.norm") == {"a", "b"}
    assert UNITS.members("blocks.1") == frozenset(), "blocks.10 is another module"
    assert UNITS.members("value:c") == {"c"}
    assert UNITS.members("value:i") == frozenset(), "an integer has no precision"
    assert UNITS.members("") == {"a", "b", "c", "d", "e"}


def test_children_are_modules_and_own_values():
    assert UNITS.children("") == ["blocks", "value:e"]
    assert UNITS.children("blocks") == ["blocks.0", "blocks.10"]
    assert UNITS.children("blocks.0") == ["blocks.0.norm", "value:c"]
    assert UNITS.children("value:c") == []


def test_coarse_units_cover_every_value_once():
    coarse = UNITS.coarse()
    assert len(coarse) >= 2
    members = [name for unit in coarse for name in UNITS.members(unit)]
    assert sorted(members) == sorted(UNITS.values)


def test_the_values_of_a_module_are_looked_up_once(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    members = Units.members
    monkeypatch.setattr(Units, "members", lambda units, pattern: asked.append(pattern) or members(units, pattern))
    UNITS.children("blocks")
    assert asked == ["blocks"]


def test_plain_drops_call_numbers():
    assert plain("encoder#2.layers.3.norm#10") == "encoder.layers.3.norm"


def test_a_program_without_floats_has_nothing_to_choose():
    with pytest.raises(NotJudged, match="no float value"):
        require_float(Units.of({"i": value("i", "", "int64")}))


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([math.inf, 2.0], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [math.nan, 2.0], math.inf),
        ([1.0], [1.0, 2.0], math.inf),
        ([3.0, 8.0], [3.0, 4.0], 0.8),
    ],
)
def test_total_error(actual: list[float], expected: list[float], error: float):
    assert total_error({"y": torch.tensor(actual)}, {"y": torch.tensor(expected)}) == pytest.approx(error)


def test_the_worst_output_counts_and_none_is_infinitely_wrong():
    ones = torch.ones(4)
    assert total_error({"y": ones, "z": 2 * ones}, {"y": ones, "z": ones}) == pytest.approx(1.0)
    assert total_error({}, {}) == math.inf


def screen(name: str, folder: Path) -> Screen:
    plant = PLANTED[name]
    prepared = prepare(plant.subject, quiet(folder))
    expected = prepared.references.reference("one", "fp32")

    def right(outputs: Tensors) -> bool:
        return total_error(outputs, expected) <= (plant.limit or 0.25)

    return Screen(prepared, "one", Plan(name="fp16", dtype="fp16"), right)


@pytest.mark.parametrize("name", ["overflow", "non_monotonic", "growing_stream", "flipped_decision"])
def test_the_search_finds_the_smallest_set(name: str, tmp_path: Path):
    said: list[str] = []
    found = screen(name, tmp_path).search(said.append)
    assert frozenset(found or ()) in (PLANTED[name].answer, *PLANTED[name].values)
    assert said[0].startswith("ranking ")


def test_the_culprit_is_ranked_first_and_every_trial_is_kept(tmp_path: Path):
    tried = screen("overflow", tmp_path)
    ranked = tried.rank(tried.units.coarse())
    assert ranked[0] == "blocks.2.norm"
    assert not tried.passes(frozenset())
    assert tried.passes(frozenset({"blocks.2.norm"}))
    assert tried.passes(frozenset({"blocks.2.norm"}))
    assert [(trial.keep_fp32, trial.where, trial.passed) for trial in tried.trials] == [
        ((), "pytorch", False),
        (("blocks.2.norm",), "pytorch", True),
    ]
    assert tried.trials[0].error == math.inf


def test_nothing_is_found_where_nothing_is_right(tmp_path: Path):
    tried = screen("swamping", tmp_path)
    tried.right = lambda outputs: False
    assert tried.search(lambda message: None) is None
