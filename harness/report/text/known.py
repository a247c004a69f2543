"""The ledger of known failures as plain text: how its entries came out in a run, and the entries themselves."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import visible
from harness.records import words_of_kind
from harness.report.facts import Json, about
from harness.report.text.tables import aligned, ascii_safe, plural, wrapped

_STATUSES = {"known": "as known", "failed": "failed", "not_reached": "not reached"}
_HEADINGS = ("entry", "subject", "target", "case", "kind", "at most", "names", "owner", "expires", "issue")


def known_text(standings: Sequence[Json]) -> str:
    """Return how the entries of a ledger came out, a line each; empty where it has none."""
    if not standings:
        return ""
    found = [one["status"] for one in standings]
    counts = ", ".join(f"{found.count(key)} {words}" for key, words in _STATUSES.items() if key in found)
    lines = [f"{standings[0]['file']}: {_entries(len(standings))}: {counts}"]
    for one in standings:
        lines += wrapped(f"  entry {one['entry']}: ", f"{_STATUSES[one['status']]}: {_words(one)}")
    return ascii_safe("\n".join(lines))


def known_table(standings: Sequence[Json]) -> str:
    """Return the entries of a ledger as a table, with the reasons below it."""
    rows = [
        (
            str(one["entry"]), about(one),
            ", ".join(one["target"]), ", ".join(one["case"]) or "all",
            words_of_kind(one["kind"]), "-" if one["at_most"] is None else f"{one['at_most']:g}",
            str(one["matched"]), one["owner"] or "-", f"{one['expires']} ({expiry_words(one['days_left'])})",
            one["issue"],
        )
        for one in standings
    ]  # fmt: skip
    lines = aligned([_HEADINGS, *([ascii_safe(visible(cell)) for cell in row] for row in rows)], words=len(_HEADINGS))
    reasons = [line for one in standings for line in wrapped(f"entry {one['entry']}: ", one["reason"])]
    return ascii_safe("\n".join([*lines, "", *reasons]))


def expiry_words(days_left: int) -> str:
    """Return ``in 12 days``, ``today`` or ``3 days ago``."""
    if days_left < 0:
        return f"{plural(-days_left, 'day')} ago"
    return f"in {plural(days_left, 'day')}" if days_left else "today"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _words(one: Json) -> str:
    """Return what an entry is about, how much of it was reached, who mends it, and until when it holds."""
    cases = f"/{','.join(one['case'])}" if one["case"] else ""
    parts = f" {', '.join(one['part'])}" if one["part"] else ""
    what = f"{one['subject']}{cases} [{', '.join(one['target'])}]{parts}: {words_of_kind(one['kind'])}"
    reached = plural(one["reached"], "part") if parts else f"{one['reached']} of {one['matched']} that it names"
    owner = f"owner {one['owner']}" if one["owner"] else ""
    expires = "expired" if one["days_left"] < 0 else "EXPIRES" if one["expires_soon"] else "expires"
    until = f"{expires} {one['expires']} ({expiry_words(one['days_left'])})"
    return "; ".join(filter(None, (what, reached, owner, until, one["issue"])))
