"""Latency as plain text: the table of a run, and where an engine's time goes.

Everything here takes the dicts of ``Measured.to_json()`` and ``NotMeasured.to_json()``. Series are in latency_series,
charts in latency_plot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from harness.report.layers import columns, weights
from harness.report.text import Json, ascii_safe, number, wrapped

BASELINE = "eager fp32"
"""The baseline that the table's speed-up is against."""
VERDICTS = {
    "regressed": "REGRESSED",
    "improved": "improved",
    "equivalent": "equivalent",
    "inconclusive": "inconclusive",
    "slower_clock": "slower clock",
    "invalid_environment": "INVALID",
    "no_baseline": "no baseline",
}
KERNELS, MODULES = 12, 12
MIB = 2**20
_ALWAYS = 3
"""Columns that are shown even where all their cells are empty."""


def table(measured: Sequence[Json], not_measured: Sequence[Json] = ()) -> str:
    """Return the table of a run: one block per subject, device and figure, with remarks, and what is missing."""
    blocks = []
    for key in dict.fromkeys(_block_of(m) for m in measured):
        blocks.append(_block([m for m in measured if _block_of(m) == key]))
    if not_measured:
        blocks.append("\n".join(line for item in not_measured for line in _missing(item)))
    blocks.append(count_line(measured, not_measured))
    return ascii_safe("\n\n".join(blocks))


def count_line(measured: Iterable[Json], not_measured: Sequence[Json] = ()) -> str:
    """Return ``3 timed: 1 equivalent, 2 no baseline; 1 not measured``."""
    measured = list(measured)
    verdicts = [item["comparison"]["verdict"] for item in measured if is_judged(item)]
    counts = ", ".join(f"{verdicts.count(key)} {words}" for key, words in VERDICTS.items() if key in verdicts)
    missing = f"; {len(not_measured)} not measured" if not_measured else ""
    return f"{len(measured)} timed{f': {counts}' if counts else ''}{missing}"


def target(session: Json) -> str:
    """Return ``rtx-fp16`` for an engine, ``eager fp32`` for PyTorch."""
    if session["runner"] == "engine":
        return f"{session['backend']}-{session['precision']}"
    return f"{session['runner']} {session['precision']}"


def is_judged(measured: Json) -> bool:
    """Return whether it is a contestant; PyTorch without a baseline of its own is there to compare with."""
    return bool(measured["session"]["runner"] == "engine" or measured["comparison"]["verdict"] != "no_baseline")


def where(session: Json) -> str:
    """Return the case and the sizes: ``short batch=4``."""
    return " ".join([session["case"], *(f"{name}={size}" for name, size in session["sizes"].items())])


def newest_sessions(measured: Iterable[Json]) -> list[Json]:
    """Return the newest measurement of every benchmark on every machine; ``measured`` are oldest first."""
    found = {(item["session"]["benchmark"], item["session"]["machine"]["key"]): item for item in measured}
    return list(found.values())


def is_invalid(session: Json) -> bool:
    """Return whether none of a session's figures counts, because of what else the device did."""
    return bool(session["runs"]) and all(run["invalid"] for run in session["runs"])


def throughput(session: Json) -> float | None:
    """Return the median runs per second of the processes that count; None where none of them measured it."""
    runs = [run for run in session["runs"] if not run["invalid"]]
    loads = [run["throughput_per_s"] for run in runs if run["throughput_per_s"] is not None]
    return median(loads) if loads else None


def device_mib(session: Json) -> float | None:
    """Return the median device memory of the processes in MiB; None where none of them knows it."""
    memory = [run["device_bytes"] / MIB for run in session["runs"] if run["device_bytes"] is not None]
    return median(memory) if memory else None


def latency(session: Json) -> tuple[float, float, float] | None:
    """Return the median of the processes' medians, the lowest and the highest of them, in ms; None without figures."""
    values = figures(session, session["metric"], "median")
    return (median(values), min(values), max(values)) if values else None


def figures(session: Json, metric: str, figure: str) -> list[float]:
    """Return one figure of every process that has it, those in an invalid environment left out."""
    runs = [run for run in session["runs"] if not run["invalid"]] or session["runs"]
    return [run[metric][figure] for run in runs if run[metric] and run[metric][figure] is not None]


def short(measured: Json) -> str:
    """Return one line: ``minilm short [ort-cpu-fp32] CPU 1.23 ms (equivalent, 1.002 of the baseline)``."""
    session, comparison = measured["session"], measured["comparison"]
    ratio = "" if comparison["ratio"] is None else f", {comparison['ratio']:.4g} of the baseline"
    time = latency(session)
    ms = "no figure" if time is None else f"{time[0]:.4g} ms"
    verdict = VERDICTS[comparison["verdict"]]
    label = f"{session['subject']} {where(session)} [{target(session)}]"
    return ascii_safe(f"{label} {session['device']} {ms} ({verdict}{ratio})")


def advice(measured: Json) -> str:
    """Return what a verdict means for the reader, in one sentence; empty for one that speaks for itself."""
    session, comparison = measured["session"], measured["comparison"]
    verdict = comparison["verdict"]
    if verdict == "no_baseline":
        accept = f"parity accept {session['subject']} --why ... makes it one"
        return f"no baseline on this machine ({comparison['rule']}): {accept}"
    if verdict == "regressed" and not comparison["repeated"]:
        return "slower, seen once: only a second session in a row that is slower is a failure; measure again"
    if verdict == "inconclusive":
        return "too noisy to tell with so many processes; see parity aa for what this machine can tell apart"
    return ""


def _block_of(measured: Json) -> tuple[str, str, str]:
    """Return what the rows of a block share; GPU time and host time are never in one column."""
    session = measured["session"]
    return session["subject"], session["device"], session["metric"]


def _block(measured: Sequence[Json]) -> str:
    """Return one subject on one device, by one figure: where it comes from, the rows, the legend and the remarks."""
    first = measured[0]["session"]
    heading = " | ".join([first["subject"], weights(first), f"inputs: {first['inputs']}", f"device: {first['device']}"])
    base = _base(measured)
    headings = ["target", "case", "GPU ms" if first["metric"] == "gpu_ms" else f"{_place(first)} ms", "[low, high]"]
    headings += ["end to end", "enqueue", "p90", "p99", "runs/s", "MiB", f"vs {base}", "verdict"]
    rows = [_row(item, base) for item in measured]
    kept = [i for i in range(len(headings)) if i < _ALWAYS or any(row[i] != "-" for row in rows)]
    lines = columns([headings[i] for i in kept], [([row[i] for i in kept[:-1]], [row[kept[-1]]]) for row in rows])
    return "\n".join([*wrapped("", heading), *lines, "", *_legend(measured, base), *_remarks(measured)])


def _place(session: Json) -> str:
    return "CPU" if session["device"] == "CPU" else "host"


def _base(measured: Sequence[Json]) -> str:
    names = [name for item in measured for name in item["speed_up"]]
    return BASELINE if BASELINE in names or not names else names[0]


def _row(measured: Json, base: str) -> list[str]:
    session, metric = measured["session"], measured["session"]["metric"]
    time = latency(session)
    return [
        target(session),
        where(session),
        ms(time and time[0]),
        f"[{ms(time[1])}, {ms(time[2])}]" if time else "-",
        "-" if metric == "end_to_end_ms" else _middle(figures(session, "end_to_end_ms", "median")),
        _middle(figures(session, "enqueue_ms", "median")),
        _middle(figures(session, metric, "p90")),
        _middle(figures(session, metric, "p99")),
        number(throughput(session)),
        number(device_mib(session), ".4g"),
        _speed_up(measured, base),
        VERDICTS[measured["comparison"]["verdict"]] if is_judged(measured) else "-",
    ]


def ms(value: float | None) -> str:
    """Return milliseconds as the tables print them."""
    return number(value, ".4g")


def _middle(values: Sequence[float]) -> str:
    return ms(median(values)) if values else "-"


def _speed_up(measured: Json, base: str) -> str:
    """Return ``2.31x [2.29, 2.33]``."""
    if base not in measured["speed_up"]:
        return "-"
    interval = measured.get("speed_up_intervals", {}).get(base)
    shown = f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""
    return f"{number(measured['speed_up'][base])}x{shown}"


def _legend(measured: Sequence[Json], base: str) -> list[str]:
    """Return what the columns mean, and under which conditions they were measured."""
    sessions = [item["session"] for item in measured]
    processes = sorted({len(session["runs"]) for session in sessions})
    count = str(processes[0]) if len(processes) == 1 else f"{processes[0]} to {processes[-1]}"
    parts = []
    if any(session["metric"] == "gpu_ms" for session in sessions):
        parts.append(f"GPU ms: between CUDA events around one run ({_graphs(sessions)}; L2 {sessions[0]['l2']})")
    if any(session["metric"] == "end_to_end_ms" for session in sessions):
        parts.append("ms: host clock, one run at a time, inputs in to outputs out")
    parts.append(f"the median over {count} fresh processes, [low, high] the range of their medians")
    parts.append("runs/s under load")
    if any(item["speed_up"] for item in measured):
        parts.append(f"vs {base}: its time over this one's, measured in turns, with a 95 % interval")
    return wrapped("", "; ".join(parts) + ".")


def _graphs(sessions: Sequence[Json]) -> str:
    used = {run["graph"] for session in sessions if session["runner"] == "engine" for run in session["runs"]}
    engines = {frozenset({True}): "CUDA graph replayed", frozenset({False}): "no CUDA graph"}
    words = engines.get(frozenset(used), "CUDA graph replayed where notes do not say otherwise")
    return f"engines: {words}; PyTorch: no CUDA graph" if used else "no CUDA graph"


def _remarks(measured: Sequence[Json]) -> list[str]:
    """Return, per contestant, why its verdict is what it is and what else must be known; the same words once."""
    found: dict[str, list[str]] = {}
    for item in measured:
        name = f"{target(item['session'])} {where(item['session'])}"
        for sentence in _sentences(item):
            found.setdefault(sentence, []).append(name)
    lines = []
    for sentence, names in found.items():
        shown = "" if len(names) == len(measured) > 1 else f"{', '.join(names)}: "
        lines += wrapped("", f"{shown}{sentence}")
    return ["", *lines] if lines else []


def _sentences(measured: Json) -> list[str]:
    session, comparison = measured["session"], measured["comparison"]
    runs = session["runs"]
    sentences = [f"{VERDICTS[comparison['verdict']]}: {comparison['rule']}"] if comparison["baseline"] else []
    sentences += [f"INVALID: {reason}" for run in runs for reason in run["invalid"]]
    sentences += [f"note: {note}" for note in (*session["notes"], *comparison["notes"])]
    sentences += [f"note: {flag} in {_count(runs, flag)} processes" for run in runs for flag in run["flags"]]
    failures = [run["graph_failure"] for run in runs if run["graph_failure"]]
    sentences += [f"note: no CUDA graph: {failure}" for failure in failures]
    if session["runner"] == "engine":
        sentences += [advice(measured)]
    return [sentence for sentence in dict.fromkeys(sentences) if sentence]


def _count(runs: Sequence[Json], flag: str) -> str:
    return f"{sum(flag in run['flags'] for run in runs)} of {len(runs)}"


def _missing(item: Json) -> list[str]:
    words = "FAILED" if item["failed"] else "not measured"
    return wrapped(f"{target(item)} {where(item)}: {words}: ", item["reason"])


# Where the time goes


def kernels(measured: Json, *, rows: int = KERNELS) -> str:
    """Return the kernels that take longest and, where kernels are known to belong to modules, the time by module."""
    found = measured["kernels"]
    session = measured["session"]
    title = f"{session['subject']} {where(session)} [{target(session)}]: {len(found)} kernels, each timed apart"
    blocks = [wrapped("", title), _kernel_rows(found, rows)]
    if any(kernel["module"] for kernel in found):
        blocks.append(_module_rows(found, MODULES))
    return ascii_safe("\n\n".join("\n".join(block) for block in blocks))


def by_module(kernels: Sequence[Json]) -> dict[str, tuple[float, float, int]]:
    """Return ms, share and number of kernels per module, longest first; kernels of no known module come under ''."""
    found: dict[str, tuple[float, float, int]] = {}
    for kernel in kernels:
        time, share, count = found.get(kernel["module"], (0.0, 0.0, 0))
        found[kernel["module"]] = (time + kernel["ms"], share + kernel["share"], count + 1)
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _kernel_rows(found: Sequence[Json], rows: int) -> list[str]:
    shown = [([ms(k["ms"]), f"{k['share']:.1%}", k["module"] or "-"], [k["name"]]) for k in found[:rows]]
    return columns(("ms", "share", "module", "kernel"), shown) + _rest(found, rows, "kernels")


def levels(kernels: Sequence[Json], rows: int) -> Sequence[Json]:
    """Return the kernels with their modules cut to the most levels for which there are at most ``rows`` of them."""
    deepest = max((kernel["module"].count(".") + 1 for kernel in kernels), default=1)
    for depth in range(deepest, 0, -1):
        cut = [{**kernel, "module": ".".join(kernel["module"].split(".")[:depth])} for kernel in kernels]
        if len({kernel["module"] for kernel in cut}) <= rows:
            break
    return cut


def _module_rows(found: Sequence[Json], rows: int) -> list[str]:
    modules = by_module(levels(found, rows))
    shown = [
        ([ms(time), f"{share:.1%}", str(count)], [module or "(of no one module)"])
        for module, (time, share, count) in list(modules.items())[:rows]
    ]
    return columns(("ms", "share", "kernels", "module"), shown) + _rest(list(modules), rows, "modules")


def _rest(found: Sequence[Any], rows: int, what: str) -> list[str]:
    return [f"... and {len(found) - rows} more {what}; the JSON has them all"] if len(found) > rows else []
