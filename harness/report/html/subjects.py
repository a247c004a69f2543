"""One subject as a section of the page: its outputs and metrics, where they come from, and what else is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.report import verdicts
from harness.report.facts import Json, bisection_verdict, cost_metrics, cost_outputs, judged_parts, target_name
from harness.report.html.bisection import bisect_group
from harness.report.html.diagnosis import diagnosis_groups, explained
from harness.report.html.latency import latency_group, module_times
from harness.report.html.layers import layer_group, time_group
from harness.report.html.model_parts import parts_group
from harness.report.html.parts import (
    TONES,
    Cell,
    Code,
    Details,
    Facts,
    Group,
    Line,
    Lines,
    Part,
    Row,
    Section,
    Table,
    Tone,
    columns,
    distinct,
    grouped,
    number,
    verdict,
    warnings,
    word,
    worst,
)
from harness.report.html.trends import trend_group
from harness.report.text import failure_word, source_words
from harness.report.text import number as figure
from harness.report.words import Words

OUTPUT_COLUMNS = (
    "output", "rel_err", "floor", "ratio", "allowed", "abs_max", "abs_mean", "abs_median", "rel_max", "rel_mean",
    "rel_median", "cosine", "snr_db", "bits", "bias", "nonfinite", "shape", "reason",
)  # fmt: skip
MOST_COLUMNS = 8
"""The other figures are shown when all are asked for."""
LIMITS = {"at_most": "≤ ", "at_least": "≥ "}


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that was recorded of one subject."""

    subject: str
    results: list[Json] = field(default_factory=list)
    bisections: list[Json] = field(default_factory=list)
    parts: list[Json] = field(default_factory=list)
    """Models that were brought up part by part."""
    bench: list[Json] = field(default_factory=list)
    """Oldest first."""
    missing: list[Json] = field(default_factory=list)
    """What could not be timed."""
    trends: list[Json] = field(default_factory=list)
    """Outputs over time."""


def subject_section(known: Known, id: str, t: Words) -> Section:
    """Return the section of one subject: what is wrong, the outputs, which decide, and what explains them."""
    groups = diagnosis_groups(known.results, known.bisections, f"{id}-diagnosis", t)
    groups += [_outputs(known, f"{id}-outputs", t)] if known.results else []
    groups += [parts_group(found, f"{id}-parts-{n}", t) for n, found in enumerate(known.parts, start=1)]
    groups += [trend_group(known.trends, f"{id}-trends", t)] if known.trends else []
    groups += _layers(known, id, t)
    groups += [bisect_group(found, f"{id}-bisect-{n}", t) for n, found in enumerate(known.bisections, start=1)]
    if known.bench or known.missing:
        groups.append(latency_group(known.bench, known.missing, f"{id}-latency", t))
    found = [result["verdict"] for result in known.results]
    found += [one["verdict"] for one in known.parts]
    found += [bisection_verdict(one) for one in known.bisections]
    found += [verdicts.latency_verdict(measured) for measured in verdicts.newest(known.bench)]
    found += [verdicts.missing_verdict(item) for item in known.missing]
    return Section(
        id=id,
        heading=known.subject,
        groups=tuple(groups),
        verdict=worst(found),
        facts=_sources(known.results, t),
        labels=tuple(distinct(label for group in groups for label in group.labels)),
    )


def _layers(known: Known, id: str, t: Words) -> list[Group]:
    """Return the layer reports, and time by module beside error by module where kernels were profiled."""
    groups = []
    profiled = _profiled(known.bench)
    same_size = {key: item for key, item in profiled.items() if not item["session"]["sizes"]}
    reports = [result["layers"] for result in known.results if result["layers"]]
    for number_, report in enumerate(reports, start=1):
        times = module_times(same_size[_key(report)]["kernels"]) if _key(report) in same_size else {}
        groups.append(layer_group(report, times, f"{id}-layers-{number_}", t))
    by_key = {_key(report): report for report in reports}
    for number_, (key, item) in enumerate(profiled.items(), start=1):
        report = by_key.get(key) if key in same_size else None
        groups.append(time_group(item["session"], module_times(item["kernels"]), report, f"{id}-time-{number_}", t))
    return groups


def _profiled(bench: Sequence[Json]) -> dict[tuple[str, ...], Json]:
    """Return the newest profile of every engine: of the case as it is, else of another size; ``bench`` oldest first."""
    found: dict[tuple[str, ...], Json] = {}
    for item in bench:
        key = _key(item["session"])
        as_it_is = key in found and not found[key]["session"]["sizes"]
        if module_times(item["kernels"]) and not (as_it_is and item["session"]["sizes"]):
            found[key] = item
    return found


def _key(data: Json) -> tuple[str, ...]:
    """Return what a layer report and a profile share when they are of one engine on one device."""
    return data["case"], data["device"], data["backend"], data["precision"]


def _sources(results: Sequence[Json], t: Words) -> tuple[tuple[str, str], ...]:
    """Return where the figures come from, once for all results of a subject."""
    known = [result["provenance"] for result in results if result["provenance"]]
    owners = distinct(result["owner"] for result in results if result["owner"])
    owned = ((t("owner"), ", ".join(owners)),) if owners else ()
    if not known:
        return owned
    weights = distinct(source_words(t.source(p["weights"]), p["weights_source"]) for p in known)
    rows = [(t("weights"), weights)]
    rows += [(t(key), distinct(t.source(p[key]) for p in known)) for key in ("inputs", "reference", "device")]
    return (*((label, ", ".join(values) or "-") for label, values in rows), *owned)


def _outputs(known: Known, id: str, t: Words) -> Group:
    results = known.results
    labels = tuple(distinct(label for r in results for label in warnings(r["provenance"] or {}, t)))
    parts: list[Part] = [_output_table(results, f"{id}-table", labels, t)]
    if any(result["metrics"] or cost_metrics(result) for result in results):
        parts.append(_metric_table(results, f"{id}-metrics", labels, t))
    parts += _remarks(known, t)
    parts.append(Details(summary=t("provenance"), parts=tuple(_provenance(result, t) for result in results), long=True))
    return Group(id=id, heading=t("outputs"), parts=tuple(parts), labels=labels)


def _output_table(results: Sequence[Json], id: str, labels: tuple[str, ...], t: Words) -> Table:
    """Return the outputs, failures first; a column of labels only where they are not those of the whole table."""
    mixed = len({_conditions(result, t) for result in results}) > 1
    first = ("verdict", "target", "case", *(("conditions",) if mixed else ()))
    keys = (*first, *OUTPUT_COLUMNS)
    shape = columns(t, *keys, extra=keys[MOST_COLUMNS:])
    rows = []
    for result in results:
        where = [word(target_name(result)), word(result["case"])]
        where += [word(_conditions(result, t), "warn")] if mixed else []
        for output in (*result["outputs"], *cost_outputs(result)):
            cells = (verdict(output["verdict"], t), *where, *_figures(output, t))
            rows.append(Row(cells=cells, mark=output["verdict"]))
        if not result["outputs"]:
            rest = [word("")] * (len(OUTPUT_COLUMNS) - 1)
            cells = (verdict(result["verdict"], t), *where, *rest, word(_with_class(result, t)))
            rows.append(Row(cells=cells, mark=result["verdict"]))
    caption = t("outputs_caption", count=len(rows), floor=t.floor(result["precision"] for result in results))
    rows.sort(key=lambda row: row.cells[0].order or 0)
    return Table(id=id, caption=caption, columns=shape, rows=tuple(rows), filters=len(rows) > 8, labels=labels)


def _with_class(result: Json, t: Words) -> str:
    """Return why a result has no outputs, with the class of its failure."""
    return ": ".join(filter(None, (failure_word(result["failure"], t), result["reason"])))


def _conditions(result: Json, t: Words) -> str:
    """Return what the figures of one result must not be read without."""
    return ", ".join(warnings(result["provenance"] or {}, t))


def _figures(output: Json, t: Words) -> list[Cell]:
    """Return the cells of OUTPUT_COLUMNS."""
    error, floor = output.get("relative_l2"), (output["floor"] or {}).get("relative_l2")
    absolute, relative = output.get("absolute") or {}, output.get("relative") or {}
    counts = output.get("decisions")
    typed = counts or output
    return [
        word(output["name"]),
        word(t.decisions([output])) if counts else relative_error(output),
        word(t.floor_decisions(output)) if counts else number(floor),
        number(error / floor if error is not None and floor else None),
        word(", ".join(f"{name} {figure(limit)}" for name, limit in output["allowed"].items())),
        *(number(absolute.get(key)) for key in ("max", "mean", "median")),
        *(number(relative.get(key)) for key in ("max", "mean", "median")),
        number(output.get("cosine"), ".7g"),
        number(output.get("snr_db")),
        number(output.get("effective_bits")),
        number(output.get("bias")),
        number(output.get("nonfinite_actual"), "d", tone="bad" if output.get("mismatched_nonfinite") else ""),
        word(f"{typed['dtype']} {typed['shape']}" if "shape" in typed else ""),
        word(output["reason"]),
    ]


def relative_error(output: Json) -> Cell:
    """Return the figure that is judged; NaN or inf where the engine's output holds what the reference does not.

    It is infinite, too, where the reference is zero everywhere and the engine's output is not.
    """
    if output.get("mismatched_nonfinite"):
        return Cell(text="NaN" if output["nan_actual"] else "inf", tone="bad")
    return number(output.get("relative_l2"), absent="inf" if "relative_l2" in output else "-")


def _metric_table(results: Sequence[Json], id: str, labels: tuple[str, ...], t: Words) -> Table:
    rows = []
    for result in results:
        for metric in (*result["metrics"], *cost_metrics(result)):
            bound = metric.get("bound", "difference")
            limit = LIMITS.get(bound, t("difference") + " ≤ ") + figure(metric["allowed"])
            cells = (
                verdict(metric["verdict"], t), word(target_name(result)), word(result["case"]), word(metric["name"]),
                number(metric["actual"], ".6g"), number(metric["expected"], ".6g"), word(limit),
                word("; ".join(filter(None, (metric["reason"], metric.get("note", ""))))),
            )  # fmt: skip
            rows.append(Row(cells=cells))
    keys = ("verdict", "target", "case", "metric", "engine", "reference", "allowed", "reason")
    shape = columns(t, *keys, metric="code")
    rows.sort(key=lambda row: row.cells[0].order or 0)
    return Table(id=id, caption=t("metrics_caption"), columns=shape, rows=tuple(rows), labels=labels)


def _remarks(known: Known, t: Words) -> list[Part]:
    """Return what did not pass and why, the notes, and what to type next, but for what the diagnosis says already."""
    lines, commands, results = [], [], known.results
    above = {id(result) for result, _ in explained(results, known.bisections)}
    notes: list[tuple[str, Tone, str]] = []
    for result in results:
        label = f"{target_name(result)} {result['case']}"
        bad = [item for item in judged_parts(result) if item["verdict"] != "pass"]
        sentences = [(item["verdict"], f"{item['name']}: {item['reason']}") for item in bad]
        if result["verdict"] == "known" or (not sentences and result["verdict"] != "pass"):
            sentences = [(result["verdict"], result["reason"])]
        sentences = [] if id(result) in above else sentences
        for found, sentence in sentences:
            lines.append(Line(text=sentence, tone=TONES[found], lead=f"{label}, {t('verdict_' + found)}:"))
        notes += [(note, "muted", label) for note in result["notes"]]
        commands += [result["next_step"]] if result["next_step"] and id(result) not in above else []
    lines += grouped(notes, t("many_results"))
    parts: list[Part] = [Lines(items=tuple(lines))] if lines else []
    return [*parts, *([Code(label=t("next"), text="\n".join(distinct(commands)))] if commands else [])]


def _provenance(result: Json, t: Words) -> Details:
    """Return the engine, the hashes and the times of one result."""
    rows = []
    if engine := result["engine"]:
        built = t("engine_cached" if engine["cached"] else "engine_built", seconds=figure(engine["build_s"]))
        size = f"{engine['bytes'] / 2**20:.1f} MiB, {engine['layers'] if engine['layers'] is not None else '-'}"
        rows += [(t("engine"), engine["path"]), ("sha256", engine["sha256"]), (t("engine_size"), size)]
        rows += [(t("build"), built), *((t("note"), note) for note in engine["notes"])]
    if source := result["provenance"]:
        rows += [
            (t(key), t.source(str(source[key])) or "-") for key in ("weights", "weights_source", "inputs", "reference")
        ]
        rows += [(t(key), source[key] or "-") for key in ("weights_sha256", "inputs_sha256", "program_sha256")]
        kept = ", ".join(source["plan"].get("keep_fp32") or ()) or t("nothing")
        rows += [(t("device"), source["device"]), (t("commit"), source["commit"] or "-"), (t("kept_fp32"), kept)]
    repeatable = {True: "yes", False: "no", None: "not_run"}[result["repeatable"]]
    runs = f" ({result['runs']})" if result["runs"] else ""
    rows.append((t("repeatable"), f"{t('repeatable_' + repeatable)}{runs}"))
    rows.append((t("timings"), ", ".join(f"{k} {figure(v)} s" for k, v in result["timings_s"].items()) or "-"))
    return Details(summary=f"{target_name(result)}, {result['case']}", parts=(Facts(rows=tuple(rows)),), long=True)
