"""Layer reports as parts of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from harness.records import MARKS
from harness.report import facts
from harness.report.facts import Json
from harness.report.html.parts import (
    Cell,
    Chart,
    Details,
    Group,
    Line,
    Lines,
    Part,
    Row,
    Table,
    Tone,
    bar,
    chart,
    columns,
    number,
    share,
    warnings,
    word,
)
from harness.report.html.tree import module_tree
from harness.report.plots import draw_depth
from harness.report.text import number as figure
from harness.report.text import shown_mark
from harness.report.words import Words

MARK_TONES: dict[str, Tone] = {"nonfinite": "bad", "flip": "bad", "suspect": "bad", "not_judged": "warn", "ok": "good"}
ORDER = tuple(MARKS)
DEPTH_INCHES, DEPTH_MARGINS = 5.0, (0.8, 0.5, 1.1, 0.5)
"""Inches; there are names of modules above the chart."""
WRONG = 2.0
"""A local error above this many times its floor has a red bar."""
OPEN_ROWS = 1000
"""A longer table is folded: a browser lays it out when it is opened, not when the page is."""


def layer_group(report: Json, times: Mapping[str, float], id: str, t: Words) -> Group:
    """Return one layer report; ``times`` has the milliseconds of modules, where kernels were profiled."""
    values = facts.compared(report)
    labels = warnings(report, t)
    parts: list[Part] = [_trust(report, t)]
    if values:
        parts.append(_chart(report, f"{id}-values", labels, t))
    if tree := module_tree(report, times, f"{id}-tree", f"{id}-values", labels, t):
        parts.append(tree)
    if report["modules"]:
        parts.append(_module_table(report, times, id, labels, t))
    if report["values"]:
        table = _value_table(report, values, f"{id}-values", labels, t)
        parts.append(Details(summary=table.caption, parts=(table,), open=len(table.rows) <= OPEN_ROWS, long=True))
    heading = f"{t('layers')}: {facts.target_name(report)}, {report['case']}"
    return Group(id=id, heading=heading, parts=tuple(parts), labels=labels)


def _trust(report: Json, t: Words) -> Lines:
    """Return how much was observed and whether it can be trusted, before any figure."""
    counts = Counter(value["status"] for value in report["values"])
    seen = ", ".join(f"{count} {t('status_' + status)}" for status, count in counts.items())
    lines = [Line(text=t("layer_counts", count=len(report["values"]), seen=seen or "-", mode=report["mode"]))]
    if not facts.compared(report):
        lines.append(Line(text=t("nothing_compared"), tone="warn", lead=t("verdict_not_judged")))
    if not report["trusted"]:
        lines.append(Line(text=t("not_trusted"), tone="bad"))
    if not report["observer"]:
        lines.append(Line(text=t("observer_unknown"), tone="warn"))
    for effect in report["observer"]:
        figures = {key: "inf" if effect[key] is None else figure(effect[key]) for key in ("difference", "error")}
        words = t("observer_none" if effect["identical"] else "observer_some")
        lines.append(Line(text=words.format(name=effect["name"], **figures), tone="" if report["trusted"] else "bad"))
    if report["first_nonfinite"]:
        lines.append(Line(text=report["first_nonfinite"], tone="bad", lead=t("first_nonfinite")))
    lines += [Line(text=note, tone="muted") for note in report["notes"]]
    return Lines(items=tuple(lines))


def _chart(report: Json, table: str, labels: tuple[str, ...], t: Words) -> Chart:
    title = f"{t('error_along_depth')}: {report['subject']} {facts.target_name(report)}"
    draw = partial(draw_depth, report=report, t=t)
    return chart(draw, f"{table}-chart", title, labels, table=table, height=DEPTH_INCHES, margins=DEPTH_MARGINS)


def time_group(session: Json, times: Mapping[str, float], report: Json | None, id: str, t: Words) -> Group:
    """Return time by module beside error by module: the slowest modules, and what each of them loses.

    ``report`` is the layer report of the same engine; without one there are no errors beside the times.
    """
    findings = {module["module"]: module for module in report["modules"]} if report else {}
    bad = facts.nonfinite_names(report) if report else set()
    total = sum(times.values()) or 1.0
    rows = []
    for name in sorted(times, key=lambda name: -times[name]):
        time = [number(times[name], ".4g"), share(times[name] / total)]
        errors = _errors(findings.get(name), bad, t) if report else []
        rows.append(Row(cells=(word(name or t("no_module")), *time, *errors)))
    labels = warnings(session, t)
    place = f"{facts.case_label(session)}, {session['device']}"
    title = f"{t('time_by_module')}: {session['subject']} {facts.session_target(session)}, {place}"
    keys = ("mark", "ratio", "local", "share") if report else ()
    shape = columns(t, "module", "time_ms", "time_share", *keys, ratio="bar", time_share="share")
    table = Table(id=f"{id}-table", caption=title, columns=shape, rows=tuple(rows), labels=labels)
    note = Line(text=t("time_by_module_note") if report else t("time_without_errors"), tone="muted")
    return Group(id=id, heading=title, parts=(table, Lines(items=(note,))), labels=labels)


def _errors(found: Json | None, bad: set[str], t: Words) -> list[Cell]:
    """Return the mark, the error over its floor as a bar, the error and its share of a module."""
    if found is None:
        return [word("")] * 4
    lost = facts.error_ratio(found)
    ratio = bar(lost, "" if lost is None else f"{lost:.3g}x", "bad" if lost is not None and lost > WRONG else "")
    return [_mark(shown_mark(found, bad), t), ratio, number(found["local"]), number(found["share"])]


def _module_table(report: Json, times: Mapping[str, float], id: str, labels: tuple[str, ...], t: Words) -> Table:
    """Return the modules, worst first, each with its worst value; its name shows its values in the table below."""
    bad = facts.nonfinite_names(report)
    keys = ["mark", "module", "ratio", "local", "local_floor", "accumulated", "floor", "share", "value_count"]
    keys += [*(["time_ms"] if times else []), "worst_value", "op"]
    rows = []
    for module in report["modules"]:
        mark, name = shown_mark(module, bad), module["module"]
        link = Cell(text=name or t("root"), href=f"#{id}-values", choose=name or "(root)")
        figures = [number(facts.error_ratio(module)), number(module["local"]), number(module["local_floor"])]
        figures.append(number(module["propagated"], absent="NaN" if module["worst"] in bad else "-"))
        figures += [number(module["floor"]), number(module["share"]), number(module["values"], "d")]
        figures += [number(times.get(name), ".4g")] if times else []
        cells = (_mark(mark, t), link, *figures, word(module["worst"]), word(facts.short_op(module["op"])))
        rows.append(Row(cells=cells, mark=mark))
    rows.sort(key=lambda row: ORDER.index(row.mark))
    return Table(
        id=f"{id}-modules",
        caption=t("modules_caption", count=len(rows)),
        columns=columns(t, *keys, extra=("local_floor", "floor", "value_count", "op")),
        rows=tuple(rows),
        filters=len(rows) > 8,
        marks=_marks(rows, t),
        labels=labels,
    )


def _value_table(report: Json, values: Sequence[Json], id: str, labels: tuple[str, ...], t: Words) -> Table:
    """Return every value, those that were compared first and the worst of them at the top."""
    rest = [value for value in report["values"] if value["status"] != "compared"]
    bad = facts.nonfinite_names(report)
    rows = [_value_row(value, shown_mark(value, bad), t) for value in [*facts.worst_first(values), *rest]]
    keys = (
        "mark", "depth", "value", "op", "module", "ratio", "local", "local_floor", "accumulated", "floor", "effect",
        "bias", "largest", "status", "reason", "kernel", "source",
    )  # fmt: skip
    return Table(
        id=id,
        caption=t("values_caption", count=len(rows), compared=len(values)),
        columns=columns(t, *keys, extra=("local_floor", *keys[keys.index("floor") :])),
        rows=tuple(rows),
        filters=True,
        marks=_marks(rows, t),
        modules=_prefixes(report["values"]),
        labels=labels,
    )


def _value_row(value: Json, mark: str, t: Words) -> Row:
    bad = facts.is_nonfinite_value(value)
    nan = bool((value["stats"] or {}).get("nan_actual"))
    accumulated = number(facts.value_error(value), absent=("NaN" if nan else "inf") if bad else "-")
    cells = (
        _mark(mark, t),
        number(value["depth"], "d"),
        word(value["name"]),
        word(facts.short_op(value["op"])),
        word(value["module"]),
        number(facts.error_ratio(value)),
        number(value["local"]),
        number(value["local_floor"]),
        Cell(text="NaN" if nan else "inf", tone="bad") if bad else accumulated,
        number(value["floor"]),
        number(value["effect"]),
        number(value["local_bias"], ".3f"),
        number(value["largest"]),
        word(t(f"status_{value['status']}")),
        word(value["reason"]),
        word(value["kernel"]),
        word(value["source"]),
    )
    return Row(cells=cells, mark=mark, module=value["module"] or "(root)", depth=value["depth"])


def _mark(mark: str, t: Words) -> Cell:
    return Cell(text=t(f"mark_{mark}"), tone=MARK_TONES.get(mark, "muted"), order=ORDER.index(mark))


def _marks(rows: Sequence[Row], t: Words) -> tuple[tuple[str, str], ...]:
    counts = Counter(row.mark for row in rows)
    return tuple((mark, f"{t('mark_' + mark)} ({counts[mark]})") for mark in ORDER if counts[mark])


def _prefixes(values: Sequence[Json]) -> tuple[str, ...]:
    """Return every module that values belong to, and what holds them, in dataflow order."""
    found: dict[str, None] = {}
    for value in values:
        parts = value["module"].split(".") if value["module"] else []
        for length in range(1, len(parts) + 1):
            found.setdefault(".".join(parts[:length]))
    return tuple(found)
