"""Accuracy in a hackathon report: where weights and inputs are from, every output's errors, metrics, scores, layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.hackathon.context import BOUNDS, Context, folded, informative, origin, paragraphs
from harness.records import Json
from harness.report import code, error_ratio, escape, floor_ratio, nonfinite_names, part_verdict, table, target_name
from harness.report.text import ms, number, part_figures, shown_mark, worst_error

MODULES = 5
"""Modules of a layer report that are shown; the JSON has all."""
OUTPUTS = 8
"""Outputs of an engine that are shown at once; the others are folded."""
LARGE, NEAR_ZERO = 0.1, 0.01
"""A largest relative error from LARGE on is explained where |e| is below NEAR_ZERO of its root mean square there."""
_VERDICTS = ("fail", "known", "not_judged", "pass")
_STATISTICS = ("max", "mean", "median")


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
        if names := _named(context, (subject for subject, source in found if source.get(key) == value)):
            lines.append(words(note, subjects=names))
    unknown = [subject for subject, source in found if not (source.get("weights") and source.get("inputs"))]
    if names := _named(context, unknown):
        lines.append(words("readme_unknown_labels", subjects=names))
    if found and all((s.get("weights") in ("trained", "file") and s.get("inputs") == "real") for _, s in found):
        lines.append(words("readme_real_labels"))
    if cut := [doc for doc in records.documents if not doc.complete]:
        names = context.listed(
            code(doc.name) + (words("bracketed", inner=escape(doc.error)) if doc.error else "") for doc in cut
        )
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


def _named(context: Context, subjects: Iterable[str]) -> str:
    return context.listed(map(code, subjects))


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
    """Return the table of one engine, the worst outputs first where there are many, and what is to be said of them."""
    words = context.words
    known = [r["provenance"] for r in results if r["provenance"]]
    reference = escape(context.listed(p["reference"] for p in known)) or words("not_recorded")
    title = words(
        "readme_accuracy", subject=code(results[0]["subject"]), target=code(target_name(results[0])),
        reference=reference, **origin(words, known),
    )  # fmt: skip
    of_all = f"{words('max')} / {words('mean')} / {words('median')}"
    headings = context.heads("case", "output", "verdict")
    headings += [words(kind) + words("bracketed", inner=of_all) for kind in ("absolute", "relative")]
    headings += [*context.heads("overall", "floor", "ratio", "cosine"), "NaN/Inf"]
    outputs = [(r, output) for r in results for output in r["outputs"]]
    counted = [(r, output) for r, output in outputs if "absolute" in output or output.get("decisions")]
    if len(counted) > OUTPUTS:
        counted.sort(key=lambda one: (_VERDICTS.index(one[1]["verdict"]), -(floor_ratio(one[1]) or 0.0)))
    cells = dict.fromkeys(tuple(_accuracy_row(context, r, output)) for r, output in counted)  # recorded twice: one row
    headings, rows = informative(headings, list(cells))
    names = [(code(f"{r['case']}/{o['name']}"), o) for r, o in outputs]
    more = table(headings, rows[OUTPUTS:], words=3) if rows[OUTPUTS:] else []
    return [
        *paragraphs([title], table(headings, rows[:OUTPUTS], words=3) if rows else []),
        *folded(words("readme_more_outputs", count=len(rows[OUTPUTS:])), more),
        *paragraphs([f"- {line}" for line in _remarks(context, results, names)]),
    ]


def _remarks(context: Context, results: Sequence[Json], outputs: Sequence[tuple[str, Json]]) -> list[str]:
    """Return why outputs did not pass, which figures say little, and what was noted."""
    words = context.words
    reasons = [context.line(name, escape(o["reason"])) for name, o in outputs if o["verdict"] != "pass"]
    undefined = [
        words("readme_undefined", name=name, count=f"{o['relative']['undefined']:.0f}")
        for name, o in outputs
        if o.get("relative", {}).get("undefined")
    ]
    near_zero = [
        words("readme_near_zero", name=name, relative=number(o["relative"]["max"]), most=number(most),
              rms=number(o["rms_expected"]), overall=number(o["relative_l2"]))
        for name, o in outputs
        if (most := _most_expected(o)) is not None
    ]  # fmt: skip
    if len(near_zero) > 1:
        near_zero = [near_zero[0], words("readme_near_zero_more", count=len(near_zero) - 1)]
    notes = [escape(note) for note in dict.fromkeys(note for r in results for note in r["notes"])]
    return [*reasons, *undefined, *near_zero, *notes]


def _most_expected(output: Json) -> float | None:
    """Return what |e| is at most at the largest relative error, where that error says nothing of the whole; else None.

    No element is farther from e than the largest absolute error, so |e| is at most that over the largest relative one.
    """
    relative, absolute = (output.get(kind, {}).get("max") for kind in ("relative", "absolute"))
    if not relative or absolute is None or relative < LARGE:
        return None
    most: float = absolute / relative
    return most if most < NEAR_ZERO * (output["rms_expected"] or 0.0) else None


def _accuracy_row(context: Context, result: Json, output: Json) -> list[str]:
    """Return the cells of an output that was compared."""
    cells = [code(result["case"]), code(output["name"]), context.verdict(part_verdict(result, output))]
    if counts := context.words.decisions([output]):
        return [*cells, "-", "-", counts, context.words.floor_decisions(output) or "-", "-", "-", "-"]
    errors = [" / ".join(number(output[kind].get(key)) for key in _STATISTICS) for kind in ("absolute", "relative")]
    floor = output["floor"].get("relative_l2") if output["floor"] else None
    cosine = "-" if output["cosine"] is None else f"{output['cosine']:.7f}"
    bad = output["mismatched_nonfinite"]
    figures = [worst_error([output]), number(floor), number(None if bad else floor_ratio(output)), cosine]
    return [
        *cells,
        *("-" if set(cell) <= set("- /") else cell for cell in errors),
        *figures,
        f"**{bad}**" if bad else "-",
    ]


def _not_judged(context: Context, results: Sequence[Json]) -> list[str]:
    """Return a line per target and reason; cases of one reason stand together."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for r in results:
        groups.setdefault((r["subject"], r["reason"], r["verdict"]), []).append(f"{r['case']} [{target_name(r)}]")
    lines = [
        "- "
        + context.line(f"{code(subject)} {context.listed(map(code, names))}", context.verdict(verdict), escape(reason))
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
            number(metric["expected"]), f"{BOUNDS[metric['bound']]} {number(metric['allowed'])}",
        ]
        for e in context.records.results
        for metric in e.data["metrics"]
    ]  # fmt: skip
    if not rows:
        return []
    headings = context.heads("model", "case", "engine", "metric", "verdict", "remark", "actual", "expected", "allowed")
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
        "- " + context.line(f"{code(entry.data['folder'])} {code(picture['name'])}", escape(picture["reason"]))
        for entry in context.records.scores
        for picture in entry.data["pictures"]
        if picture["reason"]
    ]
    remarks = [*(f"- {rule}" for rule in rules), *pictures]
    return paragraphs([words("readme_scores")], table(headings, rows, words=3), remarks)


def layers(context: Context) -> list[str]:
    """Return the worst modules of every layer report, folded, and the chart of the error along depth."""
    words = context.words
    lines = []
    for entry in context.records.layers:
        report = entry.data
        names = (report["subject"], report["case"], target_name(report))
        title = words(
            "readme_layers", subject=code(names[0]), case=code(names[1]), target=code(names[2]),
            origin=words("readme_origin_device", **origin(words, [report])), floor=words.floor([report["precision"]]),
        )  # fmt: skip
        bad = nonfinite_names(report)
        rows = [
            [
                code(m["module"] or "-"), code(m["op"]), words(f"mark_{shown_mark(m, bad)}"), number(m["local"]),
                number(m["local_floor"]), number(error_ratio(m)), number(m["propagated"]),
                "-" if m["share"] is None else f"{m['share']:.1%}",
            ]
            for m in report["modules"][:MODULES]
        ]  # fmt: skip
        headings = context.heads("module", "op", "mark", "made_here", "floor", "ratio", "propagated", "share")
        more = len(report["modules"]) - len(rows)
        count = [words("readme_more_modules", count=more)] if more > 0 else []
        if not report["trusted"]:
            lines += [words("readme_not_trusted"), ""]
        lines += folded(title, paragraphs(table(headings, rows, words=3), count))
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
        lines += folded(title, table(headings, rows, words=3))
    return lines
