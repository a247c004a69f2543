"""What a CI run shows: a summary for GitHub's job page, and the state of a badge as shields.io reads it.

JUnit needs nothing of its own: the pytest plugin puts every verdict into its test's properties.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError, few
from harness.records import Json, Records, merged_standings, words_of_kind
from harness.report import verdicts
from harness.report.facts import BASELINE, case_label, is_reference, session_latency, session_target, target_name
from harness.report.markdown import code, escape, fence, table, verdict_cell
from harness.report.text import (
    WORDS,
    commands_of,
    creep_lines,
    failure_word,
    latency_word,
    ms,
    number,
    runs_lines,
    verdict_counts,
    worst_error,
)

LIMIT = 1024 * 1024 - 4096
"""Bytes; GitHub refuses a step's summary of more than 1 MiB."""
SHOWN = 20
"""Names of tests that were left out; the records have all."""
_LAST_LINE = 80
"""Bytes reserved for the sentence on what was left out."""


def summary(records: Records) -> str:
    """Return Markdown: the counts, what failed with its reason and what to type, then every verdict and latency.

    What goes beyond GitHub's limit is left out and counted: a failure or a row of a table as a whole.
    """
    found = verdicts.all_verdicts(records)
    results = [entry.data for entry in records.results]
    origins = {"weights": records.weights, "inputs": records.inputs, "on": records.devices}
    origin = "; ".join(f"{key}: {escape(', '.join(known) or 'not recorded')}" for key, known in origins.items())
    rising = [f"- warning: {escape(sentence)}" for sentence in creep_lines(records.trends)]
    text = "\n".join(["## parity", "", *_counts(found), *_left_out(records), *rising, "", origin, "", ""])
    bad = [f"- {escape(problem)}\n" for problem in (*verdicts.problems(records), *_expiring(records))]
    bisections = verdicts.by_engine(entry.data for entry in records.bisections)
    bad += _by_owner([result for result in results if result["verdict"] == "fail"], bisections)
    said = {(one.name, one.reason) for one in found if one.kind == "accuracy"}
    others = [one for one in found if one.verdict == "fail" and one.kind != "accuracy"]
    others = [one for one in others if one.kind != "bisection" or (one.name, one.reason) not in said]
    bad += [f"- {one.kind}: {code(one.name)}: {escape(one.reason)}\n" for one in others]
    room, left = LIMIT - len(text.encode()) - _LAST_LINE, 0
    for opening, blocks, closing in (
        ("", bad, ""),
        *([_table("known failures", _KNOWN, known, len(_KNOWN))] if (known := _known(records)) else []),
        _table("verdicts", _HEADINGS, _rows(results), 4, _note(results)),
        _table("latency", _TIMED, _timed(records), 4),
        _table("variants", _VARIANTS, _variants(records), 3),
    ):
        shown, room = _fitting(blocks, room - len(f"{opening}{closing}".encode()))
        text += f"{opening}{''.join(shown)}{closing}" if shown else ""
        left += len(blocks) - len(shown)
    return f"{text}\n{left} entries left out: the records have them\n" if left else text


def _fitting(blocks: Sequence[str], room: int) -> tuple[list[str], int]:
    """Return the blocks that fit into ``room`` bytes, in their order, and the bytes that are left."""
    shown = []
    for block in blocks:
        size = len(block.encode())
        if size <= room:
            shown.append(block)
            room -= size
    return shown, room


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
    message = ", ".join(f"{count} {words}" for words, count in counts.items() if count) or "nothing recorded"
    bad = bool(failed or slower)
    doubtful = bool(counts["known"] or counts["not judged"] or verdicts.problems(records))
    colour = "red" if bad else "lightgrey" if not counts["passed"] else "yellow" if doubtful else "brightgreen"
    return {"schemaVersion": 1, "label": "parity", "message": message, "color": colour, "isError": bad}


def _counts(found: Sequence[verdicts.Judged]) -> list[str]:
    """Return one line per kind of verdict, accuracy always."""
    kinds = [kind for kind in verdicts.KINDS if kind == "accuracy" or any(one.kind == kind for one in found)]
    rows = [(one.kind, {"verdict": one.verdict, "failure": one.failure}) for one in found]
    return [f"- {kind}: {verdict_counts(row for its, row in rows if its == kind)}" for kind in kinds]


def _left_out(records: Records) -> list[str]:
    """Return one line on what -k, --lf and --deselect left out, by the names of the tests; none without any."""
    names = [code(str(entry.get("test", ""))) for entry in records.left_out]
    return [f"- left out: {len(names)}: {few(names, SHOWN)}"] if names else []


def _note(results: Sequence[Json]) -> str:
    """Return what stands below the verdicts: what the floor is, and how likely so many runs miss a fault."""
    runs = [escape(line.strip()) for line in runs_lines(results)]
    return f"\nfloor: {WORDS.floor(r['precision'] for r in results)}\n" + (f"\n{' '.join(runs)}\n" if runs else "")


def _by_owner(failed: Sequence[Json], bisections: verdicts.Bisections) -> list[str]:
    """Return what failed, each owner's under their name; those of nobody come last, without a name where all are."""
    owners = sorted({result["owner"] for result in failed}, key=lambda owner: (not owner, owner))
    lines = []
    for owner in owners:
        own = [_failure(result, bisections) for result in failed if result["owner"] == owner]
        name = code(owner) if owner else "no owner"
        heading = f"\n**{name}**: {len(own)} failed\n\n" if any(owners) else ""
        lines += [heading + own[0], *own[1:]]
    return lines


def _expiring(records: Records) -> list[str]:
    """Return a sentence for each entry of a ledger that expires soon, each once."""
    found = (
        f"{one['file']}, entry {one['entry']} ({one['subject']}) expires on {one['expires']}: mend it, or give it a day"
        for one in records.known
        if one["expires_soon"]
    )
    return list(dict.fromkeys(found))


def _known(records: Records) -> list[list[str]]:
    """Return a row per entry of the ledgers, with the worst that became of it in any of the runs."""
    return [
        [
            code(one["subject"]), code(", ".join(one["target"])),
            code(", ".join(one["case"])) if one["case"] else "all",
            words_of_kind(one["kind"]), one["status"].replace("_", " "), escape(one["owner"]) or "-",
            escape(one["expires"]), escape(one["issue"]),
        ]
        for one in merged_standings(records.known)
    ]  # fmt: skip


def _failure(result: Json, bisections: verdicts.Bisections) -> str:
    label = f"{code(result['subject'])}/{code(result['case'])} [{code(target_name(result))}]"
    lines = [f"- {label}: {escape(verdicts.result_item(result, bisections).reason)}"]
    if commands := commands_of(result, verdicts.bisection_of(result, bisections)):
        lines += ["", *(f"  {line}" for line in fence(commands, "bash")), ""]
    return "".join(f"{line}\n" for line in lines)


_HEADINGS = ("subject", "case", "engine", "verdict", "relative error", "floor")
_KNOWN = ("subject", "engine", "case", "kind", "came out", "owner", "expires", "issue")
_TIMED = ("subject", "case", "engine", "verdict", "ms", "over eager FP32")
_VARIANTS = ("study", "variant", "verdict", "ms", "speed-up", "score")


def _table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], words: int, note: str = ""
) -> tuple[str, list[str], str]:
    """Return the opening, the rows and the closing, with a note, of a table that is folded up at first."""
    first, second, *lines = table(headings, rows, words=words)
    opening = f"\n<details><summary>{title}</summary>\n\n{first}\n{second}\n"
    return opening, [f"{line}\n" for line in lines], f"{note}\n</details>\n"


def _rows(results: Sequence[Json]) -> list[list[str]]:
    rows = []
    for result in results:
        names = map(code, (result["subject"], result["case"], target_name(result)))
        floors = [o["floor"]["relative_l2"] for o in result["outputs"] if o["floor"] and o["floor"].get("relative_l2")]
        figures = [worst_error(result["outputs"]), number(max(floors, default=None))]
        failure = failure_word(result["failure"])
        rows.append([*names, f"{verdict_cell(WORDS, result['verdict'])}{f' ({failure})' if failure else ''}", *figures])
    return rows


def _timed(records: Records) -> list[list[str]]:
    rows = []
    for entry in records.bench:
        session, comparison = entry.data["session"], entry.data["comparison"]
        time, factor = session_latency(session), entry.data["speed_up"].get(BASELINE)
        names = [session["subject"], case_label(session), session_target(session)]
        label = [*map(code, names), latency_word(comparison["verdict"])]
        rows.append([*label, ms(time[0] if time else None), number(factor)])
    return rows


def _variants(records: Records) -> list[list[str]]:
    return [
        [
            code(entry.data["name"]), code(variant["name"]),
            verdict_cell(WORDS, "reference" if is_reference(entry.data, variant) else variant["verdict"]),
            ms(variant["latency_ms"]), number(variant["speed_up"]), number(variant["score"]),
        ]
        for entry in records.studies
        for variant in entry.data["variants"]
    ]  # fmt: skip
