"""Which operators of a quantised model to leave in floats, as data: the ranking, the sets tried, the answer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from harness.records.data import TargetRecord, Verdict, plain


@dataclass(frozen=True, kw_only=True)
class UnitCost:
    """One operator with its Q/DQ, in fake-quantisation."""

    name: str
    """The operator's node name."""
    op: str
    """Its type."""
    alone: float
    """The largest relative error of an output where this unit alone is quantised."""
    without: float
    """The same where all are but this one."""
    left: bool = False
    """Whether the answer leaves it in floats."""


@dataclass(frozen=True, kw_only=True)
class QuantTrial:
    """One set of units in floats."""

    units: int
    """How many are in floats."""
    error: float | None
    """The largest relative error of an output; None where it is not finite."""
    verdict: Verdict
    """On the cost."""
    on: str
    """What computed it: ``fake-quantisation``, or ``engine``."""
    ms: float | None = None
    """Median time of one run of the engine; None where it was not timed."""


@dataclass(frozen=True, kw_only=True)
class QuantSearch(TargetRecord):
    """What ``parity bisect --quant`` found."""

    verdict: Verdict
    """``pass`` where a set was found that meets the limit on the engine; ``fail`` where none does."""
    finding: str
    """One sentence."""
    against: str
    """Name of the unquantised subject."""
    limit: str
    """What the cost is held to, in words."""
    allowed: float | None = None
    """The one relative error that every output may have; None for other limits."""
    error: float | None
    """Largest relative error with every unit quantised, in fake-quantisation."""
    units: tuple[UnitCost, ...] = ()
    """The largest cost first: in this order they are left in floats."""
    trials: tuple[QuantTrial, ...] = ()
    """Every set that was tried, in order."""
    exclude: tuple[str, ...] = ()
    """The units to leave in floats: ``quant_exclude`` of the plan."""
    plan_file: str = ""
    """Where the plan was written; empty without one."""
    device: str = ""
    """What the engines ran on."""
    evaluations: int = 0
    """Runs of the graph in fake-quantisation, each over all cases."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys."""
        data: dict[str, Any] = plain(dataclasses.asdict(self))
        return data
