"""What a plan may keep in FP32: modules and single values as units, and those to try first for a wrong engine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.graph import Value, Values
from harness.layers import local_ratio, worst_first
from harness.records import LayerReport, ValueFinding

MOST_UNITS = 64
"""Units of one ranking; each costs one run of the program."""
FLOATS = ("float32", "float16", "bfloat16", "float64", "")
"""The dtypes that a plan chooses between; empty for a value of unknown dtype."""
_VALUE = "value:"


@dataclass(frozen=True, kw_only=True)
class Units:
    """The float values of a program; a unit is a module path or ``value:NAME``, as in a plan."""

    values: Mapping[str, Value]
    """By origin."""

    @classmethod
    def of(cls, values: Values) -> Units:
        """Return the float values of a table, one for each origin."""
        own = {value.origin: values.get(value.origin, value) for value in values.values() if value.dtype in FLOATS}
        return cls(values={name: value for name, value in own.items() if value.dtype in FLOATS})

    def members(self, unit: str) -> frozenset[str]:
        """Return the origins of the values in a unit; all of them for the empty path."""
        if is_value(unit):
            return frozenset({unit.removeprefix(_VALUE)} & set(self.values))
        below = unit + "."
        return frozenset(
            name
            for name, value in self.values.items()
            if not unit or (path := plain(value.module)) == unit or path.startswith(below)
        )

    def children(self, unit: str) -> list[str]:
        """Return the modules right below a module, and its own values; nothing below a value."""
        if is_value(unit):
            return []
        depth = len(unit.split(".")) if unit else 0
        below: dict[str, None] = {}
        members = self.members(unit)
        for name in self.values:
            if name in members:
                path = plain(self.values[name].module)
                deeper = path.split(".")[: depth + 1] if path else []
                below[".".join(deeper) if len(deeper) > depth else f"{_VALUE}{name}"] = None
        return list(below)

    def coarse(self) -> list[str]:
        """Return the coarsest units there are at least two of, split further while there are at most MOST_UNITS."""
        units = self.children("")
        while True:
            split = [part for unit in units for part in (self._parts(unit) or [unit])]
            if split == units or len(split) > MOST_UNITS:
                return units
            units = split

    def _parts(self, unit: str) -> list[str]:
        """Return the parts of a module that has submodules; a module of values alone is not split."""
        parts = self.children(unit)
        return [] if all(map(is_value, parts)) else parts


def is_value(unit: str) -> bool:
    """Return whether a unit is a single value."""
    return unit.startswith(_VALUE)


def unit_of(module: str, value: str) -> str:
    """Return the unit that a value is kept in FP32 with: its module, or at the root the value alone."""
    return plain(module) or f"{_VALUE}{value}"


def plain(module: str) -> str:
    """Return a module path without call numbers, as plans name it."""
    return re.sub(r"#\d+", "", module)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The patterns that a search for a plan tries, the likeliest first."""

    first: tuple[str, ...] = ()
    """Units that are tried all together."""
    rest: tuple[str, ...] = ()
    """The other units."""
    operators: tuple[str, ...] = ()
    """Operators that make several values wrong: one pattern covers them all."""


def suspects_in(report: LayerReport | None) -> list[ValueFinding]:
    """Return the values where the error is made: non-finite ones first, in dataflow order, the others by ratio."""
    compared = [value for value in report.values if value.status == "compared"] if report else []
    first = [value for value in compared if value.mark == "nonfinite"]
    others = [value for value in compared if value.mark in ("suspect", "flip")]
    return [*first, *sorted(others, key=lambda value: -local_ratio(value))]


def candidates_in_engine(values: Values, region: Sequence[str], report: LayerReport | None) -> Candidates:
    """Return the candidates for a wrong engine: the suspects and the region that fails alone, then all other units.

    Those are ordered by their error, or in dataflow order where the values were not observed.
    """
    suspects = suspects_in(report)
    first = [values[name] for name in [*(value.name for value in suspects), *region] if name in values]
    if report is None:
        rest = [unit_of(value.module, value.origin) for value in Units.of(values).values.values()]
    else:
        compared = worst_first([value for value in report.values if value.status == "compared"])
        rest = [unit_of(value.module, value.name) for value in compared]
    operators = Counter(value.op for value in suspects if value.op.startswith("aten."))
    return Candidates(
        first=tuple(dict.fromkeys(unit_of(value.module, value.origin) for value in first)),
        rest=tuple(dict.fromkeys(rest)),
        operators=tuple(f"op:{op}" for op, count in operators.most_common() if count > 1),
    )
