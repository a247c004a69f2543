"""The overview of a hackathon report: the link to the contest, the key numbers, and what failed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.hackathon.context import Context, origin, paragraphs
from harness.hackathon.figures import bench_groups
from harness.hackathon.template import CONTEST
from harness.records import Json
from harness.report import (
    BASELINE,
    all_verdicts,
    case_label,
    code,
    escape,
    is_invalid,
    largest_error,
    latency_reason,
    missing_verdict,
    newest_sessions,
    problems,
    session_latency,
    session_target,
    table,
    target_name,
)
from harness.report.text import ms, speed_up, worst_error

_SLOWER = "regressed"


def entry(context: Context) -> list[str]:
    """Return the sentence that this is an entry to the contest, with its link."""
    year = context.template
    return [context.words("readme_entry", year=year, link=CONTEST.format(year=year)), ""]


def numbers(context: Context) -> list[str]:
    """Return one row per subject, engine and device: verdict, largest error, latency, speed-up against PyTorch FP32."""
    words, timed = context.words, _timed(context)
    results = [entry.data for entry in context.records.results]
    rows = []
    for key in _row_keys(results, timed):
        judged = [r for r in results if (r["subject"], target_name(r)) == key[:2] and _device(r) in ("", key[2])]
        measured = timed.get(key, [])
        sources = [
            *(r["provenance"] or {} for r in judged if r["provenance"] or r["outputs"]),
            *(item["session"] for item in measured),
        ]
        labels = [code(key[0]), code(key[1]), ", ".join(origin(words, sources).values()), _verdicts(context, judged)]
        rows.append([*labels, *_worst(context, judged), *_speed(measured, judged)])
    if not rows:
        return []
    headings = context.heads("model", "engine", "origin", "verdict", "largest_error", "cosine", "latency_ms")
    named = [*headings, words("speed_up_against", name="PyTorch FP32")]
    return paragraphs([words("readme_numbers")], table(named, rows, words=4))


_RowKey = tuple[str, str, str]
"""Subject, engine and device; the device is empty where none was recorded."""


def _row_keys(results: Sequence[Json], timed: Mapping[_RowKey, object]) -> list[_RowKey]:
    """Return the key of every row; what has no device (it did not run) is on the rows of its engine, if there are."""
    judged = [(r["subject"], target_name(r), _device(r)) for r in results if r["verdict"] != "not_judged"]
    keys = list(dict.fromkeys([*judged, *timed]))
    placed = {key[:2] for key in keys if key[2]}
    return [key for key in keys if key[2] or key[:2] not in placed]


def _device(result: Json) -> str:
    return str((result["provenance"] or {}).get("device", ""))


def _timed(context: Context) -> dict[_RowKey, list[Json]]:
    """Return the newest measurements of engines that count, by row."""
    found: dict[_RowKey, list[Json]] = {}
    for item in (item for measured in bench_groups(context.records).values() for item in measured):
        session = item["session"]
        if session["runner"] == "engine" and session_latency(session) is not None and not is_invalid(session):
            found.setdefault((session["subject"], session_target(session), session["device"]), []).append(item)
    return found


def _speed(measured: Sequence[Json], judged: Sequence[Json]) -> list[str]:
    """Return latency and speed-up of the case as it is, else of the first size timed, named where there are several."""
    if not measured:
        return ["-", "-"]
    shown = min(measured, key=lambda item: len(item["session"]["sizes"]))
    session, time = shown["session"], session_latency(shown["session"])
    cases = {item["session"]["case"] for item in measured} | {result["case"] for result in judged}
    of = f" ({escape(case_label(session))})" if session["sizes"] or len(cases) > 1 else ""
    return [f"{ms(time and time[0])}{of}", speed_up(shown, BASELINE)]


def _verdicts(context: Context, results: Sequence[Json]) -> str:
    """Return ``pass 3, FAIL 1``; a dash where nothing was verified."""
    found = [r["verdict"] for r in results]
    counts = [
        f"{context.verdict(key)} {found.count(key)}" for key in ("fail", "known", "not_judged", "pass") if key in found
    ]
    return ", ".join(counts) or "-"


def _worst(context: Context, results: Sequence[Json]) -> list[str]:
    """Return the largest relative error and the smallest cosine over all outputs; no cosine beside NaN or infinity."""
    outputs = [output for r in results for output in r["outputs"]]
    error = largest_error(outputs)
    cosines = [output["cosine"] for output in outputs if output.get("cosine") is not None]
    finite = error is not None and math.isfinite(error)
    return [worst_error(outputs, context.words), f"{min(cosines):.7f}" if cosines and finite else "-"]


def findings(context: Context) -> list[str]:
    """Return the findings of bisections, and the engines that failed or were refused.

    "No problem" is returned only where everything was judged and passed, nothing got slower, and no record is missing,
    cut short or contradicts itself.
    """
    words, records = context.words, context.records
    lines = []
    for found in records.bisections:
        data = found.data
        plan = ""
        if data["plan"] is not None:
            plan = f"; {words('kept_fp32')}: {', '.join(map(code, data['plan'])) or words('none')}"
        label = f"{code(data['subject'])} [{code(target_name(data))}]"
        lines.append(f"- {label}: {escape(words('kind_' + data['kind']))}: {escape(data['finding'])}{plan}")
    lines += _not_passed(context)
    lines += [f"- {escape(problem)}" for problem in problems(records)]
    if lines:
        return paragraphs([words("readme_findings")], list(dict.fromkeys(lines)))
    judged = [one.verdict for one in all_verdicts(records) if one.kind != "latency"]
    if not judged:
        return [words("readme_nothing_judged"), ""]
    return [words("readme_no_findings"), ""] if set(judged) == {"pass"} else []


def _not_passed(context: Context) -> list[str]:
    """Return a line per engine, variant or folder that did not pass or got slower; cases of one reason in one line."""
    words = context.words
    found = [(e.data, target_name(e.data), e.data["case"], e.data["verdict"]) for e in context.records.results]
    found += [
        (e.data, session_target(e.data), case_label(e.data), missing_verdict(e.data))
        for e in context.records.not_measured
    ]
    found += [
        ({**m["session"], "reason": latency_reason(m)}, session_target(m["session"]), case_label(m["session"]), _SLOWER)
        for m in newest_sessions(entry.data for entry in context.records.bench)
        if m["comparison"]["verdict"] == _SLOWER and not m["baseline"]
    ]
    names: dict[tuple[str, str, str, str], list[str]] = {}
    for data, engine, case, verdict in found:
        if verdict != "pass":
            names.setdefault((data["subject"], engine, verdict, data["reason"]), []).append(case)
    lines = [
        f"- {code(subject)}/{', '.join(map(code, dict.fromkeys(cases)))} [{code(engine)}]: "
        f"{words('latency_regressed') if verdict == _SLOWER else context.verdict(verdict)}: {escape(reason)}"
        for (subject, engine, verdict, reason), cases in names.items()
    ]
    others = [
        one
        for one in all_verdicts(context.records)
        if one.kind in ("parts", "study", "score") and one.verdict != "pass"
    ]
    return [*lines, *(f"- {code(one.name)}: {context.verdict(one.verdict)}: {escape(one.reason)}" for one in others)]
