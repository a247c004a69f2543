"""Latency as parts of the page: the table of a subject, charts over a size, where the time goes, and its history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from harness.records import session_from_json
from harness.report import facts
from harness.report.facts import Json
from harness.report.html.parts import (
    TONES,
    Cell,
    Details,
    Group,
    Line,
    Lines,
    Part,
    Row,
    Table,
    Tone,
    chart,
    columns,
    distinct,
    figure_columns,
    grouped,
    number,
    warnings,
    word,
)
from harness.report.plots import Series, draw_history, draw_over_size, over_size, swept
from harness.report.text import series_of
from harness.report.verdicts import latency_verdict as judged
from harness.report.verdicts import missing_verdict
from harness.report.words import Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def module_times(kernels: Sequence[Json]) -> dict[str, float]:
    """Return milliseconds by module, slowest first; empty where no kernel's module is known."""
    timed = [kernel for kernel in kernels if None not in (kernel["ms"], kernel["share"])]
    found = {name: ms for name, (ms, _, _) in facts.by_module(timed).items()}
    return found if any(found) else {}


def latency_group(measured: Sequence[Json], missing: Sequence[Json], id: str, t: Words) -> Group:
    """Return the latency of one subject. ``missing`` could not be timed."""
    labels = tuple(distinct(label for item in measured for label in warnings(item["session"], t)))
    parts: list[Part] = []
    if missing:
        parts.append(Lines(items=tuple(_missing(item, t) for item in missing)))
    if measured:
        newest = facts.newest_sessions(measured)
        parts.append(_table(newest, f"{id}-table", labels, t))
        parts.append(Lines(items=(Line(text=t("latency_note"), tone="muted"), *_remarks(newest, t))))
        parts += _charts(newest, id, labels, t)
        parts += [_kernels(item, f"{id}-kernels-{n}", t) for n, item in enumerate(newest, 1) if item["kernels"]]
    for number_, one in enumerate(_series(measured), start=1):
        parts += _history(one, f"{id}-history-{number_}", t)
    return Group(id=id, heading=t("latency"), parts=tuple(parts), labels=labels)


def _table(measured: Sequence[Json], id: str, labels: tuple[str, ...], t: Words) -> Table:
    baselines = distinct(name for item in measured for name in item["speed_up"])
    others = ("end_to_end", "enqueue", "p90", "p99", "per_second", "memory", "device")
    shape = (
        *columns(t, "verdict", "target", "case_sizes", "metric", "median_ms", "range_ms"),
        *figure_columns((t("speed_up_against", name=name) for name in baselines), shown=1),
        *columns(t, "against_baseline", *others, extra=others),
    )
    rows = tuple(_row(item, baselines, t) for item in measured)
    caption = t("latency_caption", count=len(rows))
    return Table(id=id, caption=caption, columns=shape, rows=rows, filters=len(rows) > 8, labels=labels)


def _row(measured: Json, baselines: Sequence[str], t: Words) -> Row:
    session, comparison = measured["session"], measured["comparison"]
    metric, time = session["metric"], facts.session_latency(session)
    cells = [
        _verdict(measured, t),
        word(facts.session_target(session)),
        word(facts.case_label(session)),
        word(t(f"metric_{metric}")),
        number(time and time[0], ".4g"),
        word(f"[{time[1]:.4g}, {time[2]:.4g}]" if time else ""),
        *(_speed_up(measured, name) for name in baselines),
        _ratio(comparison),
        _middle(session, "end_to_end_ms", "median"),
        _middle(session, "enqueue_ms", "median"),
        _middle(session, metric, "p90"),
        _middle(session, metric, "p99"),
        number(facts.throughput(session), ".4g"),
        number(facts.device_mib(session), ".4g"),
        word(session["device"]),
    ]
    return Row(cells=tuple(cells))


def _verdict(measured: Json, t: Words) -> Cell:
    """Return the verdict; PyTorch that is there to compare with has none."""
    if not facts.is_judged(measured):
        return Cell(text=t("verdict_reference"), tone="muted")
    return Cell(text=t("latency_" + measured["comparison"]["verdict"]), tone=TONES[judged(measured)])


def _middle(session: Json, metric: str, figure: str) -> Cell:
    found = facts.figures(session, metric, figure)
    return number(median(found) if found else None, ".4g")


def _ratio(comparison: Json) -> Cell:
    if comparison["ratio"] is None:
        return word("")
    interval = ""
    if comparison["low"] is not None and comparison["high"] is not None:
        interval = f" [{comparison['low']:.4g}, {comparison['high']:.4g}]"
    return Cell(text=f"{comparison['ratio']:.4g}{interval}", order=comparison["ratio"])


def _speed_up(measured: Json, name: str) -> Cell:
    value, (low, high) = measured["speed_up"].get(name), facts.speed_up_interval(measured, name)
    if value is None:
        return word("")
    shown = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
    return Cell(text=f"{value:.3g}x{shown}", order=value)


def _remarks(measured: Sequence[Json], t: Words) -> list[Line]:
    """Return the rule behind every verdict, and what else must be known."""
    found: list[tuple[str, Tone, str]] = []
    for item in measured:
        session, comparison = item["session"], item["comparison"]
        name = f"{facts.session_target(session)} {facts.case_label(session)}"
        if comparison["rule"]:
            words = f"{t('latency_' + comparison['verdict'])}: {comparison['rule']}"
            found.append((words, TONES[judged(item)] if facts.is_judged(item) else "muted", name))
        found += [(said, TONES[judged(item)], name)] if (said := facts.known_words(item["known"])) else []
        found += [(comparison["next_step"], "muted", name)] if comparison["next_step"] else []
        failures = [run["graph_failure"] for run in session["runs"] if run["graph_failure"]]
        found += [(why, "warn", name) for run in session["runs"] for why in run["invalid"]]
        found += [(why, "warn", name) for why in failures]
        notes = [flag for run in session["runs"] for flag in run["flags"]]
        found += [(note, "muted", name) for note in (*notes, *session["notes"], *comparison["notes"])]
    return grouped(found, t("many_measurements"))


def _missing(item: Json, t: Words) -> Line:
    found = missing_verdict(item)
    text = f"{facts.session_target(item)} {facts.case_label(item)}: {item['reason']}"
    return Line(text=text, tone=TONES[found], lead=t(f"verdict_{found}"))


def _charts(measured: Sequence[Json], id: str, labels: tuple[str, ...], t: Words) -> list[Part]:
    """Return latency and speed-up over the first size of which there are several values, a pair per case and device.

    Sessions in an invalid environment are left out: their figures do not count.
    """
    valid = [m for m in measured if not facts.is_invalid(m["session"])]
    found: list[Part] = []
    places = distinct((m["session"]["case"], m["session"]["device"]) for m in valid)
    for n, (case, device) in enumerate(places, start=1):
        chosen = [m for m in valid if (m["session"]["case"], m["session"]["device"]) == (case, device)]
        symbol = swept(chosen)
        if symbol:
            found += _pair(chosen, symbol, f"{case}, {device}", f"{id}-{n}", labels, t)
    return found


def _pair(measured: Sequence[Json], symbol: str, place: str, id: str, labels: tuple[str, ...], t: Words) -> list[Part]:
    times, gains = over_size(measured, symbol, t)
    found: list[Part] = []
    for name, series, words, one in (
        ("latency_over", times, t("axis_ms"), False),
        ("speed_up_over", gains, t("speed_up"), True),
    ):
        if series:
            caption = t(name, size=symbol, place=place)
            draw = partial(_over_size, series=series, symbol=symbol, words=words, one=one)
            found.append(chart(draw, f"{id}-{name}", caption, labels))
    return found


def _over_size(figure: Figure, series: Series, symbol: str, words: str, one: bool) -> None:
    draw_over_size(figure.subplots(), series, symbol, words, one=one)


def _kernels(measured: Json, id: str, t: Words) -> Details:
    """Return the kernels of one engine, slowest first."""
    session = measured["session"]
    rows = tuple(
        Row(cells=(
            word(kernel["name"]), number(kernel["ms"], ".4g"),
            number(kernel["share"], ".1%"),
            word(kernel["module"]), word(", ".join(kernel["nodes"])),
        ))
        for kernel in measured["kernels"]
    )  # fmt: skip
    shape = columns(t, "kernel", "time_ms", "time_share", "module", "nodes")
    caption = t("kernels_caption", count=len(rows), name=f"{facts.session_target(session)} {facts.case_label(session)}")
    table = Table(id=id, caption=caption, columns=shape, rows=rows, filters=len(rows) > 8, labels=warnings(session, t))
    return Details(summary=caption, parts=(table,), long=len(rows) > 60)


def _series(measured: Sequence[Json]) -> list[Json]:
    """Return the series of which several sessions were recorded, with what their newest comparison calls baseline."""
    found: dict[tuple[str, str], list[Json]] = {}
    for item in measured:
        found.setdefault((item["session"]["benchmark"], item["session"]["machine"]["key"]), []).append(item)
    return [
        {**series_of([session_from_json(item["session"]) for item in items], items[-1]["comparison"]["baseline"]),
         "inputs": items[-1]["session"]["inputs"]}
        for items in found.values()
        if len(items) > 1
    ]  # fmt: skip


def _history(found: Json, id: str, t: Words) -> list[Part]:
    """Return one series: its chart with the accepted baseline and the change points, and what was remarked."""
    points = found["points"]
    labels = warnings(found, t)
    title = t("history_caption", name=found["benchmark"], machine=found["machine"])
    parts: list[Part] = []
    if sum(point["ms"] is not None and not point["invalid"] for point in points) > 1:
        parts.append(chart(partial(draw_history, series=found, t=t), f"{id}-chart", title, labels))
    parts.append(Lines(items=tuple(Line(text=remark, tone="muted") for remark in found["remarks"])))
    rows = tuple(_point(point, t) for point in points)
    keys = ("recorded", "median_ms", "range_ms", "baseline", "invalid", "engine", "commit")
    shape = columns(t, *keys, engine="code")
    table = Table(id=id, caption=title, columns=shape, rows=rows, labels=labels)
    return [*parts, Details(summary=t("sessions_caption", count=len(rows)), parts=(table,))]


def _point(point: Json, t: Words) -> Row:
    interval = f"[{point['low']:.4g}, {point['high']:.4g}]" if None not in (point["low"], point["high"]) else ""
    return Row(cells=(
        word(point["recorded_at"]), number(point["ms"], ".4g"), word(interval),
        word(t("accepted") if point["accepted"] else ""), word("; ".join(point["invalid"])),
        word(point["engine_sha256"][:12]), word(point["commit"][:12]),
    ))  # fmt: skip
