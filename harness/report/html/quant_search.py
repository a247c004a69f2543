"""Which operators of a quantised model to leave in floats, as a chapter of the page."""

from __future__ import annotations

from functools import partial

from harness.report import facts
from harness.report.facts import Json
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
    chart,
    columns,
    number,
    warnings,
    word,
)
from harness.report.plots import draw_quant_search
from harness.report.words import Words

CHART_INCHES = 5.0


def quant_section(found: Json, id: str, t: Words) -> Section:
    """Return the answer, the chart of operators in floats against cost and time, the ranking, and the sets tried."""
    verdict = found["verdict"]
    error = t("quant_not_finite") if found["error"] is None else f"{found['error']:.3g}"
    rows = ((t("quant_against"), found["against"]), (t("quant_limit"), found["limit"]), (t("quant_all"), error))
    parts: list[Part] = [Lines(items=(Line(text=found["finding"], tone=TONES[verdict]),)), Facts(rows=rows)]
    if found["trials"]:
        draw = partial(draw_quant_search, found=found)
        parts.append(chart(draw, f"{id}-chart", t("quant_chart"), (), height=CHART_INCHES))
    if found["exclude"]:
        parts.append(Code(label=f"{t('plan')}: {found['plan_file']}", text="\n".join(found["exclude"])))
    parts += [_units(found, id, t), _trials(found, id, t)]
    heading = t("quant_heading", subject=found["subject"], target=facts.target_name(found))
    group = Group(id=f"{id}-search", heading="", parts=tuple(parts))
    return Section(id=id, heading=heading, groups=(group,), verdict=verdict, labels=tuple(warnings(found, t)))


def _units(found: Json, id: str, t: Words) -> Details:
    rows = tuple(
        Row(cells=(
            word(unit["name"]), word(unit["op"]), word(t("yes") if unit["left"] else ""), number(unit["alone"]),
            number(unit["without"]),
        ))
        for unit in found["units"]
    )  # fmt: skip
    shape = columns(
        t, "op", "quant_op", "quant_left", "quant_alone", "quant_without", quant_op="code", quant_left="word"
    )
    caption = t("quant_units", count=len(rows))
    return Details(summary=caption, parts=(Table(id=f"{id}-units", caption=caption, columns=shape, rows=rows),))


def _trials(found: Json, id: str, t: Words) -> Details:
    rows = tuple(
        Row(cells=(
            Cell(text=str(trial["units"]), order=trial["units"]),
            word(t("quant_on_engine" if trial["on"] == "engine" else "quant_on_fake")),
            word(t(f"verdict_{trial['verdict']}"), TONES[trial["verdict"]]), number(trial["error"]),
            number(trial["ms"]),
        ))
        for trial in found["trials"]
    )  # fmt: skip
    shape = columns(t, "quant_left", "tried_on", "verdict", "rel_err", "quant_ms")
    caption = t("quant_sets", count=len(rows))
    return Details(summary=caption, parts=(Table(id=f"{id}-sets", caption=caption, columns=shape, rows=rows),))
