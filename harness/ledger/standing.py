"""How the entries of the ledger came out in a run: as known, failed, or not reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from harness.ledger.entries import WARN_DAYS, Entry, Ledger
from harness.records import Standing
from harness.subject import Subject

Json = dict[str, Any]


def declared_by(subject: Subject) -> Json:
    """Return what entries can name of a subject, as plain data."""
    cases = [*subject.cases, *subject.range_cases]
    return {"source": subject.source, "targets": [str(target) for target in subject.targets], "cases": cases}


def standings(
    ledger: Ledger,
    declared: Mapping[str, Json],
    results: Iterable[Mapping[str, Any]] = (),
    latencies: Iterable[Mapping[str, Any]] = (),
    models: Iterable[Mapping[str, Any]] = (),
) -> list[Json]:
    """Return each entry with how it came out: ``known``, ``failed`` or ``not_reached``.

    ``declared`` has by its name what a subject declares, as :func:`declared_by` gives it: with it the targets and cases
    are counted that an entry names. ``models`` are those that were brought up part by part.
    """
    found: dict[int, list[Json]] = {}
    for one in (*results, *latencies, *(part for model in models for part in model["parts"])):
        if one["known"]:
            found.setdefault(one["known"]["entry"], []).append(one["known"])
    return [
        _standing(ledger, entry, declared.get(entry.subject), found.get(entry.number, [])) for entry in ledger.entries
    ]


def _standing(ledger: Ledger, entry: Entry, declared: Json | None, found: Sequence[Json]) -> Json:
    pairs = [(t, c) for t in declared["targets"] for c in declared["cases"]] if declared else []
    source = str(declared["source"]) if declared else ""
    held = [one for one in found if one["verdict"] in ("", "fail") or (one["verdict"] and one["why"])]
    status: Literal["known", "failed", "not_reached"] = "known" if held else "not_reached"
    if any(one["why"] for one in found):
        status = "failed"
    left = (entry.expires - ledger.day).days
    return Standing(
        file=ledger.file, entry=entry.number, subject=entry.subject, source=entry.source or source,
        target=entry.target, case=entry.case, part=entry.part, kind=entry.kind, at_most=entry.at_most,
        reason=entry.reason, issue=entry.issue, owner=entry.owner, expires=entry.expires.isoformat(), days_left=left,
        expires_soon=0 <= left < WARN_DAYS, status=status, reached=len(held),
        matched=sum(entry.names(entry.subject, source, *pair) for pair in pairs),
    ).to_json()  # fmt: skip


def unknown_subjects(ledger: Ledger, names: Iterable[str]) -> list[str]:
    """Return a sentence for each entry whose subject is none of these; one that gives its source is left alone."""
    known = set(names)
    return [
        f"{ledger.where(entry)}: no suite declares a subject {entry.subject!r}; correct its name, or remove the entry"
        for entry in ledger.entries
        if entry.subject not in known and not entry.source
    ]
