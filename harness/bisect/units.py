"""What a plan may keep in FP32: values, the patterns that mean them, and those to try first for a wrong engine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.graph import Value, Values
from harness.layers import local_ratio, worst_first
from harness.records import LayerReport, ValueFinding

MOST_PARTS = 8
"""Parts that a group of values is split into at a time."""
MOST_TOGETHER = 8
"""Values that are tried all together, and then without each one of them; more are searched along the ranking."""
FLOATS = ("float32", "float16", "bfloat16", "float64", "")
"""The dtypes that a plan chooses between; empty for a value of unknown dtype."""
_VALUE = "value:"


@dataclass(frozen=True, kw_only=True)
class Units:
    """The float values of a program, and the patterns that mean them in a plan."""

    values: Mapping[str, Value]
    """By origin."""
    table: Values
    """All values of the program by name; several may come from one origin."""

    @classmethod
    def of(cls, values: Values) -> Units:
        """Return the float values of a table, one for each origin."""
        own = {value.origin: values.get(value.origin, value) for value in values.values() if value.dtype in FLOATS}
        return cls(values={name: value for name, value in own.items() if value.dtype in FLOATS}, table=values)

    def members(self, pattern: str) -> frozenset[str]:
        """Return the origins of the values that a module path, ``value:NAME`` or ``op:OPERATOR`` means."""
        if is_value(pattern):
            return frozenset({pattern.removeprefix(_VALUE)} & set(self.values))
        return self._by_pattern.get(pattern, frozenset())

    def patterns(self, names: Collection[str], *, operators: bool = True) -> tuple[str, ...]:
        """Return few patterns that mean these values and no others, sorted: modules, operators, then single values."""
        left, found = set(names), []
        known = {it: members for it, members in self._by_pattern.items() if operators or not it.startswith("op:")}
        whole = {pattern: members for pattern, members in known.items() if members <= left}
        while whole:
            pattern = max(whole, key=lambda it: (len(whole[it] & left), not it.startswith("op:"), it.count(".")))
            members = whole.pop(pattern) & left
            if len(members) > (1 if pattern.startswith("op:") else 0):
                found.append(pattern)
                left -= members
        return tuple(sorted([*found, *(f"{_VALUE}{name}" for name in left)]))

    def split(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """Return some values as the modules right below the one they have in common, and its own values.

        Neighbours go together where there are more than MOST_PARTS.
        """
        paths = {name: plain(self.values[name].module).split(".") for name in names}
        depth = _common(list(paths.values()))
        children: dict[str, list[str]] = {}
        for name, path in paths.items():
            part = ".".join(path[: depth + 1]) if len(path) > depth else f"{_VALUE}{name}"
            children.setdefault(part, []).append(name)
        return _chunks(list(children.values()), MOST_PARTS)

    @cached_property
    def _by_pattern(self) -> dict[str, frozenset[str]]:
        """What module paths, call numbers left out, and operators mean."""
        found: dict[str, set[str]] = {}
        for value in self.table.values():
            if value.dtype not in FLOATS or value.origin not in self.values:
                continue
            path = plain(value.module).split(".") if value.module else []
            for stop in range(1, len(path) + 1):
                found.setdefault(".".join(path[:stop]), set()).add(value.origin)
            found.setdefault(f"op:{value.op}", set()).add(value.origin)
        return {pattern: frozenset(names) for pattern, names in found.items()}


def _common(paths: Sequence[Sequence[str]]) -> int:
    """Return how many parts paths have in common from the front."""
    shortest = min(map(len, paths))
    return next((i for i in range(shortest) if len({path[i] for path in paths}) > 1), shortest)


def _chunks(parts: Sequence[list[str]], most: int) -> list[tuple[str, ...]]:
    """Return neighbouring parts together, so that there are no more than ``most``, of about as many values each."""
    if len(parts) <= most:
        return [tuple(part) for part in parts]
    total, seen = sum(map(len, parts)), 0
    chunks: dict[int, list[str]] = {}
    for part in parts:
        chunks.setdefault(seen * most // total, []).extend(part)
        seen += len(part)
    return [tuple(chunk) for chunk in chunks.values()]


def is_value(unit: str) -> bool:
    """Return whether a pattern is a single value."""
    return unit.startswith(_VALUE)


def unit_of(module: str, value: str) -> str:
    """Return the unit that a value is kept in FP32 with: its module, or at the root the value alone."""
    return plain(module) or f"{_VALUE}{value}"


def plain(module: str) -> str:
    """Return a module path without call numbers, as plans name it."""
    return re.sub(r"#\d+", "", module)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The patterns that a search for a plan tries."""

    first: tuple[tuple[str, ...], ...] = ()
    """Sets of patterns that are tried in turn, each all together, until one passes."""
    rest: tuple[str, ...] = ()
    """Patterns by which the last of those grows where none passed, the likeliest first."""


def suspects_in(report: LayerReport | None) -> list[ValueFinding]:
    """Return the values where the error is made: non-finite ones first, in dataflow order, the others by ratio."""
    compared = [value for value in report.values if value.status == "compared"] if report else []
    first = [value for value in compared if value.mark == "nonfinite"]
    others = [value for value in compared if value.mark in ("suspect", "flip")]
    return [*first, *sorted(others, key=lambda value: -local_ratio(value))]


def candidates_in_engine(values: Values, region: Sequence[str], report: LayerReport | None) -> Candidates:
    """Return the candidates for a wrong engine: the suspects, then more and more around them.

    With the suspects go a small region that fails alone; every value of an operator that has several suspects; the
    modules of the suspects and of the region. The rest is ordered by its error, or in dataflow order where the values
    were not observed.
    """
    suspects = [values[value.name] for value in suspects_in(report) if value.name in values]
    within = [values[name] for name in region if name in values]
    alone = _values(suspects)
    near = _values([*suspects, *within]) if len(within) <= MOST_TOGETHER else ()
    counts = Counter(value.op for value in suspects if value.op.startswith("aten."))
    operators = tuple(f"op:{op}" for op, count in counts.most_common() if count > 1)
    modules = tuple(dict.fromkeys(unit_of(value.module, value.origin) for value in [*suspects, *within]))
    if report is None:
        rest = [unit_of(value.module, value.origin) for value in Units.of(values).values.values()]
    else:
        compared = worst_first([value for value in report.values if value.status == "compared"])
        rest = [unit_of(value.module, value.name) for value in compared]
    sets = (alone, near, operators[:1], operators, modules)
    return Candidates(first=tuple(dict.fromkeys(filter(None, sets))), rest=tuple(dict.fromkeys(rest)))


def _values(several: Sequence[Value]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{_VALUE}{value.origin}" for value in several))
