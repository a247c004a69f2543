"""What an entry of the ledger makes of a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.ledger.entries import Entry, Ledger
from harness.records import (
    NOT_LAUNCHED,
    Known,
    Result,
    ResultVerdict,
    Verdict,
    failure_kind,
    settled_result,
    why_slower,
    why_worse,
    words_of_kind,
)
from harness.sentences import Sentence, joined
from harness.subject import Subject, Target

Json = dict[str, Any]


def judged(result: Mapping[str, Any], ledger: Ledger, entry: Entry, *, owner: str = "") -> Json:
    """Return the JSON of a result with the verdict that its entry leaves, and why: known, or a failure all the same.

    What could not be judged for another reason than the entry's stays so.
    """
    bare = settled_result(result)
    if bare["verdict"] == "known":
        return bare
    known = replace(ledger.known(entry, owner=owner), verdict=bare["verdict"])
    kind, where = failure_kind(bare), ledger.where(entry)
    found: ResultVerdict = "fail"
    if bare["verdict"] == "pass":
        why: str = Sentence("passes_now", where=where, issue=entry.issue)
        bare = {**bare, "reason": ""}
    elif ledger.is_expired(entry):
        why = _over(ledger, entry)
    elif bare["verdict"] == "not_judged" and kind != entry.kind:
        found, why = "not_judged", ""
    elif worse := why_worse(bare, known.to_json()):
        why = Sentence("not_as_known", where=where, worse=worse)
    else:
        found, why = "known", ""
    said = why or (
        Sentence("known_until", expires=entry.expires, reason=entry.reason, issue=entry.issue)
        if found == "known"
        else ""
    )
    reason = joined((bare["reason"], said))
    notes = [*bare["notes"], said] if said and bare["reason"] else bare["notes"]
    return {
        **bare, "verdict": found, "reason": reason, "notes": notes, "owner": known.owner,
        "known": replace(known, why=why).to_json(),
    }  # fmt: skip


def as_known(result: Result, ledger: Ledger, entry: Entry, *, owner: str = "") -> Result:
    """Return a result with the verdict that its entry leaves."""
    found = judged(result.to_json(), ledger, entry, owner=owner)
    return replace(
        result, verdict=found["verdict"], reason=found["reason"], notes=tuple(found["notes"]), owner=found["owner"],
        known=Known(**found["known"]),
    )  # fmt: skip


def is_launched(entry: Entry | None) -> bool:
    """Return whether an engine with this entry is launched."""
    return entry is None or entry.kind not in NOT_LAUNCHED


def not_launched(subject: Subject, target: Target, case: str, ledger: Ledger, entry: Entry, plan_source: str) -> Result:
    """Return the result of an engine that is known to crash: known without a run, or a failure where that is over."""
    why = _over(ledger, entry) if ledger.is_expired(entry) else ""
    known = replace(ledger.known(entry, owner=subject.owner), why=why)
    return Result(
        subject=subject.name, case=case, backend=target.backend, precision=target.precision_name,
        source=subject.source, plan_source=plan_source, verdict="fail" if why else "known",
        reason=joined((not_launched_words(entry), why)), owner=known.owner, known=known,
    )  # fmt: skip


def not_launched_words(entry: Entry) -> str:
    """Return why an engine is not launched."""
    known = Sentence(
        "known_kind_until",
        words_of_kind=words_of_kind(entry.kind),
        expires=entry.expires,
        reason=entry.reason,
        issue=entry.issue,
    )
    return Sentence("not_launched", known=known)


def judged_latency(measured: Mapping[str, Any], ledger: Ledger, entry: Entry, *, owner: str = "") -> Json:
    """Return the JSON of a measurement with what its entry says of it."""
    comparison = measured["comparison"]
    verdict: Verdict = "not_judged"
    if comparison["verdict"] == "regressed" and comparison["repeated"]:
        verdict = "fail"
    elif comparison["verdict"] in ("equivalent", "improved") and not measured["session"]["sizes"]:
        verdict = "pass"  # of a sweep an entry may be about another size
    known, where, why = ledger.known(entry, owner=owner), ledger.where(entry), ""
    if verdict == "pass":
        why = Sentence("not_slower_now", where=where, issue=entry.issue)
    elif ledger.is_expired(entry):
        why = _over(ledger, entry)
    elif verdict == "fail" and (slower := why_slower(comparison, known.to_json())):
        why = Sentence("not_as_known", where=where, worse=slower)
    return {**measured, "owner": known.owner, "known": replace(known, verdict=verdict, why=why).to_json()}


def _over(ledger: Ledger, entry: Entry) -> str:
    return Sentence("known_only_until", expires=entry.expires, where=ledger.where(entry))
