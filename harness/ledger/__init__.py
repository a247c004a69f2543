"""The ledger of known failures: ``known.toml`` in the suites' repository, read strictly, applied and added to.

An entry names a subject and its targets, says how they fail and why, and holds until a day. It turns a failure that is
no worse than it says into the verdict ``known``; one that passes, or whose day is over, fails: docs/known.md.
"""

from __future__ import annotations

from harness.ledger.adding import entry_text, proposed, with_entries
from harness.ledger.entries import FILE, MOST_DAYS, UPTO, WARN_DAYS, Entry, Ledger, read, today
from harness.ledger.judging import as_known, is_launched, judged, judged_latency, not_launched, not_launched_words
from harness.ledger.standing import declared_by, standings, unknown_subjects

__all__ = [
    "FILE",
    "MOST_DAYS",
    "UPTO",
    "WARN_DAYS",
    "Entry",
    "Ledger",
    "as_known",
    "declared_by",
    "entry_text",
    "is_launched",
    "judged",
    "judged_latency",
    "not_launched",
    "not_launched_words",
    "proposed",
    "read",
    "standings",
    "today",
    "unknown_subjects",
    "with_entries",
]
