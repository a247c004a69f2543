"""Speed in a hackathon report: latency and speed-up by size, charts, and the slowest kernels."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from harness.hackathon.context import Context, folded, informative, origin, paragraphs
from harness.hackathon.figures import Key, bench_groups, identity
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

KERNELS = 5
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
    if groups and not any(len({_sizes(item) for item in measured}) > 1 for measured in groups.values()):
        lines += [context.words("readme_no_sizes"), ""]
    return lines + _not_measured(context)


def _group(context: Context, key: Key, measured: list[Json]) -> list[str]:
    words = context.words
    sources = origin(words, (item["session"] for item in measured))
    how = [words(f"metric_{key[4]}"), words(f"readme_l2_{key[5]}"), words("readme_origin", **sources)]
    title = words(
        "readme_performance",
        subject=code(key[0]),
        case=code(key[1]),
        device=escape(key[2]),
        how=words("readme_comma").join(how),
    )
    measured.sort(key=lambda item: sorted(item["session"]["sizes"].items()))
    remarks = [f"- {line}" for item in measured for line in _remarks(context, item)]
    times = _times(context, measured)
    largest = {session_target(item["session"]): item for item in measured if item["kernels"]}
    kernels = [line for item in largest.values() for line in _kernels(context, item)]
    blocks = paragraphs([title], _latencies(context, measured), [*remarks, *times])
    return [*blocks, *context.images("bench", *key), *kernels]


def _latencies(context: Context, measured: Sequence[Json]) -> list[str]:
    """Return a row per engine and size: its latency, PyTorch's, and what it gains over PyTorch and ONNX Runtime.

    PyTorch has a row of its own only where no engine of that size stands against it.
    """
    words = context.words
    baselines = list(dict.fromkeys(name for item in measured for name in item["speed_up"]))
    against = {(name, _sizes(item)) for item in measured for name in item["speed_up"]}
    shown = [item for item in measured if (session_target(item["session"]), _sizes(item)) not in against]
    by_name = {(session_target(item["session"]), _sizes(item)): item for item in measured}
    runtime = _onnx_runtime(measured)
    headings = [*context.heads("size", "engine", "latency_ms"), "p99 ms"]
    headings += [words("name_ms", name=context.contestant(BASELINE))]
    headings += [words("speed_up_against", name=context.contestant(name)) for name in baselines]
    headings += [words("speed_up_against", name=code(runtime)), *context.heads("throughput", "throughput_gain")]
    rows = []
    for item in shown:
        sizes = _sizes(item)
        pytorch = by_name.get((BASELINE, sizes)) if BASELINE in item["speed_up"] else None
        other = by_name.get((runtime, sizes)) if runtime else None
        rows.append(_row(context, item, baselines, pytorch, other))
    lines = table(*informative(headings, rows), words=2)
    return [*lines, "", words("readme_ort_note")] if runtime and any(row[-3] != "-" for row in rows) else lines


def _sizes(item: Json) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(item["session"]["sizes"].items()))


def _onnx_runtime(measured: Sequence[Json]) -> str:
    """Return the engine of ONNX Runtime that others can be held against: that in FP32, or the only one; "" for none."""
    engines = {
        session_target(one["session"]): one["session"] for one in measured if one["session"]["runner"] == "engine"
    }
    found = [name for name, session in engines.items() if session["backend"].startswith("ort-")]
    found = [name for name in found if name.endswith("-fp32")] or found
    return found[0] if len(found) == 1 else ""


def _row(
    context: Context, item: Json, baselines: Sequence[str], pytorch: Json | None, runtime: Json | None
) -> list[str]:
    session = item["session"]
    sizes = context.listed(escape(f"{name}={size}") for name, size in session["sizes"].items())
    graph = context.words("bracketed", inner=context.words("with_graph")) if session["graph"] else ""
    cells = [sizes or "-", context.contestant(session_target(session)) + graph]
    time = _latency(item)
    if time is None:
        return [*cells, *["-"] * (6 + len(baselines))]
    p99 = figures(session, session["metric"], "p99")
    loads = [throughput(one["session"]) if one else None for one in (item, pytorch)]
    gain = loads[0] / loads[1] if loads[0] and loads[1] else None
    other = _latency(runtime) if runtime and runtime is not item and session["runner"] == "engine" else None
    return [
        *cells, ms(time), ms(median(p99)) if p99 else "-", ms(_latency(pytorch)),
        *(speed_up(item, name) for name in baselines), number(other / time if other else None),
        "-" if loads[0] is None else f"{loads[0]:.0f}" if loads[0] >= 100 else number(loads[0]), number(gain),
    ]  # fmt: skip


def _latency(item: Json | None) -> float | None:
    """Return the latency of a measurement that counts."""
    time = session_latency(item["session"]) if item and not is_invalid(item["session"]) else None
    return time[0] if time else None


def _remarks(context: Context, item: Json) -> list[str]:
    """Return what makes this row's figures doubtful: an invalid environment, flags, a failed capture, notes."""
    session = item["session"]
    label = " ".join([code(session_target(session)), *(escape(f"{k}={v}") for k, v in session["sizes"].items())])
    invalid = [context.words("readme_invalid", why=escape(why)) for run in session["runs"] for why in run["invalid"]]
    others = [flag for run in session["runs"] for flag in run["flags"]]
    others += [run["graph_failure"] for run in session["runs"] if run["graph_failure"]]
    found = dict.fromkeys([*invalid, *map(escape, [*others, *session["notes"]])])
    return [context.line(label, context.words("diag_join").join(found))] if found else []


def _times(context: Context, measured: Sequence[Json]) -> list[str]:
    """Return what was recorded more than once on one machine, and which of it is shown."""
    every: dict[tuple[str, str], list[Json]] = {}
    for entry in context.records.bench:
        every.setdefault(identity(entry.data), []).append(entry.data)
    lines = []
    for item in {identity(one): one for one in measured}.values():
        known = every[identity(item)]
        values = {"benchmark": code(identity(item)[0]), "count": len(known)}
        if known[-1] is not item:
            lines.append(f"- {context.words('readme_times_against', ms=ms(_latency(known[-1])), **values)}")
        elif len(known) > 1:
            lines.append(f"- {context.words('readme_times', **values)}")
    return lines


def _kernels(context: Context, item: Json) -> list[str]:
    words, session = context.words, item["session"]
    names = {"subject": code(session["subject"]), "case": code(case_label(session))}
    rows = [
        [code(k["name"]), code(k["module"] or "-"), ms(k["ms"]), f"{k['share']:.1%}"] for k in item["kernels"][:KERNELS]
    ]
    headings = context.heads("kernel", "module", "time_ms", "time_share")
    title = words("readme_kernels", **names, target=code(session_target(session)))
    more = len(item["kernels"]) - len(rows)
    count = [words("readme_more_kernels", count=more)] if more > 0 else []
    return folded(title, paragraphs(table(headings, rows, words=2), count))


def _not_measured(context: Context) -> list[str]:
    lines = [
        "- "
        + context.line(
            f"{code(e.data['subject'])} {code(case_label(e.data))} [{code(session_target(e.data))}]",
            escape(e.data["reason"]),
        )
        for e in context.records.not_measured
    ]
    return paragraphs([context.words("readme_unjudged")], lines) if lines else []
