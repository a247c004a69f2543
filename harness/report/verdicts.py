"""The verdicts that records hold: the same for the page, the badge and the summary of a CI run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.records import NOT_LAUNCHED, Records, why_slower
from harness.report.facts import (
    Json,
    bisected_result,
    bisection_verdict,
    case_label,
    is_judged,
    judged_variants,
    known_words,
    newest_sessions,
    parity_alone,
    session_target,
    target_name,
)
from harness.report.text import WORDS, culprit_words
from harness.report.words import Words
from harness.sentences import Sentence
from harness.shards import parts_of
from harness.shards import problems as problems_of_shards

KINDS = ("accuracy", "cost", "parts", "bisection", "latency", "study", "score")
RANKS = ("fail", "known", "not_judged", "pass")
"""Verdicts from the worst to the best."""
_OF_A_SHARD = ("shard", "shards", "run", "command", "complete", "error", "environment")
Bisections = Sequence[Json] | Mapping[tuple[str, ...], Json]
"""Bisections, oldest first, or the newest of each engine by ``by_engine``."""
_LATENCIES = {"equivalent": "pass", "improved": "pass"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One verdict."""

    kind: str
    """One of KINDS."""
    verdict: str
    model: str
    """The subject, the study or the folder that it is about."""
    name: str
    """What was judged: subject, target, case."""
    reason: str
    owner: str = ""
    """Who answers for it; empty where nobody is named."""
    failure: str = ""
    """What class of failure it is."""
    lacks_baseline: bool = False
    """Whether it was timed and there is nothing to hold it against."""


One = TypeVar("One", bound=Judged)


def all_verdicts(records: Records) -> list[Judged]:
    """Return every verdict that the records hold, by kind."""
    bisections = by_engine(entry.data for entry in records.bisections)
    return [
        *(one for entry in records.results for one in result_items(entry.data, bisections)),
        *(parts_item(entry.data) for entry in records.parts),
        *(bisection_item(entry.data) for entry in records.bisections),
        *(latency_item(measured) for measured in newest(entry.data for entry in records.bench)),
        *(missing_item(entry.data) for entry in records.not_measured),
        *(variant_item(entry.data, variant) for entry in records.studies for variant in judged_variants(entry.data)),
        *(score_item(entry.data) for entry in records.scores),
    ]


def held(found: Sequence[One]) -> Sequence[One]:
    """Return the verdicts but for latencies without a baseline; those too where there is nothing else."""
    return [one for one in found if not one.lacks_baseline] or found


def by_model(found: Sequence[Judged]) -> dict[str, str]:
    """Return the worst verdict on each model; a latency without a baseline says nothing of it."""
    worst: dict[str, str] = {}
    for one in held(found):
        worst[one.model] = min(worst.get(one.model, one.verdict), one.verdict, key=RANKS.index)
    return worst


def result_item(result: Json, bisections: Bisections = (), t: Words = WORDS) -> Judged:
    """Return the verdict on an engine's outputs; of one that fails the reason is its culprit, where that is known."""
    reason = culprit_words(result, bisection_of(result, bisections), t) or result["reason"]
    if result["verdict"] == "known":
        reason = result["reason"]
    return Judged(
        kind="accuracy",
        verdict=result["verdict"],
        model=result["subject"],
        name=_name(result),
        reason=reason,
        owner=result["owner"],
        failure=result["failure"],
    )


def result_items(result: Json, bisections: Bisections = (), t: Words = WORDS) -> list[Judged]:
    """Return the verdict on an engine's outputs, and beside it the one on what quantisation costs, where it was asked.

    Of a known failure there is one verdict, which the ledger gives.
    """
    if not result.get("cost") or result["verdict"] == "known":
        return [result_item(result, bisections, t)]
    cost = result["cost"]
    failure = "wrong_answer" if cost["verdict"] == "fail" else ""
    return [
        result_item(parity_alone(result), bisections, t),
        Judged(
            kind="cost", verdict=cost["verdict"], model=result["subject"], name=_name(result), reason=cost["reason"],
            owner=result["owner"], failure=failure,
        ),
    ]  # fmt: skip


def parts_item(found: Json) -> Judged:
    """Return the verdict on a model that was brought up part by part."""
    failure = next((part["failure"] for part in found["parts"] if part["verdict"] == found["verdict"]), "")
    return Judged(
        kind="parts", verdict=found["verdict"], model=found["subject"], name=_name(found), reason=found["reason"],
        owner=found["owner"], failure=failure,
    )  # fmt: skip


def bisection_item(found: Json, t: Words = WORDS) -> Judged:
    """Return what a bisection says of its engine: its culprit, where that is known."""
    verdict = bisection_verdict(found)
    blamed = culprit_words(bisected_result(found), found, t) if verdict == "fail" else ""
    failure = "timeout" if verdict == "not_judged" and found["limit"] else ""
    return Judged(
        kind="bisection",
        verdict=verdict,
        model=found["subject"],
        name=_name(found),
        reason=blamed or found["finding"],
        failure=failure,
    )


def by_engine(bisections: Iterable[Json]) -> dict[tuple[str, ...], Json]:
    """Return the newest bisection of each engine; asking it is quick for each of thousands of results."""
    return {_identity(found): found for found in bisections}


def bisection_of(data: Json, bisections: Bisections) -> Json | None:
    """Return the newest bisection of the engine that a result or a bisection is about; None where there is none."""
    known = bisections if isinstance(bisections, Mapping) else by_engine(bisections)
    return known.get(_identity(data))


def missing_item(item: Json) -> Judged:
    """Return the verdict on an engine that could not be timed."""
    return Judged(
        kind="latency",
        verdict=missing_verdict(item),
        failure=item["failure"],
        model=item["subject"],
        name=_timed_name(item),
        reason=item["reason"],
        owner=item["owner"],
    )


def variant_item(study: Json, variant: Json) -> Judged:
    """Return the verdict on one variant of a study."""
    name = f"{study['name']}: {variant['name']}"
    return Judged(kind="study", verdict=variant["verdict"], model=study["name"], name=name, reason=variant["reason"])


def score_item(score: Json) -> Judged:
    """Return the verdict on a contest folder."""
    folder = score["folder"]
    return Judged(kind="score", verdict=score["verdict"], model=folder, name=folder, reason=score["reason"])


def problems(records: Records) -> list[str]:
    """Return a sentence for each fault of the records; with any of them the badge and the page are not green.

    A foreign file and a verdict that was recorded twice are no fault: no record is missing because of them.
    """
    empty = [Sentence("study_judged_none", name=name) for name in empty_studies(records)]
    return [*records.broken, *records.contradictory, *records.clashes, *records.stale, *cut_short(records),
            *missing_shards(records), *empty]  # fmt: skip


def missing_shards(records: Records) -> list[str]:
    """Return a sentence per shard that is missing beside others of its run, and what keeps them from being one run."""
    found = [
        part
        for doc in records.documents
        if doc.shard or doc.shards
        for part in parts_of({key: getattr(doc, key) for key in _OF_A_SHARD})
    ]
    known = " ".join(doc.error for doc in records.documents)  # of a merged record it names what is missing
    return [sentence for sentence in problems_of_shards(found) if sentence not in known]


def cut_short(records: Records) -> list[str]:
    """Return a sentence per document that holds less than was asked for."""
    cut = [doc for doc in records.documents if not doc.complete or doc.error]
    return [
        Sentence("was_cut_short", name=doc.name, why=Sentence("since", cause=doc.error) if doc.error else "")
        for doc in cut
    ]


def empty_studies(records: Records) -> list[str]:
    """Return the names of studies that judged no variant."""
    return [entry.data["name"] for entry in records.studies if not judged_variants(entry.data)]


def latency_verdict(measured: Json) -> str:
    """Return the verdict of one measurement.

    Only a regression that a second look confirmed fails, and an entry of the ledger that does not hold. A session
    without a baseline, on a machine that has changed, or in an invalid environment is not judged.
    """
    comparison, known = measured["comparison"], measured["known"]
    if known and known["why"]:
        return "fail"
    if comparison["verdict"] == "regressed" and comparison["repeated"]:
        covered = known and known["verdict"] == "fail" and not why_slower(comparison, known)
        return "known" if covered else "fail"
    return _LATENCIES.get(comparison["verdict"], "not_judged")


def latency_reason(measured: Json) -> str:
    """Return why a measurement has its verdict, in one sentence of the record."""
    session, comparison = measured["session"], measured["comparison"]
    invalid = [why for run in session["runs"] for why in run["invalid"]]
    reason = str(comparison["rule"] or "; ".join([*invalid, *comparison["notes"]]))
    return "; ".join(filter(None, (reason, known_words(measured["known"]))))


def latency_item(measured: Json) -> Judged:
    """Return the verdict of one measurement with its name."""
    return Judged(
        kind="latency",
        verdict=latency_verdict(measured),
        model=measured["session"]["subject"],
        name=_timed_name(measured["session"]),
        reason=latency_reason(measured),
        owner=measured["owner"],
        lacks_baseline=measured["comparison"]["verdict"] == "no_baseline",
    )


def missing_verdict(item: Json) -> str:
    """Return the verdict on an engine that could not be timed, or is known to crash and was not launched."""
    known = item["known"] and not item["known"]["why"] and item["known"]["kind"] in NOT_LAUNCHED
    return "fail" if item["failed"] else "known" if known else "not_judged"


def newest(measured: Iterable[Json]) -> list[Json]:
    """Return the newest measurement of everything that carries a verdict; ``measured`` are oldest first."""
    return [item for item in newest_sessions(measured) if is_judged(item)]


def _timed_name(data: Json) -> str:
    return f"{data['subject']} {session_target(data)} {case_label(data)}"


def _identity(data: Json) -> tuple[str, ...]:
    return _name(data), data.get("source", ""), data.get("plan_source", "")


def _name(data: Json) -> str:
    return f"{data['subject']} {target_name(data)} {data['case']}"
