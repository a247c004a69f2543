"""What a CI run shows: a summary for GitHub's job page, and the state of a badge as shields.io reads it.

JUnit needs nothing of its own: the pytest plugin puts every verdict into its test's properties.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.report import verdicts
from harness.report.hackathon_context import figure, target
from harness.report.latency import VERDICTS, latency, ms
from harness.report.latency import target as timed_target
from harness.report.markdown import code, escape, fence, table
from harness.report.records import Json, Records
from harness.report.text import count_line

LIMIT = 1024 * 1024 - 4096
"""Bytes; GitHub refuses a step's summary of more than 1 MiB."""
_VERDICTS = {"pass": "pass", "fail": "**FAIL**", "not_judged": "not judged"}


def summary(records: Records) -> str:
    """Return Markdown: the counts, what failed with its reason and what to type, then every verdict and latency.

    Rows beyond GitHub's limit are left out and counted.
    """
    results = [entry.data for entry in records.results]
    origins = {"weights": records.weights, "inputs": records.inputs, "on": records.devices}
    origin = "; ".join(f"{key}: {escape(', '.join(found) or 'not recorded')}" for key, found in origins.items())
    lines = ["## parity", "", *_counts(verdicts.everything(records)), "", origin, ""]
    lines += [f"- {escape(problem)}" for problem in _problems(records)]
    for result in results:
        if result["verdict"] == "fail":
            lines += _failure(result)
    others = [one for one in verdicts.everything(records) if one.kind != "accuracy" and one.verdict == "fail"]
    lines += [f"- {one.kind}: {code(one.name)}: {escape(one.reason)}" for one in others]
    blocks = [*_table("verdicts", _HEADINGS, _rows(results), 4), *_table("latency", _TIMED, _timed(records), 4)]
    blocks += _table("variants", _VARIANTS, _variants(records), 3)
    text, left = "\n".join(lines) + "\n", 0
    for line in blocks:
        if len(text.encode()) + len(line.encode()) + 1 > LIMIT:
            left += 1
        else:
            text += f"{line}\n"
    return f"{text}\n{left} lines left out: the records have them\n" if left else text


def write_summary(text: str) -> Path | None:
    """Append to the file that GitHub names in GITHUB_STEP_SUMMARY and return it; None where it names none.

    Raises UsageError when the file cannot be written.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return None
    path = Path(name)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot write GITHUB_STEP_SUMMARY {path}: {error.strerror or error}") from error
    return path


def badge(records: Records, *, label: str = "parity") -> dict[str, Any]:
    """Return the state of an endpoint badge (shields.io, schema version 1).

    Green only when everything that was recorded was judged and passed, and every recorded file is whole: verdicts on
    outputs, bisections, latencies, variants of studies and contest folders alike.
    """
    found = verdicts.everything(records)
    slower = sum(one.verdict == "fail" for one in map(verdicts.latency_item, _timed_newest(records)))
    failed = [one.verdict for one in found].count("fail") - slower
    counts = {
        "failed": failed,
        "slower": slower,
        "passed": sum(one.verdict == "pass" for one in found),
        "not judged": sum(one.verdict == "not_judged" for one in found),
        "empty studies": sum(not verdicts.variants(entry.data) for entry in records.studies),
        "unreadable": len(records.broken),
        "cut short": len(_cut(records)),
    }
    message = ", ".join(f"{count} {words}" for words, count in counts.items() if count) or "nothing recorded"
    bad = bool(failed or slower)
    doubtful = any(counts[key] for key in ("not judged", "empty studies", "unreadable", "cut short"))
    colour = "red" if bad else "lightgrey" if not counts["passed"] else "yellow" if doubtful else "brightgreen"
    return {"schemaVersion": 1, "label": label, "message": message, "color": colour, "isError": bad}


def _counts(found: Sequence[verdicts.Judged]) -> list[str]:
    """Return one line per kind of verdict, accuracy always."""
    kinds = [kind for kind in verdicts.KINDS if kind == "accuracy" or any(one.kind == kind for one in found)]
    return [f"- {kind}: {count_line({'verdict': one.verdict} for one in found if one.kind == kind)}" for kind in kinds]


def _timed_newest(records: Records) -> list[Mapping[str, Any]]:
    return verdicts.newest(entry.data for entry in records.bench)


def _problems(records: Records) -> list[str]:
    empty = [entry.data["name"] for entry in records.studies if not verdicts.variants(entry.data)]
    return [*records.broken, *_cut(records), *(f"the study {name} judged no variant" for name in empty)]


def _cut(records: Records) -> list[str]:
    cut = [doc for doc in records.documents if not doc.complete or doc.error]
    return [f"{doc.name} was cut short{f': {doc.error}' if doc.error else ''}" for doc in cut]


def _failure(result: Json) -> list[str]:
    label = f"{code(result['subject'])}/{code(result['case'])} [{code(target(result))}]"
    lines = [f"- {label}: {escape(result['reason'])}"]
    if result["next_step"]:
        lines += ["", *(f"  {line}" for line in fence(result["next_step"].split("\n"), "bash")), ""]
    return lines


_HEADINGS = ("subject", "case", "engine", "verdict", "relative error", "floor")
_TIMED = ("subject", "case", "engine", "verdict", "ms", "over eager FP32")
_VARIANTS = ("study", "variant", "verdict", "ms", "speed-up", "score")


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Return a table that is folded up at first; nothing for no rows."""
    if not rows:
        return []
    return ["", f"<details><summary>{title}</summary>", "", *table(headings, rows, words=words), "", "</details>"]


def _rows(results: Sequence[Json]) -> list[list[str]]:
    rows = []
    for result in results:
        label = [code(result["subject"]), code(result["case"]), code(target(result)), _VERDICTS[result["verdict"]]]
        errors = [o["relative_l2"] for o in result["outputs"] if o.get("relative_l2") is not None]
        floors = [o["floor"]["relative_l2"] for o in result["outputs"] if o["floor"] and o["floor"].get("relative_l2")]
        bad = any(o.get("mismatched_nonfinite") for o in result["outputs"])
        error = "NaN/Inf" if bad else figure(max(errors, default=None))
        rows.append([*label, error, figure(max(floors, default=None))])
    return rows


def _timed(records: Records) -> list[list[str]]:
    rows = []
    for entry in records.bench:
        session, comparison = entry.data["session"], entry.data["comparison"]
        time, factor = latency(session), entry.data["speed_up"].get("eager fp32")
        sizes = " ".join([session["case"], *(f"{name}={size}" for name, size in session["sizes"].items())])
        label = [code(session["subject"]), code(sizes), code(timed_target(session)), VERDICTS[comparison["verdict"]]]
        rows.append([*label, ms(time[0] if time else None), figure(factor)])
    return rows


def _variants(records: Records) -> list[list[str]]:
    return [
        [
            code(entry.data["name"]), code(variant["name"]),
            "reference" if verdicts.is_reference(entry.data, variant) else _VERDICTS[variant["verdict"]],
            ms(variant["latency_ms"]), figure(variant["speed_up"]), figure(variant["score"]),
        ]
        for entry in records.studies
        for variant in entry.data["variants"]
    ]  # fmt: skip
