"""The verdict on an output of indices, labels, booleans or codes: decisions are counted, never normed.

One that differs is excused, as a tie, only where the reference's own margin is within the error that PyTorch makes of
the deciding values in that precision (:mod:`harness.verify.margins`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.records import OutputResult

if TYPE_CHECKING:
    from harness.records import Decisions, Verdict
    from harness.subject import Tolerance


def judge_decisions(name: str, found: Decisions, *, precision: str, tolerance: Tolerance | None = None) -> OutputResult:
    """Return the verdict on one output of integers or booleans.

    ``precision`` is the format computed in. Of a tolerance only ``max_absolute`` has a meaning here:
    how many codes any element may be away. Raises UsageError for another one.
    """
    if tolerance is not None:
        require_codes(name, found, tolerance)
    verdict, reason = _judged(found, f"PyTorch {precision}", tolerance)
    allowed = {} if tolerance is None or tolerance.max_absolute is None else {"max_absolute": tolerance.max_absolute}
    return OutputResult(name=name, verdict=verdict, reason=reason, decisions=found, allowed=allowed)


def require_codes(name: str, found: Decisions, tolerance: Tolerance) -> None:
    """Raise UsageError for a tolerance that says nothing of decisions."""
    what = f"the Tolerance of output {name!r}"
    for figure in ("relative_l2", "cosine"):
        if getattr(tolerance, figure) is not None:
            raise UsageError(
                f"{what} sets {figure}, but {name} holds {found.dtype}: decisions are counted, not normed; give "
                "max_absolute= in codes, or leave the tolerance out"
            )
    if found.dtype == "bool" and (tolerance.max_absolute or 0) >= 1:
        raise UsageError(
            f"{what} sets max_absolute of 1 or more, but {name} holds bool: anything would pass; leave it out"
        )


def _judged(found: Decisions, loser: str, tolerance: Tolerance | None) -> tuple[Verdict, str]:
    if found.zero and found.elements > 1:
        return (
            "not_judged",
            "reference and output are all zeros, which proves nothing; give inputs that move this output",
        )
    if not found.differ:
        return "pass", f"all {found.elements} equal the reference" if found.elements else "empty, as the reference is"
    wrong = found.differ - found.ties
    text = _counted(found)
    if tolerance is not None and tolerance.max_absolute is not None:
        held = found.largest <= tolerance.max_absolute
        text += f"; {found.largest} codes away at most (allowed {tolerance.max_absolute:g})"
        if not held and found.wrong is not None:
            text += f", the first at {list(found.wrong.index)}"
        return ("pass" if held else "fail"), f"{text}; tolerance: {tolerance.why}"
    if not wrong:
        if found.most_ties is not None and found.ties > found.most_ties:
            return "fail", f"{text}, but a right engine decides at most {found.most_ties} near ties otherwise"
        return "pass", text
    assert found.wrong is not None
    first, itself = found.wrong, _itself(found, loser)
    text += f"; at {list(first.index)} the engine gives {first.actual}, the reference {first.expected}"
    if first.margin is not None and math.isnan(first.margin):
        return (
            "not_judged",
            f"{text}; NaN decides it ({first.operator} {first.value!r}); repair the model or its inputs",
        )
    if first.loses == float("inf"):
        return "not_judged", f"{text}; {loser} cannot hold what decides it ({first.operator} {first.value!r})"
    if first.margin is not None:
        text += f": {first.margin:.3g} apart in {first.operator} {first.value!r}, {loser} loses {first.loses:.3g} there"
        return "fail", f"{text} (a tie up to {first.excused:.3g}){itself}"
    if found.floor_differ is None and found.unknown.startswith("no floor"):
        return "not_judged", f"{text}; {found.unknown}"
    return "fail", f"{text}; {found.unknown or 'what decides it is not known'}, so none is excused{itself}"


def _itself(found: Decisions, loser: str) -> str:
    return "" if found.floor_differ is None else f"; {loser} itself decides {found.floor_differ} otherwise"


def _counted(found: Decisions) -> str:
    """Return ``2 of 64 differ, both ties``."""
    text = f"{found.differ} of {found.elements} {'differs' if found.differ == 1 else 'differ'}"
    if not found.ties:
        return text
    if found.ties < found.differ:
        return f"{text}, {found.ties} of them {'a tie' if found.ties == 1 else 'ties'}"
    return text + {1: ", a tie", 2: ", both ties"}.get(found.ties, ", all ties")
