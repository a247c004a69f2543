"""Speed in a hackathon report: latency and speed-up by size, charts, and the slowest kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from harness.hackathon.context import Context, origin, paragraphs
from harness.hackathon.figures import Key, bench_groups
from harness.records import Json
from harness.report import (
    BASELINE,
    case_label,
    code,
    escape,
    figures,
    is_invalid,
    session_latency,
    session_target,
    table,
    throughput,
)
from harness.report.text import ms, number, speed_up

KERNELS = 8
"""Kernels of an engine that are shown; the JSON has all."""


def performance(context: Context) -> list[str]:
    """Return a table and charts per subject, case and device, and what could not be timed."""
    groups = bench_groups(context.records)
    lines = []
    for key, measured in groups.items():
        lines += _group(context, key, measured)
    every = [item for found in groups.values() for item in found]
    engines = [item["session"] for item in every if item["session"]["runner"] == "engine"]
    if not any(session_latency(session) for session in engines if not is_invalid(session)):
        lines += context.missing("bench" if not groups else "valid_bench")
    elif not any(BASELINE in item["speed_up"] for item in every):
        lines += context.missing("baseline")
    if groups:
        lines += [context.words("readme_performance_note"), ""]
    if groups and not any(context.figures.get(("bench", *key)) for key in groups):
        lines += [context.words("readme_no_sizes"), ""]
    return lines + _not_measured(context)


def _group(context: Context, key: Key, measured: list[Json]) -> list[str]:
    words = context.words
    sources = origin(words, (item["session"] for item in measured))
    how = [words(f"metric_{key[4]}"), f"L2 {key[5]}", words("readme_origin", **sources)]
    title = words(
        "readme_performance",
        subject=code(key[0]),
        case=code(key[1]),
        device=escape(key[2]),
        how=words("readme_comma").join(how),
    )
    baselines = list(dict.fromkeys(name for item in measured for name in item["speed_up"]))
    headings = context.heads("size", "engine", "latency_ms")
    headings += ["p99", *(words("speed_up_against", name=escape(name)) for name in baselines), words("throughput")]
    measured.sort(key=lambda item: sorted(item["session"]["sizes"].items()))
    rows = [_row(item, baselines) for item in measured]
    remarks = [f"- {line}" for item in measured for line in _remarks(context, item)]
    times = _times(context, measured)
    largest = {session_target(item["session"]): item for item in measured if item["kernels"]}
    kernels = [line for item in largest.values() for line in _kernels(context, item)]
    blocks = paragraphs([title], table(headings, rows, words=2), [*remarks, *times])
    return [*blocks, *context.images("bench", *key), *kernels]


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


def _times(context: Context, measured: Sequence[Json]) -> list[str]:
    """Return what was recorded more than once on one machine."""
    every = Counter(_identity(entry.data) for entry in context.records.bench)
    return [
        f"- {context.words('readme_times', benchmark=code(key[0]), count=every[key])}"
        for key in dict.fromkeys(map(_identity, measured))
        if every[key] > 1
    ]


def _identity(measured: Json) -> tuple[str, str]:
    return measured["session"]["benchmark"], measured["session"]["machine"]["key"]


def _kernels(context: Context, item: Json) -> list[str]:
    words, session = context.words, item["session"]
    names = {"subject": code(session["subject"]), "case": code(case_label(session))}
    rows = [
        [code(k["name"]), code(k["module"] or "-"), ms(k["ms"]), f"{k['share']:.1%}"] for k in item["kernels"][:KERNELS]
    ]
    headings = context.heads("kernel", "module", "time_ms", "time_share")
    title = words("readme_kernels", **names, target=code(session_target(session)))
    return paragraphs([title], table(headings, rows, words=2))


def _not_measured(context: Context) -> list[str]:
    lines = [
        f"- {code(e.data['subject'])} {code(case_label(e.data))} [{code(session_target(e.data))}]: "
        f"{escape(e.data['reason'])}"
        for e in context.records.not_measured
    ]
    return paragraphs([context.words("readme_unjudged")], lines) if lines else []
