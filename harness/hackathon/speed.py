"""Speed in a hackathon report: latency and speed-up by size, slowest kernels, and the variants that were tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from harness.hackathon.context import Context, origin, speed_up
from harness.hackathon.figures import Key, bench_groups
from harness.records import Entry, Json
from harness.report import (
    BASELINE,
    case_label,
    code,
    escape,
    figures,
    is_invalid,
    is_reference,
    session_latency,
    session_target,
    table,
    target_name,
    throughput,
)
from harness.report.text import ms, number

HELPED = 1.01
"""Latency of the first variant over this one's, from which a variant helped: 1 % is what a mean of a few can tell."""
KERNELS = 8
_MOST_METRICS = 6


def performance(context: Context) -> list[str]:
    """Return a table and charts per subject, case and device, and what could not be timed."""
    groups = bench_groups(context.records.bench)
    lines = []
    for key, entries in groups.items():
        lines += _group(context, key, entries, groups)
    timed = [item for item in (e.data["session"] for found in groups.values() for e in found) if not is_invalid(item)]
    if not any(session_latency(session) for session in timed if session["runner"] == "engine"):
        lines += context.missing("bench" if not groups else "valid_bench")
    elif not any(BASELINE in entry.data["speed_up"] for entries in groups.values() for entry in entries):
        lines += context.missing("baseline")
    if groups:
        lines += [context.words("readme_performance_note"), ""]
    if groups and not any(context.figures.get(("bench", *key)) for key in groups):
        lines += [context.words("readme_no_sizes"), ""]
    return lines + _not_measured(context)


def _group(context: Context, key: Key, entries: Sequence[Entry], groups: dict[Key, list[Entry]]) -> list[str]:
    words, measured = context.words, [entry.data for entry in entries]
    sources = origin(words, (item["session"] for item in measured))
    how = [words(f"clock_{key[4]}"), f"L2 {key[5]}", words("readme_origin", **sources)]
    title = words(
        "readme_performance",
        subject=code(key[0]),
        case=code(key[1]),
        device=escape(key[2]),
        how=words("readme_comma").join(how),
    )
    baselines = list(dict.fromkeys(name for item in measured for name in item["speed_up"]))
    headings = context.heads("size", "engine", "latency")
    headings += ["p99", *(words("head_over", name=escape(name)) for name in baselines), words("head_throughput")]
    measured.sort(key=lambda item: sorted(item["session"]["sizes"].items()))
    rows = [_row(item, baselines) for item in measured]
    remarks = [f"- {line}" for item in measured for line in _remarks(context, item)]
    times = _times(context, entries)
    largest = {session_target(item["session"]): item for item in measured if item["kernels"]}
    kernels = [line for item in largest.values() for line in _kernels(context, item)]
    return [
        title, "", *table(headings, rows, words=2), "", *remarks, *times, *([""] if remarks or times else []),
        *context.images("bench", *key), *kernels,
    ]  # fmt: skip


def _row(item: Json, baselines: Sequence[str]) -> list[str]:
    session = item["session"]
    sizes = ", ".join(f"{name}={size}" for name, size in session["sizes"].items())
    cells = [escape(sizes) or "-", code(session_target(session)) + (" (graph)" if session["graph"] else "")]
    time = session_latency(session)
    if time is None or is_invalid(session):
        return [*cells, *["-"] * (3 + len(baselines))]
    p99 = figures(session, session["metric"], "p99")
    speed_ups = [speed_up(item, name) for name in baselines]
    return [
        *cells, ms(time[0]), ms(median(p99)) if p99 else "-", *speed_ups, number(throughput(session))
    ]  # fmt: skip


def _remarks(context: Context, item: Json) -> list[str]:
    """Return what makes this row's figures doubtful: an invalid environment, flags, a failed capture, notes."""
    session = item["session"]
    label = " ".join([code(session_target(session)), *(escape(f"{k}={v}") for k, v in session["sizes"].items())])
    invalid = [context.words("readme_invalid", why=escape(why)) for run in session["runs"] for why in run["invalid"]]
    others = [flag for run in session["runs"] for flag in run["flags"]]
    others += [run["graph_failure"] for run in session["runs"] if run["graph_failure"]]
    found = dict.fromkeys([*invalid, *map(escape, [*others, *session["notes"]])])
    return [f"{label}: {'; '.join(found)}"] if found else []


def _times(context: Context, entries: Sequence[Entry]) -> list[str]:
    """Return what was recorded more than once on one machine."""
    every = Counter(_identity(entry) for entry in context.records.bench)
    return [
        f"- {context.words('readme_times', benchmark=code(key[0]), count=every[key])}"
        for key in dict.fromkeys(map(_identity, entries))
        if every[key] > 1
    ]


def _identity(entry: Entry) -> tuple[str, str]:
    return entry.data["session"]["benchmark"], entry.data["session"]["machine"]["key"]


def _kernels(context: Context, item: Json) -> list[str]:
    words, session = context.words, item["session"]
    names = {"subject": code(session["subject"]), "case": code(case_label(session))}
    rows = [
        [code(k["name"]), code(k["module"] or "-"), ms(k["ms"]), f"{k['share']:.1%}"] for k in item["kernels"][:KERNELS]
    ]
    headings = [words("head_kernel"), words("head_module"), "ms", words("head_share")]
    return [
        words("readme_kernels", **names, target=code(session_target(session))),
        "",
        *table(headings, rows, words=2),
        "",
    ]


def _not_measured(context: Context) -> list[str]:
    lines = [
        f"- {code(e.data['subject'])} {code(case_label(e.data))} [{code(session_target(e.data))}]: "
        f"{escape(e.data['reason'])}"
        for e in context.records.not_measured
    ]
    return [context.words("readme_unjudged"), "", *lines, ""] if lines else []


def variants(context: Context) -> list[str]:
    """Return what was tried: every study with what each variant gained, and the precision plans of every bisection."""
    lines = []
    for entry in context.records.studies:
        lines += [*_study(context, entry.data), *context.images("study", entry.document.name)]
    for entry in context.records.bisections:
        lines += _plans(context, entry.data)
    return lines


def _study(context: Context, study: Json) -> list[str]:
    words = context.words
    sources = origin(words, [study])
    labels = words("readme_origin", weights=sources["weights"], inputs=sources["inputs"])
    title = words("readme_variants", name=code(study["name"]), device=escape(study["device"]), origin=labels)
    metrics = {m["name"]: m for v in study["variants"] for m in v["metrics"]}
    names = list(metrics)[:_MOST_METRICS]
    headings = context.heads("variant", "settings", "verdict", "latency", "gain", "speed_up")
    headings += [*(escape(_metric(metrics[name])) for name in names), words("head_score")]
    rows = [_variant(context, study, variant, names) for variant in study["variants"]]
    notes = [f"- {escape(note)}" for note in study["notes"]]
    return [
        title, "", *table(headings, rows, words=3), "",
        words("readme_variants_note", rule=escape(study["score_rule"])), "", *notes, *([""] if notes else []),
        *_no_help(context, study["variants"]),
    ]  # fmt: skip


def _metric(metric: Json) -> str:
    """Return a metric's name with its limit: ``pd max (at most 12)``."""
    if metric["bound"] == "difference" or metric["allowed"] is None:
        return str(metric["name"])
    return f"{metric['name']} ({metric['bound'].replace('_', ' ')} {number(metric['allowed'])})"


def _variant(context: Context, study: Json, variant: Json, names: Sequence[str]) -> list[str]:
    settings, first = variant["settings"], study["variants"][0]
    before = first["settings"]
    changed = {k: v for k, v in settings.items() if k not in before or before[k] != v}
    differences = ", ".join(escape(f"{key}: {value}") for key, value in changed.items())
    by_name = {metric["name"]: metric["actual"] for metric in variant["metrics"]}
    factor = _gain(variant, first)
    return [
        code(variant["name"]), context.words("readme_first") if variant is first else differences or "-",
        context.verdict("reference" if is_reference(study, variant) else variant["verdict"]),
        ms(variant["latency_ms"]), number(factor),
        number(variant["speed_up"]), *(number(by_name.get(name)) for name in names), number(variant["score"]),
    ]  # fmt: skip


def _gain(variant: Json, first: Json) -> float | None:
    if not variant["latency_ms"] or not first["latency_ms"]:
        return None
    ratio: float = first["latency_ms"] / variant["latency_ms"]
    return ratio


def _no_help(context: Context, found: Sequence[Json]) -> list[str]:
    """Return why each variant behind the first is no improvement; a sentence where all are."""
    words = context.words
    lines = []
    for variant in found[1:]:
        gain = _gain(variant, found[0])
        if variant["verdict"] == "fail":
            why = words("readme_no_help_fail", reason=escape(variant["reason"]))
        elif variant["verdict"] == "not_judged" or gain is None:
            why = words("readme_no_help_unjudged", reason=escape(variant["reason"]) or words("not_recorded"))
        elif gain < HELPED:
            why = words("readme_no_help_slow", gain=number(gain))
        else:
            continue
        lines.append(f"- {code(variant['name'])}: {why}")
    if not lines:
        return [words("readme_all_helped"), ""] if len(found) > 1 else []
    return [words("readme_no_help"), "", *lines, ""]


def _plans(context: Context, bisection: Json) -> list[str]:
    """Return the precision plans that a bisection tried, and the price of the one that passed."""
    words = context.words
    results = {True: "pass", False: "fail", None: "not_judged"}
    rows = [
        [
            ", ".join(map(code, trial["keep_fp32"])) or words("none"), escape(trial["where"]),
            context.verdict(results[trial["passed"]]), escape(trial["reason"]), number(trial["error"]),
        ]
        for trial in bisection["trials"]
    ]  # fmt: skip
    if not rows:
        return []
    headings = context.heads("kept_fp32", "where", "result", "reason", "relative")
    title = words("readme_plans", subject=code(bisection["subject"]), target=code(target_name(bisection)))
    lines = [title, "", *table(headings, rows, words=4), ""]
    if price := bisection["price"]:
        times = {key: number(price[f"{key}_ms"]) for key in ("plan", "low", "fp32")}
        lines += [words("readme_price", device=escape(price["device"]), **times), ""]
    return lines
