"""What a whole run of ``bench`` comes to: verdicts corrected for their number, and the exit status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.latency.verdict import holm
from harness.records import Measured, NotMeasured


def adjusted(found: Sequence[Measured | NotMeasured]) -> list[Measured | NotMeasured]:
    """Return one run's verdicts corrected for their number (Holm): twenty benchmarks have twenty chances to alarm."""
    comparisons = iter(holm([item.comparison for item in found if isinstance(item, Measured)]))
    return [replace(item, comparison=next(comparisons)) if isinstance(item, Measured) else item for item in found]


def exit_status(found: Sequence[Measured | NotMeasured], require: Iterable[str] = ()) -> int:
    """Return 1 for a repeated regression or an engine that failed, 3 where figures are missing or worthless, else 0.

    Figures of baselines do not count: where no engine could be timed, nothing was.
    """
    measured = [item for item in found if isinstance(item, Measured)]
    if any(one.comparison.verdict == "regressed" and one.comparison.repeated for one in measured):
        return 1
    if any(isinstance(item, NotMeasured) and item.failed for item in found):
        return 1
    if any(one.session.invalid for one in measured) or lacking(found, require):
        return 3
    return 3 if all(one.baseline for one in measured) else 0


def lacking(found: Sequence[Measured | NotMeasured], require: Iterable[str]) -> list[str]:
    """Return the required backends that were not timed, or not everywhere."""
    sound = {item.session.backend for item in found if isinstance(item, Measured) and not item.session.invalid}
    missing = {item.backend for item in found if isinstance(item, NotMeasured) and not item.baseline}
    return [name for name in dict.fromkeys(require) if name not in sound or name in missing]
