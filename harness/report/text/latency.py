"""Latency as plain text: the table of a run, the slowest kernels of an engine, and its time by module.

Everything here takes the dicts of ``Measured.to_json()`` and ``NotMeasured.to_json()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, get_args

from harness.records import LatencyVerdict
from harness.report import facts
from harness.report.facts import Json
from harness.report.text.layers import weights_words
from harness.report.text.tables import ascii_safe, columns, latency_word, ms, number, wrapped

_ALWAYS = 3
"""Columns that are shown even where all their cells are empty."""
KERNELS, MODULES = 12, 12


def latency_table(measured: Sequence[Json], not_measured: Sequence[Json] = ()) -> str:
    """Return the table of a run: one block per subject, device and figure, with remarks, and what is missing."""
    blocks = []
    for key in dict.fromkeys(_block_of(m) for m in measured):
        blocks.append(_block([m for m in measured if _block_of(m) == key]))
    if not_measured:
        blocks.append("\n".join(line for item in not_measured for line in _missing(item)))
    blocks.append(latency_counts(measured, not_measured))
    return ascii_safe("\n\n".join(blocks))


def latency_counts(measured: Iterable[Json], not_measured: Sequence[Json] = ()) -> str:
    """Return ``3 timed: 1 equivalent, 2 no baseline; 1 not measured``."""
    measured = list(measured)
    verdicts = [item["comparison"]["verdict"] for item in measured if facts.is_judged(item)]
    counts = ", ".join(
        f"{verdicts.count(key)} {latency_word(key)}" for key in get_args(LatencyVerdict) if key in verdicts
    )
    missing = f"; {len(not_measured)} not measured" if not_measured else ""
    return f"{len(measured)} timed{f': {counts}' if counts else ''}{missing}"


def latency_line(measured: Json) -> str:
    """Return one line: ``minilm short [ort-cpu-fp32] CPU 1.23 ms (equivalent, 1.002 of the baseline)``."""
    session, comparison = measured["session"], measured["comparison"]
    ratio = "" if comparison["ratio"] is None else f", {comparison['ratio']:.4g} of the baseline"
    time = facts.session_latency(session)
    ms = "no figure" if time is None else f"{time[0]:.4g} ms"
    verdict = latency_word(comparison["verdict"])
    label = f"{session['subject']} {facts.case_label(session)} [{facts.session_target(session)}]"
    return ascii_safe(f"{label} {session['device']} {ms} ({verdict}{ratio})")


def latency_advice(measured: Json) -> str:
    """Return what a verdict means for the reader, in one sentence; empty for one that speaks for itself."""
    session, comparison = measured["session"], measured["comparison"]
    verdict = comparison["verdict"]
    if verdict == "no_baseline":
        accept = measured.get("next_step") or f"parity accept {session['subject']} --why ..."
        return f"no baseline on this machine ({comparison['rule']}): {accept} makes it one"
    if verdict == "regressed" and comparison["repeated"]:
        return ""
    next_step: str = comparison.get("next_step", "")
    return f"what to do: {next_step}" if next_step else ""


def _block_of(measured: Json) -> tuple[str, str, str]:
    """Return what the rows of a block share; GPU time and host time are never in one column."""
    session = measured["session"]
    return session["subject"], session["device"], session["metric"]


def _block(measured: Sequence[Json]) -> str:
    """Return one subject on one device, by one figure: where it comes from, the rows, the legend and the remarks."""
    first = measured[0]["session"]
    heading = " | ".join(
        [first["subject"], weights_words(first), f"inputs: {first['inputs']}", f"device: {first['device']}"]
    )
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
    return facts.BASELINE if facts.BASELINE in names or not names else names[0]


def _row(measured: Json, base: str) -> list[str]:
    session, metric = measured["session"], measured["session"]["metric"]
    time = facts.session_latency(session)
    return [
        facts.session_target(session),
        facts.case_label(session),
        ms(time and time[0]),
        f"[{ms(time[1])}, {ms(time[2])}]" if time else "-",
        "-" if metric == "end_to_end_ms" else _middle(facts.figures(session, "end_to_end_ms", "median")),
        _middle(facts.figures(session, "enqueue_ms", "median")),
        _middle(facts.figures(session, metric, "p90")),
        _middle(facts.figures(session, metric, "p99")),
        number(facts.throughput(session)),
        number(facts.device_mib(session), ".4g"),
        speed_up(measured, base, sign="x"),
        latency_word(measured["comparison"]["verdict"]) if facts.is_judged(measured) else "-",
    ]


def _middle(values: Sequence[float]) -> str:
    return ms(median(values)) if values else "-"


def speed_up(measured: Json, base: str, *, sign: str = "") -> str:
    """Return ``2.31 [2.28, 2.35]``: the factor over a baseline and its 95 % interval; a dash where there is none."""
    factor = measured["speed_up"].get(base)
    if factor is None:
        return "-"
    low, high = facts.speed_up_interval(measured, base)
    return f"{number(factor)}{sign}{'' if low is None or high is None else f' [{number(low)}, {number(high)}]'}"


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
        name = f"{facts.session_target(item['session'])} {facts.case_label(item['session'])}"
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
    said = comparison["verdict"] == "no_baseline" or any(run["invalid"] for run in runs)  # below, in other words
    sentences = [] if said else [f"{latency_word(comparison['verdict'])}: {comparison['rule']}"]
    sentences += [facts.known_words(measured.get("known"))]
    owner = measured.get("owner") if comparison["verdict"] == "regressed" else ""
    sentences += [f"owner: {owner}"] if owner else []
    sentences += [f"INVALID: {reason}" for run in runs for reason in run["invalid"]]
    sentences += [f"note: {note}" for note in (*session["notes"], *comparison["notes"])]
    sentences += [f"note: {flag} in {_count(runs, flag)} processes" for run in runs for flag in run["flags"]]
    failures = [run["graph_failure"] for run in runs if run["graph_failure"]]
    sentences += [f"note: no CUDA graph: {failure}" for failure in failures]
    if session["runner"] == "engine":
        sentences += [latency_advice(measured)]
    return [sentence for sentence in dict.fromkeys(sentences) if sentence]


def _count(runs: Sequence[Json], flag: str) -> str:
    return f"{sum(flag in run['flags'] for run in runs)} of {len(runs)}"


def _missing(item: Json) -> list[str]:
    words = "FAILED" if item["failed"] else "known" if item.get("known") else "not measured"
    return wrapped(f"{facts.session_target(item)} {facts.case_label(item)}: {words}: ", item["reason"])


def kernels_table(measured: Json, *, rows: int = KERNELS) -> str:
    """Return the kernels that take longest and, where kernels are known to belong to modules, the time by module."""
    found = measured["kernels"]
    session = measured["session"]
    where = f"{session['subject']} {facts.case_label(session)} [{facts.session_target(session)}]"
    title = f"{where}: {len(found)} kernels, each timed separately"
    blocks = [wrapped("", title), _kernel_rows(found, rows)]
    if any(kernel["module"] for kernel in found):
        blocks.append(_module_rows(found, MODULES))
    return ascii_safe("\n\n".join("\n".join(block) for block in blocks))


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
    modules = facts.by_module(levels(found, rows))
    shown = [
        ([ms(time), f"{share:.1%}", str(count)], [module or "(of no one module)"])
        for module, (time, share, count) in list(modules.items())[:rows]
    ]
    return columns(("ms", "share", "kernels", "module"), shown) + _rest(list(modules), rows, "modules")


def _rest(found: Sequence[Any], rows: int, what: str) -> list[str]:
    return [f"... and {len(found) - rows} more {what}; the JSON has them all"] if len(found) > rows else []
