"""What was found of an output of indices, labels, booleans or codes: counted, not measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class WrongDecision:
    """A decision that differs from the reference's and is no tie."""

    index: tuple[int, ...]
    """Where in the output."""
    actual: int
    """What the engine gives; of a boolean 0 or 1."""
    expected: int
    """What the reference gives."""
    operator: str = ""
    """The operator that decides it (``ArgMax``); empty where no node of the graph is known to."""
    value: str = ""
    """The value that it decides, by name."""
    margin: float | None = None
    """How far apart the deciding values are in the reference, in their own unit; None where that is not known."""
    loses: float | None = None
    """What PyTorch in the engine's precision loses of them."""
    excused: float | None = None
    """The largest margin that would have been a tie."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """One output against the reference, element by element."""

    shape: tuple[int, ...]
    """Dimensions of the reference's tensor."""
    dtype: str
    """Of the engine's tensor, such as ``int64``."""
    elements: int
    """How many decisions there are."""
    differ: int
    """How many differ from the reference's."""
    ties: int = 0
    """How many of these PyTorch itself could have made the other way round in the engine's precision."""
    most_ties: int | None = None
    """How many ties a right engine has at most; None where that is not known."""
    floor_differ: int | None = None
    """How many PyTorch makes differently in the engine's precision; None where there is no such floor."""
    largest: int = 0
    """Largest difference of those that are no ties, in codes."""
    zero: bool = False
    """Every element is 0 in both."""
    wrong: WrongDecision | None = None
    """The first that differs and is no tie."""
    unknown: str = ""
    """Why the margins are not known, where something differs; empty where they are."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, one key per field."""
        return dataclasses.asdict(self)
