"""What of the records is a verdict, and which one: the same for the page, the badge and the summary of a CI run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.records import Records
from harness.report.facts import Json, case_label, is_judged, is_reference, newest_sessions, session_target, target_name

KINDS = ("accuracy", "bisection", "latency", "study", "score")
_LATENCIES = {"equivalent": "pass", "improved": "pass"}
_BISECTIONS = {"none": "pass", "not_judged": "not_judged"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One verdict."""

    kind: str
    """One of KINDS."""
    verdict: str
    name: str
    """What was judged: subject, target, case."""
    reason: str


def all_verdicts(records: Records) -> list[Judged]:
    """Return every verdict that the records hold, by kind."""
    found = [_judged("accuracy", e.data["verdict"], e.data, e.data["case"], e.data["reason"]) for e in records.results]
    found += [
        _judged("bisection", bisection(e.data), e.data, e.data["case"], e.data["finding"]) for e in records.bisections
    ]
    found += [latency_item(measured) for measured in newest(e.data for e in records.bench)]
    found += [
        Judged(kind="latency", verdict=missing_verdict(e.data), name=_timed_name(e.data), reason=e.data["reason"])
        for e in records.not_measured
    ]
    found += [
        Judged(kind="study", verdict=v["verdict"], name=f"{e.data['name']}: {v['name']}", reason=v["reason"])
        for e in records.studies
        for v in variants(e.data)
    ]
    found += [
        Judged(kind="score", verdict=e.data["verdict"], name=e.data["folder"], reason=e.data["reason"])
        for e in records.scores
    ]
    return found


def problems(records: Records) -> list[str]:
    """Return a sentence for each fault of the records; with any of them the badge and the page are not green.

    A foreign file and a verdict that was recorded twice are no fault: no record is missing because of them.
    """
    empty = [f"the study {name} judged no variant" for name in empty_studies(records)]
    return [*records.broken, *cut_short(records), *empty]


def cut_short(records: Records) -> list[str]:
    """Return a sentence per document that holds less than was asked for."""
    cut = [doc for doc in records.documents if not doc.complete or doc.error]
    return [f"{doc.name} was cut short{f': {doc.error}' if doc.error else ''}" for doc in cut]


def empty_studies(records: Records) -> list[str]:
    """Return the names of studies that judged no variant."""
    return [entry.data["name"] for entry in records.studies if not variants(entry.data)]


def bisection(found: Json) -> str:
    """Return what a bisection says of the engine it was asked about."""
    return _BISECTIONS.get(found["kind"], "fail")


def latency_verdict(measured: Json) -> str:
    """Return the verdict of one measurement.

    Only a regression that a second session repeated fails. A session without a baseline, and one whose environment
    was invalid, is not judged.
    """
    comparison = measured["comparison"]
    if comparison["verdict"] == "regressed" and comparison["repeated"]:
        return "fail"
    return _LATENCIES.get(comparison["verdict"], "not_judged")


def latency_reason(measured: Json) -> str:
    """Return why a measurement has its verdict, in one sentence of the record."""
    session, comparison = measured["session"], measured["comparison"]
    invalid = [why for run in session["runs"] for why in run["invalid"]]
    return str(comparison["rule"] or "; ".join([*invalid, *comparison["notes"]]))


def latency_item(measured: Json) -> Judged:
    """Return the verdict of one measurement with its name."""
    name = _timed_name(measured["session"])
    return Judged(kind="latency", verdict=latency_verdict(measured), name=name, reason=latency_reason(measured))


def missing_verdict(item: Json) -> str:
    """Return the verdict on an engine that could not be timed."""
    return "fail" if item["failed"] else "not_judged"


def newest(measured: Iterable[Json]) -> list[Json]:
    """Return the newest measurement of everything that carries a verdict; ``measured`` are oldest first."""
    return [item for item in newest_sessions(measured) if is_judged(item)]


def variants(study: Json) -> list[Json]:
    """Return the variants of a study that carry a verdict: the first, which the others are held against, does not.

    A first one that failed is a failure all the same.
    """
    return [v for v in study["variants"] if not is_reference(study, v)]


def _timed_name(data: Json) -> str:
    return f"{data['subject']} {session_target(data)} {case_label(data)}"


def _judged(kind: str, verdict: str, data: Json, case: str, reason: str) -> Judged:
    name = f"{data['subject']} {target_name(data)} {case}"
    return Judged(kind=kind, verdict=verdict, name=name, reason=reason)
