"""What a CI run shows at a glance: the state of a badge as shields.io reads it.

JUnit needs nothing of its own: the pytest plugin puts every verdict into its test's properties.
"""

from __future__ import annotations

from typing import Any

from harness.records import Records
from harness.report import verdicts

_WORST = 2
"""Counts that the badge has room for."""


def badge(records: Records) -> dict[str, Any]:
    """Return the state of an endpoint badge (shields.io, schema version 1).

    Green only when everything that was recorded was judged and passed, and every recorded file is whole: verdicts on
    outputs, bisections, latencies, variants of studies and contest folders alike. A known failure is none that passed.
    """
    found = verdicts.all_verdicts(records)
    timed = verdicts.newest(entry.data for entry in records.bench)
    slower = sum(one.verdict == "fail" for one in map(verdicts.latency_item, timed))
    failed = [one.verdict for one in found].count("fail") - slower
    counts = {
        "failed": failed,
        "slower": slower,
        "passed": sum(one.verdict == "pass" for one in found),
        "known": sum(one.verdict == "known" for one in found),
        "not judged": sum(one.verdict == "not_judged" for one in found),
        "empty studies": len(verdicts.empty_studies(records)),
        "unreadable": len(records.broken),
        "contradictory": len(records.contradictory),
        "of one name": len(records.clashes),
        "of another run": len(records.stale),
        "left out": len(records.left_out),
        "cut short": len(verdicts.cut_short(records)),
        "of missing shards": len(verdicts.missing_shards(records)),
    }
    shown = [f"{count} {words}" for words, count in counts.items() if count]
    message = ", ".join(shown[:_WORST]) or "nothing recorded"
    bad = bool(failed or slower)
    doubtful = bool(counts["known"] or counts["not judged"] or verdicts.problems(records))
    colour = "red" if bad else "lightgrey" if not counts["passed"] else "yellow" if doubtful else "brightgreen"
    return {"schemaVersion": 1, "label": "parity", "message": message, "color": colour, "isError": bad}
