"""A look into an engine as plain text: the diagnosis, the values that are to blame, and what was seen.

Everything here takes the dict of ``Result.to_json()`` or its ``layers``, in which a figure that is not finite is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from harness.records import MADE_HERE, MARKS
from harness.report import facts
from harness.report.facts import Json
from harness.report.text.diagnosis import diagnosis_lines, diagnosis_text, percent, short
from harness.report.text.tables import WORDS, columns, explained, number, plural, wrapped

_TERMS = {"local": "local", "floor": "floor", "accum.": "accumulated", "explains": "share"}
_SEEN = ("compared", "inner", "unmapped", "not_compared")
ROWS = 12
"""Values to blame that are shown, the worst ones."""
BEFORE = 3
"""Values before the first of them that are shown; as many of the worst where none is to blame."""


def layers_text(result: Json) -> str:
    """Return a look at an engine's values: the first lines, the values to blame, and what was not seen.

    Names of what could not be mapped are all printed.
    """
    report = result["layers"]
    wrong, seen = result["verdict"] != "pass", facts.compared(report)
    notes = [line for note in report["notes"] if note not in result["notes"] for line in wrapped("note: ", note)]
    blocks = [
        diagnosis_text(diagnosis_lines(result)),
        values_table(report) if seen else [f"NOT JUDGED: {WORDS('nothing_compared')}"],
        [*_counts(report), *_nonfinite(report), *(notes if wrong else [])],
        _legend(report) if seen and wrong else [],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def values_table(report: Json) -> list[str]:
    """Return the values to blame behind the three before them in dataflow order, or the three worst, as a table."""
    shown, bad = _shown(report), facts.nonfinite_names(report)
    explains = _explains(report)
    told = {culprit["value"] for culprit in (report["diagnosis"] or {}).get("culprits", ()) if culprit["reason"]}
    rows = []
    for value in shown:
        mark, share = shown_mark(value, bad), explains.get(value["name"])
        mark = "suspect" if value["name"] in explains and mark not in MADE_HERE else mark
        figures = [short(value["local"], 3), short(value["local_floor"], 3), _accumulated(value)]
        figures += [number(None) if share is None else f"{percent(share)} %"] if explains else []
        names = [value["name"], facts.short_op(value["op"]), value["module"], value["source"]]
        names += [value["reason"]] if mark in ("nonfinite", "flip") and value["name"] not in told else []
        rows.append(([WORDS(f"mark_{mark}"), *figures], names))
    headings = ["values", *[head for head in _TERMS if explains or head != "explains"], "value, op, module, source"]
    names_shown = {value["name"] for value in shown}
    marks = Counter(shown_mark(v, bad) for v in facts.compared(report) if v["name"] not in names_shown)
    rest = ", ".join(f"{marks[mark]} {WORDS(f'mark_{mark}')}" for mark in MARKS if marks[mark])
    return [*columns(headings, rows), *([f"{rest}: JSON, page"] if rest else [])]


def weights_words(report: Json) -> str:
    """Return where the weights come from; random ones stand out."""
    words = {"random": f"weights: {facts.RANDOM}", "": "weights: not recorded"}
    return words.get(report["weights"], f"weights: {report['weights']}")


def shown_mark(finding: Json, bad: Collection[str]) -> str:
    """Return the mark of a value or a module, but NON-FINITE for an ok one that is in ``bad``.

    ``bad`` are names as ``nonfinite_names`` gives them; a module is in it where its worst value is.
    """
    name = finding["worst"] if "worst" in finding else finding["name"]
    return "nonfinite" if finding["mark"] == "ok" and name in bad else str(finding["mark"])


def _shown(report: Json) -> list[Json]:
    """Return the values that the table has, in dataflow order."""
    values, bad, culprits = facts.compared(report), facts.nonfinite_names(report), _explains(report)
    ranked = facts.worst_first(values)
    made = [v for v in ranked if shown_mark(v, bad) in MADE_HERE or v["name"] in culprits]
    made.sort(key=lambda value: value["name"] not in culprits)
    if not made:
        return ranked[:BEFORE]
    first = min(value["depth"] for value in made)
    before = [value for value in values if value["depth"] < first][-BEFORE:]
    return before + sorted(made[:ROWS], key=lambda value: value["depth"])


def _explains(report: Json) -> dict[str, float | None]:
    """Return what each culprit explains of the outputs' error, by value."""
    diagnosis: Json = report["diagnosis"] or {}
    return {culprit["value"]: culprit["explains"] for culprit in diagnosis.get("culprits", ())}


def _counts(report: Json) -> list[str]:
    """Return how much was seen, of what and where, and the full names of what could not be mapped."""
    counts = Counter(value["status"] for value in report["values"])
    seen = [f"{counts[status]} {WORDS(f'status_{status}')}" for status in _SEEN if counts[status]]
    fused = counts["not_delivered"]
    total = len(report["values"]) - fused
    bare = sum(value["local"] is None and value["stats"] is not None for value in facts.compared(report))
    seen += [f"{bare} without a local error"] if bare else []
    parts = [
        f"{plural(total, 'tensor')}: {', '.join(seen) or 'none delivered'}",
        *(
            [f"{plural(hidden, 'value')} {WORDS('status_not_delivered')}"]
            if (hidden := counts["not_delivered"])
            else []
        ),
        report["mode"],
        weights_words(report),
        f"inputs: {report['inputs'] or 'not recorded'}",
        report["device"] or "device: not recorded",
    ]
    lines = wrapped("", "; ".join(parts))
    unmapped = [value["name"] for value in report["values"] if value["status"] == "unmapped"]
    return lines + (wrapped(f"UNMAPPED, {len(unmapped)}: ", ", ".join(unmapped)) if unmapped else [])


def _nonfinite(report: Json) -> list[str]:
    """Return what is not finite and no fault, because the reference is so too, or was not compared."""
    both, unseen = [], []
    for value in report["values"]:
        stats = value["stats"] or {}
        if facts.is_nonfinite_value(value):
            unseen += [] if value["status"] == "compared" else [f"{value['name']}, {value['reason']}"]
        elif stats.get("nonfinite_actual"):
            both.append(f"{value['name']} ({stats['nonfinite_actual']} of {stats['elements']})")
    lines = [line for words in unseen for line in wrapped("not finite, and not compared: ", words)]
    return lines + (wrapped("not finite, as the reference: ", ", ".join(both)) if both else [])


def _legend(report: Json) -> list[str]:
    """Return what the columns and the marks of the table mean."""
    marks = {shown_mark(value, facts.nonfinite_names(report)) for value in _shown(report)} - {"ok", "not_judged"}
    terms = {head: term for head, term in _TERMS.items() if head != "explains" or _explains(report)}
    terms |= {WORDS(f"mark_{mark}"): f"mark_{mark}" for mark in MARKS if mark in marks}
    return wrapped("", f"{explained(terms, [report['precision']])}.")


def _accumulated(value: Json) -> str:
    if facts.is_nonfinite_value(value):
        return "NaN" if (value["stats"] or {}).get("nan_actual") else "inf"
    return short(facts.value_error(value), 3)
