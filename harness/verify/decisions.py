"""The verdict on an output of indices, labels, booleans or codes: decisions are counted, never normed.

One that differs is excused, as a tie, only where the reference's own margin is within the error that PyTorch makes of
the deciding values in that precision (:mod:`harness.verify.margins`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.records import OutputResult
from harness.sentences import Sentence

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
            Sentence("zeros_prove_nothing"),
        )
    if not found.differ:
        return "pass", Sentence("decisions_all_equal", elements=found.elements) if found.elements else Sentence(
            "empty_as_reference"
        )
    wrong = found.differ - found.ties
    text = _counted(found)
    if tolerance is not None and tolerance.max_absolute is not None:
        held = found.largest <= tolerance.max_absolute
        text += Sentence("decisions_codes_away", largest=found.largest, max_absolute=tolerance.max_absolute)
        if not held and found.wrong is not None:
            text += Sentence("decisions_first_at", index=list(found.wrong.index))
        return ("pass" if held else "fail"), Sentence("with_tolerance", text=text, why=tolerance.why)
    if not wrong:
        if found.most_ties is not None and found.ties > found.most_ties:
            return "fail", Sentence("decisions_too_many_ties", text=text, most_ties=found.most_ties)
        return "pass", text
    assert found.wrong is not None
    first, itself = found.wrong, _itself(found, loser)
    text += Sentence("decisions_worst_at", index=list(first.index), actual=first.actual, expected=first.expected)
    if first.margin is not None and math.isnan(first.margin):
        return (
            "not_judged",
            Sentence("decisions_nan_decides", text=text, operator=first.operator, value=first.value),
        )
    if first.loses == float("inf"):
        return "not_judged", Sentence(
            "decisions_cannot_hold", text=text, loser=loser, operator=first.operator, value=first.value
        )
    if first.margin is not None:
        text += Sentence(
            "decisions_apart",
            margin=first.margin,
            operator=first.operator,
            value=first.value,
            loser=loser,
            loses=first.loses,
        )
        return "fail", Sentence("decisions_tie_up_to", text=text, excused=first.excused, itself=itself)
    if found.floor_differ is None and found.unknown.startswith("no floor"):
        return "not_judged", Sentence("joined_two", text=text, unknown=found.unknown)
    return "fail", Sentence(
        "decisions_none_excused", text=text, unknown=found.unknown or Sentence("decision_unknown"), itself=itself
    )


def _itself(found: Decisions, loser: str) -> str:
    return (
        "" if found.floor_differ is None else Sentence("decisions_itself", loser=loser, floor_differ=found.floor_differ)
    )


def _counted(found: Decisions) -> str:
    """Return ``2 of 64 differ, both ties``."""
    text = Sentence("decisions_differ", differ=found.differ, elements=found.elements)
    if not found.ties:
        return text
    if found.ties < found.differ:
        ties = Sentence("decisions_ties", ties=found.ties)
    elif found.ties == 1:
        ties = Sentence("decisions_tie")
    else:
        ties = Sentence("decisions_both_ties") if found.ties == 2 else Sentence("decisions_all_ties")
    return text + ties
