"""What to keep in FP32 first, by what a look into the engine blames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.bisect.units import Units, unit_of
from harness.graph import Values
from harness.layers import local_ratio, worst_first
from harness.records import LayerReport, ValueFinding


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What a search for a plan tries, the likeliest first; all are patterns of precision plans."""

    first: tuple[str, ...] = ()
    """Units that are likely enough to be tried all together."""
    rest: tuple[str, ...] = ()
    """The other units."""
    operators: tuple[str, ...] = ()
    """Operators that are wrong in several places: one pattern for a fault in many places."""


def suspects_in(report: LayerReport | None) -> list[ValueFinding]:
    """Return the values where the error is made: non-finite ones first, in dataflow order, the others by ratio."""
    compared = [value for value in report.values if value.status == "compared"] if report else []
    first = [value for value in compared if value.mark == "nonfinite"]
    others = [value for value in compared if value.mark in ("suspect", "flip")]
    return [*first, *sorted(others, key=lambda value: -local_ratio(value))]


def candidates_in_engine(values: Values, region: Sequence[str], report: LayerReport | None) -> Candidates:
    """Return the candidates for a wrong engine: what is blamed and the region that fails alone, then all the rest.

    The rest goes by how wrong it is made, or without a look in dataflow order.
    """
    suspects = suspects_in(report)
    blamed = [values[name] for name in [*(value.name for value in suspects), *region] if name in values]
    if report is None:
        rest = [unit_of(value.module, value.origin) for value in Units.of(values).values.values()]
    else:
        compared = worst_first([value for value in report.values if value.status == "compared"])
        rest = [unit_of(value.module, value.name) for value in compared]
    operators = Counter(value.op for value in suspects if value.op.startswith("aten."))
    return Candidates(
        first=tuple(dict.fromkeys(unit_of(value.module, value.origin) for value in blamed)),
        rest=tuple(dict.fromkeys(rest)),
        operators=tuple(f"op:{op}" for op, count in operators.most_common() if count > 1),
    )
