"""The smallest set to keep in FP32 so that PyTorch is right, by trying every set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from harness.compare import total_error
from harness.graph import Plan, Value, assign
from harness.verify import Prepared

MOST = 4000
"""Sets that are tried; a run takes about a millisecond."""
NEAR = 1.2
"""An error within this factor of the limit proves nothing: another order of summation may turn it over."""
VALUE = "value:"


def _unit(value: Value) -> str:
    return re.sub(r"#\d+", "", value.module) or VALUE + value.origin


class Smallest:
    """Every smallest set of units that passes; a unit is a module without those inside it, or a value at the root."""

    def __init__(self, prepared: Prepared, case: str, precision: str, limit: float | None) -> None:
        self.prepared, self.case, self.precision, self.limit = prepared, case, precision, limit
        self.expected = prepared.references.reference(case, "fp32")
        self.members: dict[str, frozenset[str]] = {}
        self.values = prepared.program.values
        self.origins = {name: it.origin for name, it in self.values.items() if "float" in it.dtype}
        for name in self.origins:
            unit = _unit(self.values[name])
            self.members[unit] = self.members.get(unit, frozenset()) | {self.origins[name]}
        self.doubt = ""
        self.units = self._smallest(sorted(self.members), frozenset())
        if not self.units and not self.doubt:
            self.doubt = "no set passes in PyTorch"

    def kept(self, patterns: Sequence[str]) -> frozenset[str]:
        """Return the origins of the values that a plan keeps in FP32."""
        plan = Plan(name="trial", dtype=self.precision, keep_fp32=tuple(patterns))
        dtypes = assign(plan, self.prepared.program.values)
        return frozenset(origin for origin in self.origins.values() if dtypes[origin] == "float32")

    def right(self, values: frozenset[str]) -> bool:
        """Return whether PyTorch is right with these values in FP32."""
        plan = Plan(name="trial", dtype=self.precision, keep_fp32=tuple(VALUE + name for name in sorted(values)))
        outputs = self.prepared.references.typed(self.case, assign(plan, self.prepared.program.values))
        error = total_error(outputs, self.expected)
        if self.limit is None:
            return all(bool(it.isfinite().all()) for it in outputs.values()) and error < 0.1
        if self.limit / NEAR < error < self.limit * NEAR:
            self.doubt = f"{sorted(values)}: {error:.3g} is too near to {self.limit:.3g}"
        return error <= self.limit

    def is_smallest(self, patterns: Sequence[str]) -> bool:
        """Return whether a plan passes, keeps no more units than needed, and no more values where it names values.

        Without a limit the harness derives a goal of its own, which may need more of a module's values than being
        finite does: then units alone are counted.
        """
        kept = self.kept(patterns)
        touched = [unit for unit, members in self.members.items() if members & kept]
        if not self.units or len(touched) > len(self.units[0]) or not self.right(kept):
            return False
        if self.limit is None:
            return True
        whole = self.kept([pattern for pattern in patterns if not pattern.startswith(VALUE)])
        single = sorted(VALUE + name for name in frozenset().union(*(self.members[it] for it in touched)) - whole)
        found = self._smallest(single, whole)
        return not found or len(kept - whole) <= len(found[0])

    def holds(self, name: str) -> bool:
        """Return whether a value, a unit, or all values of an operator, are in one of the smallest sets.

        A decision is in that of its module, and stands for what it is decided by: it rounds nothing itself.
        """
        if name.startswith("op:"):
            kept = self.kept([name])
            return any(kept <= frozenset().union(*(self.members[unit] for unit in units)) for units in self.units)
        name = name.removeprefix(VALUE)
        value = self.values.get(name) or self.values.get(self.prepared.program.outputs.get(name, name))
        own = {name, _unit(value)} if value is not None else {name}
        if value is not None and value.name not in self.origins and self.prepared.program.exported is not None:
            node = next(it for it in self.prepared.program.exported.graph.nodes if it.name == value.origin)
            own |= {_unit(self.values[read.name]) for read in node.all_input_nodes if read.name in self.values}
        return any(own & units for units in self.units)

    def _smallest(self, units: Sequence[str], base: frozenset[str]) -> list[frozenset[str]]:
        """Return all passing sets of the smallest size; none where that takes more than MOST trials."""
        tried = 0
        for size in range(len(units) + 1):
            found = []
            for part in itertools.combinations(units, size):
                tried += 1
                if tried > MOST:
                    self.doubt = self.doubt or f"more than {MOST} sets to try"
                    return []
                values = (self.members.get(unit, frozenset({unit.removeprefix(VALUE)})) for unit in part)
                if self.right(base.union(*values)):
                    found.append(frozenset(part))
            if found:
                return found
        return []
