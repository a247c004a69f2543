"""Modules and values as units: what is in them, what is below them, and how coarse they are."""

from __future__ import annotations

import pytest

from harness.bisect.units import Units, plain, unit_of
from harness.graph.values import Value


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


def test_a_value_goes_by_its_module_or_alone():
    assert unit_of("encoder#2.norm", "add") == "encoder.norm"
    assert unit_of("", "add") == "value:add"
