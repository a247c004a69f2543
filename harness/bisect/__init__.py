"""Where the error of a wrong engine comes from, what to keep in FP32, and a plan that passes.

A subject, a target and a case go in; a :class:`harness.records.Bisection` comes out, with a plan file and a
reproducer where there is one.
"""

from __future__ import annotations

from harness.bisect.bisection import bisect
from harness.bisect.quantised import search_quantised
from harness.bisect.reproducer import check_replaceable

__all__ = [
    "bisect",
    "check_replaceable",
    "search_quantised",
]
