"""A layer report as plain text: what was observed, whether it can be trusted, and the worst modules and values.

Everything here takes the dict of ``LayerReport.to_json()``, in which a figure that is not finite is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from harness.records import MARKS
from harness.report import facts
from harness.report.facts import Json
from harness.report.text.tables import WORDS, ascii_safe, columns, explained, number, plural, wrapped

_TERMS = {
    "local": "local", "accum.": "accumulated", "floor": "floor", "ratio": "ratio", "effect": "effect", "share": "share",
    "bias": "bias",
}  # fmt: skip
_SEEN = ("compared", "inner", "unmapped", "not_compared")
_REASONS = 5
"""Groups of reasons that are printed for a status; the JSON has the reason of each value."""


def layers_table(report: Json, *, rows: int = 20) -> str:
    """Return a layer report as text; at most ``rows`` modules and as many values, the worst ones.

    Names of what could not be mapped are all printed.
    """
    blocks = [_heading(report) + _counts(report), _observer(report)]
    if facts.compared(report):
        blocks += [
            _nonfinite(report),
            _nonfinite_in_both(report),
            _flips(report),
            _modules(report, rows),
            _values(report, rows),
            _legend(report),
        ]
    else:
        blocks.append([f"NOT JUDGED: {WORDS('nothing_compared')}"])
        blocks.append(_nonfinite(report))
    blocks.insert(2, [line for note in report["notes"] for line in wrapped("note: ", note)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _legend(report: Json) -> list[str]:
    """Return what the columns and the marks mean."""
    precisions = [report["precision"]]
    columns = explained(_TERMS, precisions)
    marks = {WORDS(f"mark_{mark}"): f"mark_{mark}" for mark in MARKS if mark != "not_judged"}
    return [
        *wrapped("", f"{columns}. A floor is that of the figure left of it; errors are relative L2; - is no figure."),
        *wrapped("", f"{explained(marks, precisions)}."),
    ]


def layers_title(report: Json) -> str:
    """Return what was observed: ``clip short | rtx fp16``."""
    return ascii_safe(f"{report['subject']} {report['case']} | {report['backend']} {report['precision']}")


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


def _heading(report: Json) -> list[str]:
    parts = [
        layers_title(report),
        f"layers: {report['mode']}",
        weights_words(report),
        f"inputs: {report['inputs'] or 'not recorded'}",
    ]
    return wrapped("", " | ".join([*parts, f"device: {report['device'] or 'not recorded'}"]))


def _counts(report: Json) -> list[str]:
    """Return how many values have which status, why, and the full names of what could not be mapped."""
    counts = Counter(value["status"] for value in report["values"])
    seen = [f"{counts[status]} {WORDS(f'status_{status}')}" for status in _SEEN if counts[status]]
    total = len(report["values"]) - counts["not_delivered"]
    first = f"{plural(total, 'tensor')}: {', '.join(seen) or 'none delivered'}"
    lines = wrapped("", f"{first}; {plural(counts['not_delivered'], 'value')} {WORDS('status_not_delivered')}")
    for status in ("not_compared", "not_delivered", "inner"):
        lines += _reasons(WORDS(f"status_{status}"), [v for v in report["values"] if v["status"] == status])
    mapped = Counter(value["mapped_by"] for value in report["values"] if value["mapped_by"])
    if mapped:
        lines += wrapped("  mapped by: ", ", ".join(f"{how} {count}" for how, count in mapped.most_common()))
    unmapped = [v for v in report["values"] if v["status"] == "unmapped"]
    if unmapped:
        lines += [f"  UNMAPPED, {len(unmapped)} of {plural(total, 'tensor')}: which value they are is not known"]
        lines += [
            line for v in unmapped for line in wrapped("    ", f"{v['name']}: {v['reason'] or 'no reason given'}")
        ]
    return lines


def _reasons(label: str, values: Sequence[Json]) -> list[str]:
    """Return the reasons of values, equal ones together."""
    groups = Counter(value["reason"] or "no reason given" for value in values).most_common()
    parts = [f"{count} {reason}" for reason, count in groups[:_REASONS]]
    if rest := sum(count for _, count in groups[_REASONS:]):
        parts.append(f"{rest} for other reasons, which the JSON has")
    return wrapped(f"  {label}: ", "; ".join(parts)) if parts else []


def _observer(report: Json) -> list[str]:
    """Return what observing did to the outputs."""
    if not report["observer"]:
        return [f"observer effect: not measured, so {WORDS('observer_unknown')}"]
    lines = []
    for effect in report["observer"]:
        wrong = "is not finite" if effect["error"] is None else f"is {number(effect['error'])}"
        words = f"{_change(effect)}; the engine's error {wrong}"
        lines += wrapped("observer effect: ", words)
    if not report["trusted"]:
        lines.append(WORDS("not_trusted"))
    return lines


def _change(effect: Json) -> str:
    name = effect["name"]
    if effect["identical"]:
        return f"observing changed nothing in {name} (bit for bit)"
    if effect["difference"] is None:
        return f"{name} is finite only with, or only without, taps"
    return f"observing changed {name} by {number(effect['difference'])}"


def _nonfinite(report: Json) -> list[str]:
    """Return where the first value is that is not finite, and how large the finite ones before it were."""
    values = [value for value in report["values"] if facts.is_nonfinite_value(value)]
    seen = [value for value in values if value["status"] == "compared"]
    unseen = any(effect["error"] is None for effect in report["observer"])
    if not values:
        return ["an output is not finite, but no value that was seen is: what was seen is not all"] if unseen else []
    lines = []
    first = next((value for value in seen if value["name"] == report["first_nonfinite"]), None)
    if first is not None:
        lines += wrapped("first non-finite value: ", _overflow(first, report))
    elif seen:
        lines += wrapped("non-finite, but not known to be the first: ", f"{seen[0]['name']}, {seen[0]['reason']}")
    lines += [f"non-finite values: {len(seen)} of {len(facts.compared(report))} compared"] if seen else []
    for value in values:
        if value["status"] != "compared":
            lines += wrapped("non-finite, and not compared: ", f"{value['name']}, {value['reason']}")
    return lines


def _nonfinite_in_both(report: Json) -> list[str]:
    """Return the values that hold a NaN or an infinity where the reference does too: they are seen, and no fault."""
    values = [
        value
        for value in facts.compared(report)
        if (value["stats"] or {}).get("nonfinite_actual") and not facts.is_nonfinite_value(value)
    ]
    named = ", ".join(f"{v['name']} ({v['stats']['nonfinite_actual']} of {v['stats']['elements']})" for v in values[:4])
    more = f" and {len(values) - 4} more values" if len(values) > 4 else ""
    return wrapped("non-finite where the reference is too: ", f"{named}{more}") if values else []


def _overflow(value: Json, report: Json) -> str:
    stats = value["stats"] or {}
    bad, nan = stats.get("nonfinite_actual", 0), stats.get("nan_actual", 0)
    counts = f"{bad} of {stats.get('elements', 0)} elements are not finite, the first at {stats.get('first_nonfinite')}"
    words = f"{_place(value)}, depth {value['depth']}: {value['reason'] or counts}; {nan} NaN, {bad - nan} infinite"
    words += f"; largest finite magnitude in it {number(value['largest'], '.6g')}"
    before = [v for v in facts.compared(report) if v["depth"] < value["depth"] and v["largest"] is not None]
    if before:
        peak = max(before, key=lambda v: v["largest"])
        words += f", in the values before it {number(peak['largest'], '.6g')} ({peak['name']})"
    return words


def _flips(report: Json) -> list[str]:
    """Return a sentence for every discrete value that differs: decided here, or following from what differs before."""
    labels = {"flip": "flipped decision: ", "passed_on": "decision that follows: "}
    differing = [v for v in facts.compared(report) if v["mark"] in labels and v["stats"] is None and v["reason"]]
    return [
        line for value in differing for line in wrapped(labels[value["mark"]], f"{_place(value)}: {value['reason']}")
    ]


def _place(value: Json) -> str:
    where = f", in {value['module']}" if value["module"] else ""
    return f"{value['name']} ({facts.short_op(value['op'])}{where})"


def _modules(report: Json, rows: int) -> list[str]:
    if not report["modules"]:
        return ["modules: not judged, no compared value belongs to one"]
    bad = facts.nonfinite_names(report)
    modules = sorted(report["modules"], key=lambda m: (m["worst"] not in bad, MARKS.index(m["mark"])))
    lines = []
    for module in modules[:rows]:
        mark = shown_mark(module, bad)
        infinite = mark == "nonfinite" and module["propagated"] is None
        accumulated = "non-finite" if infinite else number(module["propagated"])
        figures = [number(facts.error_ratio(module)), number(module["local"]), number(module["local_floor"])]
        figures += [accumulated, number(module["floor"]), number(module["share"])]
        names = [module["module"] or "(root)", module["worst"], facts.short_op(module["op"])]
        lines.append(([WORDS(f"mark_{mark}"), *figures], names))
    headings = ("modules", "ratio", "local", "floor", "accum.", "floor", "share", "module, its worst value")
    return [*columns(headings, lines), *_rest("modules", modules, rows, bad)]


def _values(report: Json, rows: int) -> list[str]:
    values, bad = facts.compared(report), facts.nonfinite_names(report)
    ranked = facts.worst_first(values)
    lines = []
    for value in ranked[:rows]:
        figures = [str(value["depth"]), number(value["local"]), number(value["local_floor"]), _accumulated(value)]
        figures += [number(value["floor"]), number(value["effect"]), number(value["local_bias"], ".3f")]
        names = [value["name"], facts.short_op(value["op"]), value["module"], _short(value["kernel"])]
        lines.append(([WORDS(f"mark_{shown_mark(value, bad)}"), *figures], names))
    headings = (
        "values",
        "depth",
        "local",
        "floor",
        "accum.",
        "floor",
        "effect",
        "bias",
        "value, op, module, kernel",
    )
    return [*columns(headings, lines), *_missing(values), *_rest("values", ranked, rows, bad)]


def _missing(values: Sequence[Json]) -> list[str]:
    """Return how many of the compared values lack a figure, so that an empty column is not read as a good one."""
    names = {"local": "local error", "local_floor": "local floor", "floor": "floor", "effect": "effect"}
    lacking = {words: sum(value[key] is None for value in values) for key, words in names.items()}
    parts = [f"{words} {count}" for words, count in lacking.items() if count]
    return wrapped("", f"no figure, of {len(values)} compared: {', '.join(parts)}") if parts else []


def _rest(kind: str, findings: Sequence[Json], rows: int, bad: Collection[str]) -> list[str]:
    if len(findings) <= rows:
        return []
    marks = Counter(shown_mark(finding, bad) for finding in findings[rows:])
    words = ", ".join(f"{marks[mark]} {WORDS(f'mark_{mark}')}" for mark in MARKS if marks[mark])
    return [f"{len(findings) - rows} more {kind}, which the JSON has: {words}"]


def _accumulated(value: Json) -> str:
    if facts.is_nonfinite_value(value):
        return "NaN" if (value["stats"] or {}).get("nan_actual") else "inf"
    return number(facts.value_error(value))


def _short(kernel: str) -> str:
    """Return the ends of a kernel's name: the middle is a list of what is fused in it."""
    return kernel if len(kernel) <= 28 else f"{kernel[:13]}..{kernel[-13:]}"
