"""Accuracy in a hackathon report: key numbers, every output's errors, where weights and inputs are from, layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.hackathon.context import Context, distinct, origin, speed_up
from harness.hackathon.figures import bench_groups
from harness.records import Json
from harness.report import (
    BASELINE,
    case_label,
    code,
    escape,
    is_invalid,
    nonfinite_names,
    session_latency,
    session_target,
    table,
    target_name,
)
from harness.report.text import ms, number, shown_mark, worst_error

MODULES = 8
"""Modules of a layer report that are shown; the JSON has all."""
_STATISTICS = ("max", "mean", "median")
_BOUNDS = {"difference": "±", "at_most": "≤", "at_least": "≥"}


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
        labels = [code(key[0]), code(key[1]), _origin(context, sources), _verdicts(context, judged)]
        rows.append([*labels, *_worst(judged), *_speed(measured, judged)])
    if not rows:
        return []
    headings = context.heads("subject", "engine", "origin", "verdict", "error", "cosine", "latency")
    named = [*headings, words("head_over", name="PyTorch FP32")]
    return [words("readme_numbers"), "", *table(named, rows, words=4), ""]


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
    for entry in (entry for entries in bench_groups(context.records.bench).values() for entry in entries):
        session = entry.data["session"]
        if session["runner"] == "engine" and session_latency(session) is not None and not is_invalid(session):
            found.setdefault((session["subject"], session_target(session), session["device"]), []).append(entry.data)
    return found


def _speed(measured: Sequence[Json], judged: Sequence[Json]) -> list[str]:
    """Return latency and speed-up of the case as it is, else of the first size timed; of which, unless it is clear."""
    if not measured:
        return ["-", "-"]
    shown = min(measured, key=lambda item: len(item["session"]["sizes"]))
    session, time = shown["session"], session_latency(shown["session"])
    cases = {item["session"]["case"] for item in measured} | {result["case"] for result in judged}
    of = f" ({escape(case_label(session))})" if session["sizes"] or len(cases) > 1 else ""
    return [f"{ms(time and time[0])}{of}", speed_up(shown, BASELINE)]


def _origin(context: Context, sources: Sequence[Json]) -> str:
    """Return where weights and inputs are from and what ran them: ``random, real, NVIDIA H200``."""
    return ", ".join(origin(context.words, sources).values())


def _verdicts(context: Context, results: Sequence[Json]) -> str:
    """Return ``pass 3, FAIL 1``; a dash where nothing was verified."""
    found = [r["verdict"] for r in results]
    counts = [f"{context.verdict(key)} {found.count(key)}" for key in ("fail", "not_judged", "pass") if key in found]
    return ", ".join(counts) or "-"


def _worst(results: Sequence[Json]) -> list[str]:
    """Return the largest relative error and the smallest cosine over all outputs; no cosine beside NaN or infinity."""
    outputs = [output for r in results for output in r["outputs"]]
    worst = worst_error(outputs)
    cosines = [output["cosine"] for output in outputs if output.get("cosine") is not None]
    return [worst, f"{min(cosines):.7f}" if cosines and worst not in ("NaN/Inf", "inf") else "-"]


def labels(context: Context) -> list[str]:
    """Return the notes a reader needs before any figure: random weights or inputs, runs on the CPU, cut-off runs."""
    words, records = context.words, context.records
    found = _sources(context)
    lines = []
    for key, position, value in (
        ("readme_random_weights", 0, "random"),
        ("readme_random_inputs", 1, "random"),
        ("readme_on_cpu", 2, "CPU"),
    ):
        if names := _named(subject for subject, sources in found if sources[position] == value):
            lines.append(words(key, subjects=names))
    if names := _named(subject for subject, sources in found if not all(sources[:2])):
        lines.append(words("readme_unknown_labels", subjects=names))
    if found and all(sources[0] in ("trained", "file") and sources[1] == "real" for _, sources in found):
        lines.append(words("readme_real_labels"))
    if cut := [doc for doc in records.documents if not doc.complete]:
        names = ", ".join(f"{code(doc.name)}{f' ({escape(doc.error)})' if doc.error else ''}" for doc in cut)
        lines.append(words("readme_incomplete", names=names))
    lines += [f"{words('readme_twice')}{escape(sentence)}" for sentence in records.twice]
    broken = [line for why in records.broken for line in context.missing("broken", why=escape(why))]
    return [*(f"- {line}" for line in lines), *([""] if lines else []), *broken]


def _sources(context: Context) -> list[tuple[str, tuple[str, str, str]]]:
    """Return weights, inputs and device of everything that gave figures, by subject."""
    records = context.records
    rows = [(e.data["subject"], e.data["provenance"] or {}) for e in records.results if e.data["outputs"]]
    rows += [(e.data["session"]["subject"], e.data["session"]) for e in records.bench]
    rows += [(e.data["name"], e.data) for e in records.studies]
    keys = ("weights", "inputs", "device")
    return [(subject, (data.get(keys[0], ""), data.get(keys[1], ""), data.get(keys[2], ""))) for subject, data in rows]


def _named(subjects: Iterable[str]) -> str:
    return distinct(code(subject) for subject in subjects)


def accuracy(context: Context) -> list[str]:
    """Return one table per subject and engine with absolute and relative errors, and what was not judged."""
    results = [entry.data for entry in context.records.results]
    shown = [r for r in results if r["outputs"]]
    lines = []
    for key in dict.fromkeys((r["subject"], target_name(r)) for r in shown):
        lines += _accuracy_table(context, [r for r in shown if (r["subject"], target_name(r)) == key])
    if not shown:
        lines += context.missing("results")
    elif not any("absolute" in output for r in shown for output in r["outputs"]):
        lines += context.missing("figures")
    else:
        lines += [context.words("readme_accuracy_note"), ""]
    return lines + _not_judged(context, [r for r in results if not r["outputs"]])


def _accuracy_table(context: Context, results: Sequence[Json]) -> list[str]:
    words = context.words
    known = [r["provenance"] for r in results if r["provenance"]]
    reference = escape(distinct(p["reference"] for p in known)) or words("not_recorded")
    title = words(
        "readme_accuracy", subject=code(results[0]["subject"]), target=code(target_name(results[0])),
        reference=reference, **origin(words, known),
    )  # fmt: skip
    figures = [
        f"{words(kind)} {words(key)}"
        for kind in ("head_absolute", "head_relative")
        for key in ("head_max", "head_mean", "head_median")
    ]
    headings = context.heads("case", "output", "verdict")
    last = context.heads("overall", "floor", "cosine")
    rows = [_accuracy_row(context, r, output) for r in results for output in r["outputs"]]
    outputs = [(code(f"{r['case']}/{o['name']}"), o) for r in results for o in r["outputs"]]
    undefined = [
        words("readme_undefined", name=name, count=f"{o['relative']['undefined']:.0f}")
        for name, o in outputs
        if o.get("relative", {}).get("undefined")
    ]
    reasons = [f"{name}: {escape(o['reason'])}" for name, o in outputs if o["verdict"] != "pass"]
    notes = [escape(note) for note in dict.fromkeys(note for r in results for note in r["notes"])]
    remarks = [f"- {line}" for line in [*reasons, *undefined, *notes]]
    return [
        title, "", *table([*headings, *figures, *last, "NaN/Inf"], rows, words=3), "",
        *remarks, *([""] if remarks else []),
    ]  # fmt: skip


def _accuracy_row(context: Context, result: Json, output: Json) -> list[str]:
    """Return one output's cells; figures of one that could not be compared are dashes and its reason stands below."""
    cells = [code(result["case"]), code(output["name"]), context.verdict(output["verdict"])]
    if "absolute" not in output:
        return [*cells, *["-"] * 10]
    errors = [number(output[kind].get(key)) for kind in ("absolute", "relative") for key in _STATISTICS]
    floor = output["floor"].get("relative_l2") if output["floor"] else None
    cosine = "-" if output["cosine"] is None else f"{output['cosine']:.7f}"
    bad = output["mismatched_nonfinite"]
    return [*cells, *errors, worst_error([output]), number(floor), cosine, f"**{bad}**" if bad else "0"]


def _not_judged(context: Context, results: Sequence[Json]) -> list[str]:
    """Return a line per target and reason; cases of one reason stand together."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for r in results:
        groups.setdefault((r["subject"], r["reason"], r["verdict"]), []).append(f"{r['case']} [{target_name(r)}]")
    lines = [
        f"- {code(subject)} {', '.join(map(code, names))}: {context.verdict(verdict)}: {escape(reason)}"
        for (subject, reason, verdict), names in groups.items()
    ]
    return [context.words("readme_unjudged"), "", *lines, ""] if lines else []


def metrics(context: Context) -> list[str]:
    """Return the task metrics of all results, the engine beside the original model."""
    words = context.words
    rows = [
        [
            code(e.data["subject"]), code(e.data["case"]), code(target_name(e.data)), code(metric["name"]),
            context.verdict(metric["verdict"]), escape(metric["note"]) or "-", number(metric["actual"]),
            number(metric["expected"]), f"{_BOUNDS[metric['bound']]} {number(metric['allowed'])}",
        ]
        for e in context.records.results
        for metric in e.data["metrics"]
    ]  # fmt: skip
    if not rows:
        return []
    headings = context.heads(
        "subject", "case", "engine", "metric", "verdict", "reason", "engine", "expected", "allowed"
    )
    return [words("readme_metrics"), "", *table(headings, rows, words=6), ""]


def scores(context: Context) -> list[str]:
    """Return the entrants' folders that were judged: latency, perceptual distance, verdict, and why pictures failed."""
    words = context.words
    rows = [
        [
            code(s["folder"]), context.verdict(s["verdict"]), escape(s["reason"]), ms(s["latency_ms"]),
            number(s["pd_mean"]), number(s["pd_max"]), number(s["score"]), str(len(s["pictures"])),
        ]
        for s in (entry.data for entry in context.records.scores)
    ]  # fmt: skip
    if not rows:
        return []
    headings = context.heads("folder", "verdict", "reason", "latency")
    headings += [f"PD {words('head_mean')}", f"PD {words('head_max')}"]
    headings += [words("head_score"), words("head_pictures")]
    rules = [escape(rule) for rule in dict.fromkeys(entry.data["score_rule"] for entry in context.records.scores)]
    pictures = [
        f"- {code(entry.data['folder'])} {code(picture['name'])}: {escape(picture['reason'])}"
        for entry in context.records.scores
        for picture in entry.data["pictures"]
        if picture["reason"]
    ]
    remarks = [*(f"- {rule}" for rule in rules), *pictures]
    return [words("readme_scores"), "", *table(headings, rows, words=3), "", *remarks, ""]


def layers(context: Context) -> list[str]:
    """Return the worst modules of every look into an engine, with the chart of the error along depth."""
    words = context.words
    lines = []
    for entry in context.records.layers:
        report = entry.data
        names = (report["subject"], report["case"], target_name(report))
        lines += [words("readme_layers", subject=code(names[0]), case=code(names[1]), target=code(names[2]),
                            origin=words("readme_origin_device", **origin(words, [report]))), ""]  # fmt: skip
        if not report["trusted"]:
            lines += [words("readme_not_trusted"), ""]
        bad = nonfinite_names(report)
        rows = [
            [
                code(m["module"] or "-"), code(m["op"]), words(f"mark_{shown_mark(m, bad)}"), number(m["local"]),
                number(m["local_floor"]), number(m["propagated"]), "-" if m["share"] is None else f"{m['share']:.1%}",
            ]
            for m in report["modules"][:MODULES]
        ]  # fmt: skip
        headings = context.heads("module", "op", "mark", "local", "floor", "propagated", "share")
        lines += [*table(headings, rows, words=3), ""]
        lines += context.images("layers", entry.document.name, *names)
    return lines
