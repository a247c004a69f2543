"""Which run a record is of, and what that run was to judge: known from its start, so that what died is named."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from harness.errors import UsageError
from harness.records.accuracy import Result, attempts_note, worse
from harness.records.latency import NotMeasured
from harness.sentences import Sentence

Json = dict[str, Any]
RUN_VARIABLE = "PARITY_RUN"
NOT_ENDED = Sentence("not_ended")
"""Why a record is incomplete whose run wrote nothing after it."""
DIED = Sentence("died")
_NAMES = ("subject", "case", "backend", "precision")


@cache
def run_id() -> str:
    """Return the id of this run: that of ``PARITY_RUN``, which several processes may share, or a new one."""
    return os.environ.get(RUN_VARIABLE) or uuid.uuid4().hex


def name_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a result is about: subject, case, backend and precision."""
    return tuple(str(result[name]) for name in _NAMES)


def merged(known: Json, data: Json) -> Json:
    """Return one result of two on the same target and case: the worse verdict, all metrics, and the layers."""
    metrics: dict[str, Json] = {}
    for metric in (*known["metrics"], *data["metrics"]):
        metrics[metric["name"]] = _worse(metrics.get(metric["name"], metric), metric)
    layers = known["layers"] or data["layers"]  # only test_layers records them
    one, other = (known, data) if _worse(known, data) is known else (data, known)
    tried = {name: other[name] for name in ("attempts", "attempts_allowed")} if not one["attempts"] else {}
    notes = list(dict.fromkeys([*(other["notes"] if tried.get("attempts") else ()), *one["notes"]]))
    return {**one, **tried, "notes": notes, "metrics": list(metrics.values()), "layers": layers}


def _worse(known: Json, data: Json) -> Json:
    """Return the one with the worse verdict; the known one where they are alike."""
    return known if worse(known["verdict"], data["verdict"]) == known["verdict"] else data


def with_missing(results: Iterable[Json], missing: Iterable[Mapping[str, Any]], reason: str) -> list[Json]:
    """Return results with one that is not judged for each of what is missing: for its own ``why``, or this reason.

    Where other checks of the same target and case arrived, theirs is at most not judged either.
    """
    asked = {name_of(one): one for one in missing}
    found = []
    for result in results:
        lacks = name_of(result) in asked and result["verdict"] == "pass"
        found.append(
            {**result, "verdict": "not_judged", **_ending(asked[name_of(result)], reason)} if lacks else result
        )
    known = {name_of(result) for result in found}
    return found + [_not_judged(one, reason) for name, one in asked.items() if name not in known]


def _ending(asked: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Return why something has no verdict, and what class of failure that is; the last of its ``attempts`` knows."""
    why = str(asked.get("why") or reason)
    ending = {"reason": why, "failure": asked.get("failure", "crash" if why == DIED else "")}
    attempts: Sequence[dict[str, Any]] = asked.get("attempts", ())
    if attempts:
        ending |= {name: attempts[-1][name] for name in ending}
    if len(attempts) > 1:
        note = attempts_note(attempts, len(attempts))
        ending |= {"attempts": list(attempts), "attempts_allowed": len(attempts), "notes": [note]}
    return ending


def _not_judged(asked: Mapping[str, Any], reason: str) -> Json:
    subject, case, backend, precision = name_of(asked)
    result = Result(
        subject=subject, case=case, backend=backend, precision=precision, source=str(asked.get("source", "")),
        verdict="not_judged", reason=reason, owner=str(asked.get("owner", "")),
    )  # fmt: skip
    return {**result.to_json(), **_ending(asked, reason)}


def as_ended(data: Json) -> Json:
    """Return a document of a run that ended early with a result for each of what it expected and did not get to."""
    if data.get("complete", True) or not isinstance(expected := data.get("expected"), list):
        return data
    named = [e for e in expected if isinstance(e, dict) and set(_NAMES) <= e.keys() and not e.get("arrived")]
    results, untimed = data.get("results"), data.get("not_measured", [])
    if not isinstance(results, list) or not isinstance(untimed, list):
        return data
    known = {name_of(one) for one in results if isinstance(one, dict) and set(_NAMES) <= one.keys()}
    missing = {name_of(entry): entry for entry in named if "sizes" not in entry and name_of(entry) not in known}
    error = data.get("error") or NOT_ENDED
    reason = DIED if error == NOT_ENDED else Sentence("not_judged_since", error=error)
    failed = {"failure": data["failure"]} if data.get("failure") else {}
    ended = {**data, "results": [*results, *(_not_judged({**failed, **one}, reason) for one in missing.values())]}
    if timed := [_not_timed(entry, reason) for entry in named if "sizes" in entry]:
        ended["not_measured"] = [*untimed, *timed]
    return ended


def _not_timed(asked: Mapping[str, Any], reason: str) -> Json:
    subject, case, backend, precision = name_of(asked)
    sizes = asked["sizes"] if isinstance(asked["sizes"], dict) else {}
    return NotMeasured(
        subject=subject, case=case, backend=backend, precision=precision, source=str(asked.get("source", "")),
        owner=str(asked.get("owner", "")), sizes=sizes, reason=reason,
    ).to_json()  # fmt: skip


def not_judged_of(manifest: Any, results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of what a manifest of ``parity list --json`` expects and no result has judged.

    Raises UsageError for data that is no such manifest.
    """
    expected = manifest.get("expected") if isinstance(manifest, dict) else None
    if not isinstance(expected, list) or not all(isinstance(e, dict) and set(_NAMES) <= e.keys() for e in expected):
        raise UsageError("it is no manifest: write one with parity list --json FILE")
    judged = {name_of(result) for result in results if result["verdict"] != "not_judged"}
    names = dict.fromkeys(name_of(entry) for entry in expected)
    return [words_of(name) for name in names if name not in judged]


def words_of(name: Sequence[str]) -> str:
    """Return ``clip/short [rtx-fp16]``."""
    subject, case, backend, precision = name
    return f"{subject}/{case} [{backend}-{precision}]"
