"""What the rounding of each part of a program costs the outputs, and which parts are out of line.

Parts are split only where they matter, so a culprit among n values is found in about 8 + 2 log2(n) runs instead of n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.verify import FACTOR


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some values, and what they cost together."""

    names: tuple[str, ...]
    """In dataflow order."""
    error: float
    """Of the outputs with only these values in low precision; infinite where that is not finite."""
    whole: bool = False
    """Whether no part of it is out of line although the whole is: it is not split."""

    @property
    def per_value(self) -> float:
        """The error of one of its values, if all of them lose alike and independently."""
        return self.error / math.sqrt(len(self.names))


Needed = Callable[[Sequence[Group]], int]
"""How many of the groups, largest error first, are to be known value by value."""


def together(groups: Sequence[Group]) -> float:
    """Return the error of groups whose errors are independent."""
    return math.hypot(*(group.error for group in groups))


def out_of_line(groups: Sequence[Group], *, roundoff: float) -> int:
    """Return how many groups, the first of those sorted by error, are out of line.

    Each of them costs FACTOR times what all behind it cost together, and FACTOR times what its own values would cost
    if their roundings arrived as large as they were made. Not finite is always out of line.
    """
    for count in range(len(groups), 0, -1):
        last, rest = groups[count - 1], together(groups[count:])
        if last.error == math.inf:
            return count
        least = roundoff * math.sqrt(len(last.names))
        if count < len(groups) and last.error >= FACTOR * max(rest, least):
            return count
    return 0


def beyond(groups: Sequence[Group], *, limit: float) -> int:
    """Return how many groups, the first of those sorted by error, must go until the rest costs no more than a limit."""
    return next((count for count in range(len(groups)) if together(groups[count:]) <= limit), len(groups))


def ranked(
    parts: Sequence[tuple[str, ...]],
    split: Callable[[tuple[str, ...]], Sequence[tuple[str, ...]]],
    alone: Callable[[tuple[str, ...]], float],
    needed: Needed,
    *,
    most: int,
) -> list[Group]:
    """Return groups by their errors, largest first; those that are needed are split into values.

    ``alone`` gives the error with only some values in low precision; a group is split as long as it was asked less than
    ``most`` times. What is needed only as a whole stays whole.
    """
    groups = _sorted([Group(names=part, error=alone(part)) for part in parts])
    asked = len(groups)
    while asked < most:
        composite = (it for it in groups[: needed(groups)] if len(it.names) > 1 and not it.whole)
        if (largest := next(composite, None)) is None:
            break
        pieces = [Group(names=names, error=alone(names)) for names in split(largest.names)]
        asked += len(pieces)
        others = [group for group in groups if group is not largest]
        finer = _sorted([*others, *pieces])
        known = any(piece in finer[: needed(finer)] for piece in pieces)
        groups = finer if known else _sorted([*others, replace(largest, whole=True)])
    return groups


def _sorted(groups: Sequence[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: -group.error)
