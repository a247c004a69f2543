"""What to keep in FP32 first, ranked by the observed values of the engine."""

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
