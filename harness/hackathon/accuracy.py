"""Accuracy in a hackathon report: where weights and inputs are from, every output's errors, metrics, scores, layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.hackathon.context import Context, distinct, origin, paragraphs
from harness.records import Json
from harness.report import code, escape, nonfinite_names, part_verdict, table, target_name
from harness.report.text import ms, number, part_figures, shown_mark, worst_error

MODULES = 8
"""Modules of a layer report that are shown; the JSON has all."""
_STATISTICS = ("max", "mean", "median")
_BOUNDS = {"difference": "±", "at_most": "≤", "at_least": "≥"}


def labels(context: Context) -> list[str]:
    """Return the notes a reader needs before any figure: random weights or inputs, runs on the CPU, cut-off runs."""
    words, records = context.words, context.records
    found = _sources(context)
    lines = []
    for note, key, value in (
        ("readme_random_weights", "weights", "random"),
        ("readme_random_inputs", "inputs", "random"),
        ("readme_on_cpu", "device", "CPU"),
    ):
        if names := _named(subject for subject, source in found if source.get(key) == value):
            lines.append(words(note, subjects=names))
    if names := _named(subject for subject, source in found if not (source.get("weights") and source.get("inputs"))):
        lines.append(words("readme_unknown_labels", subjects=names))
    if found and all((s.get("weights") in ("trained", "file") and s.get("inputs") == "real") for _, s in found):
        lines.append(words("readme_real_labels"))
    if cut := [doc for doc in records.documents if not doc.complete]:
        names = ", ".join(f"{code(doc.name)}{f' ({escape(doc.error)})' if doc.error else ''}" for doc in cut)
        lines.append(words("readme_incomplete", names=names))
    lines += [f"{words('readme_twice')}{escape(sentence)}" for sentence in records.twice]
    broken = [line for why in records.broken for line in context.missing("broken", why=escape(why))]
    return [*paragraphs([f"- {line}" for line in lines]), *broken]


def _sources(context: Context) -> list[tuple[str, Json]]:
    """Return everything that gave figures, each with its subject; it has ``weights``, ``inputs`` and ``device``."""
    records = context.records
    rows = [(e.data["subject"], e.data["provenance"] or {}) for e in records.results if e.data["outputs"]]
    rows += [(e.data["session"]["subject"], e.data["session"]) for e in records.bench]
    rows += [(e.data["subject"], e.data) for e in records.parts]
    return rows + [(e.data["name"], e.data) for e in records.studies]


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
    elif not any("absolute" in output or output.get("decisions") for r in shown for output in r["outputs"]):
        lines += context.missing("figures")
    else:
        floor = context.words.floor(result["precision"] for result in shown)
        lines += [context.words("readme_accuracy_note", floor=floor), ""]
    return lines + _not_judged(context, [r for r in results if not r["outputs"]])


def _accuracy_table(context: Context, results: Sequence[Json]) -> list[str]:
    words = context.words
    known = [r["provenance"] for r in results if r["provenance"]]
    reference = escape(distinct(p["reference"] for p in known)) or words("not_recorded")
    title = words(
        "readme_accuracy", subject=code(results[0]["subject"]), target=code(target_name(results[0])),
        reference=reference, **origin(words, known),
    )  # fmt: skip
    figures = [f"{words(kind)} {words(key)}" for kind in ("absolute", "relative") for key in ("max", "mean", "median")]
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
    return paragraphs([title], table([*headings, *figures, *last, "NaN/Inf"], rows, words=3), remarks)


def _accuracy_row(context: Context, result: Json, output: Json) -> list[str]:
    """Return one output's cells; figures of one that could not be compared are dashes and its reason stands below."""
    cells = [code(result["case"]), code(output["name"]), context.verdict(part_verdict(result, output))]
    if counts := context.words.decisions([output]):
        return [*cells, *["-"] * 6, counts, context.words.floor_decisions(output) or "-", "-", "0"]
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
    return paragraphs([context.words("readme_unjudged")], lines) if lines else []


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
    headings = context.heads("model", "case", "engine", "metric", "verdict", "remark", "engine", "expected", "allowed")
    return paragraphs([words("readme_metrics")], table(headings, rows, words=6))


def cost(context: Context) -> list[str]:
    """Return what quantisation costs, a table per unquantised model: every output and task metric with its limit."""
    words = context.words
    found = [(e.data, e.data["cost"]) for e in context.records.results if e.data["cost"]]
    headings = context.heads("model", "case", "engine", "output", "verdict", "reason")
    lines = []
    for against in dict.fromkeys(cost["against"] for _, cost in found):
        rows = [
            [
                *map(code, (result["subject"], result["case"], target_name(result), part["name"])),
                context.verdict(part_verdict(result, part)), escape(part["reason"]),
            ]
            for result, cost in found
            if cost["against"] == against
            for part in (*cost["outputs"], *cost["metrics"], *([] if cost["outputs"] else [{**cost, "name": "-"}]))
        ]  # fmt: skip
        lines += paragraphs([words("readme_cost", against=code(against))], table(headings, rows, words=6))
    return lines


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
    headings = context.heads("folder", "verdict", "remark", "latency_ms", "pd_mean", "pd_max", "score", "pictures")
    rules = [escape(rule) for rule in dict.fromkeys(entry.data["score_rule"] for entry in context.records.scores)]
    pictures = [
        f"- {code(entry.data['folder'])} {code(picture['name'])}: {escape(picture['reason'])}"
        for entry in context.records.scores
        for picture in entry.data["pictures"]
        if picture["reason"]
    ]
    remarks = [*(f"- {rule}" for rule in rules), *pictures]
    return paragraphs([words("readme_scores")], table(headings, rows, words=3), remarks)


def layers(context: Context) -> list[str]:
    """Return the worst modules of every layer report, with the chart of the error along depth."""
    words = context.words
    lines = []
    for entry in context.records.layers:
        report = entry.data
        names = (report["subject"], report["case"], target_name(report))
        title = words(
            "readme_layers", subject=code(names[0]), case=code(names[1]), target=code(names[2]),
            origin=words("readme_origin_device", **origin(words, [report])), floor=words.floor([report["precision"]]),
        )  # fmt: skip
        lines += [title, ""]
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
        headings = context.heads("module", "op", "mark", "made_here", "floor", "propagated", "share")
        lines += paragraphs(table(headings, rows, words=3))
        lines += context.images("layers", entry.document.name, *names)
    return lines + _parts(context)


def _parts(context: Context) -> list[str]:
    """Return the parts of every model that was brought up module by module, in the order in which they run."""
    words, lines = context.words, list[str]()
    for found in (entry.data for entry in context.records.parts):
        title = words(
            "readme_parts", subject=code(found["subject"]), case=code(found["case"]), target=code(target_name(found)),
            origin=words("readme_origin_device", **origin(words, [found])), floor=words.floor([found["precision"]]),
        )  # fmt: skip
        rows = [
            [code(p["module"]), code(p["kind"]), context.verdict(p["verdict"]), *part_figures(p)]
            for p in found["parts"]
        ]
        headings = context.heads("part", "class_of_part", "verdict", "rel_err", "floor", "ratio")
        lines += paragraphs([title], table(headings, rows, words=3))
    return lines
