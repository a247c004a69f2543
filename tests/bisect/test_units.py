"""Modules, operators and values as patterns: what they mean, the few that mean some values, and how they are split."""

from __future__ import annotations

import itertools

import pytest

from harness.bisect.units import MOST_PARTS, Candidates, Units, candidates_in_engine, plain, unit_of
from harness.graph.plan import Plan, assign
from harness.graph.values import Value
from harness.records.layers import LayerReport, ValueFinding


def value(name: str, module: str, dtype: str = "float32", op: str = "aten.add.Tensor") -> Value:
    return Value(name=name, origin=name, op=op, module=module, source="", dtype=dtype, shape=(2,))


TABLE = {
    row.name: row
    for row in (
        value("a", "blocks.0.norm", op="aten.rsqrt.default"), value("b", "blocks.0.norm#1"), value("c", "blocks.0"),
        value("d", "blocks.10"), value("e", "", op="aten.rsqrt.default"), value("i", "blocks.0", "int64"),
        Value(name="d_product", origin="d", op="onnx.MatMul", module="blocks.10", dtype="float32"),
    )
}  # fmt: skip
UNITS = Units.of(TABLE)


def test_members_of_a_module_are_those_below_it_whatever_the_call():
    assert UNITS.members("blocks.0") == {"a", "b", "c"}
    assert UNITS.members("blocks.0.norm") == {"a", "b"}
    assert UNITS.members("blocks.1") == frozenset(), "blocks.10 is another module"
    assert UNITS.members("value:c") == {"c"}
    assert UNITS.members("value:i") == frozenset(), "an integer has no precision"
    assert UNITS.members("op:aten.rsqrt.default") == {"a", "e"}
    assert UNITS.members("op:onnx.MatMul") == {"d"}


@pytest.mark.parametrize("size", range(1, 6))
def test_patterns_mean_these_values_and_no_others(size: int):
    for names in itertools.combinations(UNITS.values, size):
        plan = Plan(name="mixed", dtype="fp16", keep_fp32=UNITS.patterns(names))
        dtypes = assign(plan, TABLE)
        assert {name for name in UNITS.values if dtypes[name] == "float32"} == set(names)
        assert {name for pattern in plan.keep_fp32 for name in UNITS.members(pattern)} == set(names)


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        ("abc", ("blocks.0",)), ("abcd", ("blocks",)), ("ab", ("blocks.0.norm",)), ("ae", ("op:aten.rsqrt.default",)),
        ("a", ("value:a",)), ("d", ("blocks.10",)), ("ce", ("value:c", "value:e")),
        ("abe", ("blocks.0.norm", "value:e")),
    ],
)  # fmt: skip
def test_few_patterns_are_taken(names: str, patterns: tuple[str, ...]):
    assert UNITS.patterns(names) == patterns


def test_an_operator_names_no_place():
    assert UNITS.patterns("ae", operators=False) == ("value:a", "value:e")


def test_a_split_follows_the_modules_and_then_the_values():
    assert UNITS.split(tuple("abcde")) == [("a", "b", "c", "d"), ("e",)]
    assert UNITS.split(tuple("abcd")) == [("a", "b", "c"), ("d",)]
    assert UNITS.split(tuple("abc")) == [("a", "b"), ("c",)]
    assert UNITS.split(tuple("ab")) == [("a",), ("b",)]


@pytest.mark.parametrize("count", [9, 64, 330])
def test_many_values_without_modules_are_split_into_neighbours_of_about_one_size(count: int):
    flat = Units.of({f"v{i}": value(f"v{i}", "") for i in range(count)})
    parts = flat.split(tuple(flat.values))
    assert [name for part in parts for name in part] == list(flat.values)
    assert len(parts) == MOST_PARTS
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_plain_drops_call_numbers():
    assert plain("encoder#2.layers.3.norm#10") == "encoder.layers.3.norm"


def test_a_value_goes_by_its_module_or_alone():
    assert unit_of("encoder#2.norm", "add") == "encoder.norm"
    assert unit_of("", "add") == "value:add"


def look(*suspects: str) -> LayerReport:
    values = tuple(
        ValueFinding(
            name=name, op=TABLE[name].op, module=TABLE[name].module, source="", depth=0, status="compared",
            mark="suspect" if name in suspects else "ok", local=0.1 if name in suspects else 1e-4, local_floor=1e-4,
        )
        for name in UNITS.values
    )  # fmt: skip
    return LayerReport(
        subject="s", case="one", backend="planted", precision="fp16", mode="unfused", values=values, modules=(),
        observer=(), trusted=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("suspects", "region", "first"),
    [
        ("a", "a", (("value:a",), ("blocks.0.norm",))),
        ("a", "ac", (("value:a",), ("value:a", "value:c"), ("blocks.0.norm", "blocks.0"))),
        ("", "d", (("value:d",), ("blocks.10",))),
    ],
)
def test_the_value_of_a_suspect_is_tried_before_its_module(
    suspects: str, region: str, first: tuple[tuple[str, ...], ...]
):
    assert candidates_in_engine(TABLE, tuple(region), look(*suspects)).first == first


def test_an_operator_is_tried_only_where_several_of_its_values_are_suspects():
    both = candidates_in_engine(TABLE, (), look("a", "e")).first
    assert both[0] == ("value:a", "value:e")
    assert both[1] == ("op:aten.rsqrt.default",)
    assert not any("op:" in it for patterns in candidates_in_engine(TABLE, (), look("a")).first for it in patterns)


def test_where_nothing_was_observed_all_modules_are_left():
    found = candidates_in_engine(TABLE, (), None)
    assert found == Candidates(first=(), rest=("blocks.0.norm", "blocks.0", "blocks.10", "value:e"))
