"""Find in PyTorch what to keep in FP32, before any engine is built: milliseconds a plan instead of minutes.

Units are modules first, then the modules inside those that matter, then single values. They are ranked by what the
outputs lose when only that unit is in low precision; the smallest set that makes the outputs right is searched on that
ranking. What passes here is confirmed on the engine.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from harness.bisect.search import smallest_set
from harness.compare import total_error
from harness.errors import NotJudged
from harness.graph import Plan, Value, Values, assign
from harness.records import Trial
from harness.tensors import Tensors

if TYPE_CHECKING:
    from harness.verify import Prepared


MOST_UNITS = 64
"""Units of one ranking; each costs one run of the program."""
MOST_SUBSETS = 6
"""Units of the largest set of which every part is tried."""
MOST_CALLS = 400
"""Plans tried in PyTorch per level."""
_PRODUCTS = re.compile(r"linear|mm\b|matmul|conv|attention|einsum|gemm|lstm|gru", re.IGNORECASE)
"""Operators whose cost in FP32 makes it worth keeping less than their module."""
_FLOATS = ("float32", "float16", "bfloat16", "float64", "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Units:
    """The float values of a program by the patterns that name them in a plan."""

    values: Mapping[str, Value]
    """By origin."""

    @classmethod
    def of(cls, values: Values) -> Units:
        """Return the float values of a table, one for each origin."""
        own = {value.origin: values.get(value.origin, value) for value in values.values() if value.dtype in _FLOATS}
        return cls(values={name: value for name, value in own.items() if value.dtype in _FLOATS})

    def members(self, pattern: str) -> frozenset[str]:
        """Return the origins that a module path or a ``value:`` pattern of ours names."""
        if pattern.startswith("value:"):
            return frozenset({pattern.removeprefix("value:")} & set(self.values))
        prefix = pattern + "."
        return frozenset(
            name
            for name, value in self.values.items()
            if not pattern or (path := plain(value.module)) == pattern or path.startswith(prefix)
        )

    def children(self, pattern: str) -> list[str]:
        """Return the modules right below a module, and its own values; nothing below a value."""
        if pattern.startswith("value:"):
            return []
        depth = len(pattern.split(".")) if pattern else 0
        below: dict[str, None] = {}
        members = self.members(pattern)
        for name in self.values:
            if name in members:
                path = plain(self.values[name].module)
                deeper = path.split(".")[: depth + 1] if path else []
                below[".".join(deeper) if len(deeper) > depth else f"value:{name}"] = None
        return list(below)

    def coarse(self) -> list[str]:
        """Return the coarsest units there are at least two of, split further while few enough."""
        units = self.children("")
        while True:
            split = [part for unit in units for part in (self._parts(unit) or [unit])]
            if split == units or len(split) > MOST_UNITS:
                return units
            units = split

    def _parts(self, unit: str) -> list[str]:
        """Return a module's submodules and values if it has submodules: single values are for later."""
        parts = self.children(unit)
        return parts if any(not part.startswith("value:") for part in parts) else []


def plain(module: str) -> str:
    """Return a module path without call numbers, as plans name it."""
    return re.sub(r"#\d+", "", module)


class Screen:
    """Tries plans in PyTorch for one case: which units, kept in FP32, make the outputs right."""

    def __init__(self, prepared: Prepared, case: str, plan: Plan, right: Callable[[Tensors], bool]) -> None:
        self.prepared, self.case, self.plan, self.right = prepared, case, plan, right
        self.units = Units.of(prepared.program.values)
        self.expected = prepared.references.reference(case, "fp32")
        self.trials: list[Trial] = []
        self._passed: dict[frozenset[str], bool] = {}

    def keep(self, patterns: Sequence[str]) -> Plan:
        """Return the plan that keeps these patterns in FP32, besides those the plan keeps already."""
        return dataclasses.replace(self.plan, keep_fp32=(*self.plan.keep_fp32, *patterns))

    def passes(self, patterns: frozenset[str]) -> bool:
        """Return whether PyTorch's outputs are right with these patterns in FP32."""
        kept = frozenset(name for pattern in patterns for name in self.units.members(pattern))
        if kept not in self._passed:
            outputs = self.prepared.references.typed(self.case, self._dtypes(patterns))
            self._passed[kept] = self.right(outputs)
            self.trials.append(
                Trial(
                    keep_fp32=tuple(sorted(patterns)), where="pytorch", passed=self._passed[kept],
                    error=total_error(outputs, self.expected),
                )
            )  # fmt: skip
        return self._passed[kept]

    def rank(self, units: Sequence[str]) -> list[str]:
        """Return the units by what the outputs lose when only that unit is in low precision, most first."""
        alone = {unit: self._error_alone(unit) for unit in units}
        return sorted(units, key=lambda unit: -alone[unit])

    def smallest(self, ranked: Sequence[str]) -> frozenset[str] | None:
        """Return the smallest set of these units that passes, or None."""
        found = smallest_set(ranked, lambda batch: [self.passes(patterns) for patterns in batch], max_calls=MOST_CALLS)
        return None if found.best is None else self._without_detours(found.best, ranked)

    def _without_detours(self, best: frozenset[str], ranked: Sequence[str]) -> frozenset[str]:
        """Return a smaller set that passes though sets between the two do not: one FP32 unit can spoil another's.

        Every single unit is tried, and every part of a small set.
        """
        sizes = range(2, len(best) if len(best) <= MOST_SUBSETS else 0)
        parts = (frozenset(part) for size in sizes for part in itertools.combinations(sorted(best), size))
        singles = (frozenset({unit}) for unit in ranked if len(best) > 1)
        return next((part for part in itertools.chain(singles, parts) if self.passes(part)), best)

    def search(self, say: Callable[[str], None]) -> tuple[str, ...] | None:
        """Return the smallest set of patterns that makes PyTorch's outputs right, or None when nothing does."""
        units = self.units.coarse()
        say(f"ranking {len(units)} modules and values in PyTorch")
        best = self.smallest(self.rank(units))
        while best is not None:
            finer = self._finer(best)
            if finer is None:
                return tuple(sorted(best))
            say(f"looking inside {', '.join(sorted(best))}")
            best = finer
        return None

    def _finer(self, best: frozenset[str]) -> frozenset[str] | None:
        """Return a smaller part of these patterns that passes as well, or None when there is none that is worth it."""
        parts = {pattern: self.units.children(pattern) for pattern in best}
        split = [part for pattern in sorted(best) for part in (parts[pattern] or [pattern])]
        if len(split) == len(best) and set(split) == set(best):
            return None
        found = self.smallest(self.rank(split))
        if found is None:
            return None
        whole = frozenset(
            pattern for pattern in best if parts[pattern] and not self._worth_splitting(pattern, parts[pattern], found)
        )
        rest = frozenset(part for part in found if not any(part in parts[pattern] for pattern in whole))
        result = whole | rest
        return None if result == best or not self.passes(result) else result

    def _worth_splitting(self, pattern: str, parts: Sequence[str], found: frozenset[str]) -> bool:
        """Return whether the parts that were found are to replace their module: one name is easier to read."""
        kept = {name for part in parts if part in found for name in self.units.members(part)}
        left = [self.units.values[name] for name in self.units.members(pattern) - kept]
        if any(not part.startswith("value:") for part in parts):
            return bool(left)
        return any(_PRODUCTS.search(value.op) for value in left)

    def _error_alone(self, unit: str) -> float:
        low = self.plan.compute_dtype
        names = self.units.members(unit)
        dtypes = {name: low if value.origin in names else "float32" for name, value in self._rows}
        return total_error(self.prepared.references.typed(self.case, dtypes), self.expected)

    def _dtypes(self, patterns: frozenset[str]) -> dict[str, str]:
        return assign(self.keep(sorted(patterns)), self.prepared.program.values)

    @cached_property
    def _rows(self) -> list[tuple[str, Value]]:
        """The float values by their own names, then by those they come from."""
        values = self.prepared.program.values
        return [(name, value) for name, value in values.items() if value.dtype in _FLOATS] + [
            (value.origin, value) for value in values.values() if value.dtype in _FLOATS
        ]


def require_float(units: Units) -> None:
    """Raise NotJudged when a program computes no float value: there is no precision to choose."""
    if not units.values:
        raise NotJudged("the program computes no float value, so there is no precision to choose")
