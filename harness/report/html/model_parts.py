"""The parts of a model that was brought up one by one, as a part of the page."""

from __future__ import annotations

from harness.report import facts
from harness.report.facts import Json
from harness.report.html.parts import (
    Code,
    Group,
    Line,
    Lines,
    Part,
    Row,
    Table,
    columns,
    distinct,
    number,
    verdict,
    warnings,
    word,
)
from harness.report.text import part_counts
from harness.report.words import Words


def parts_group(found: Json, id: str, t: Words) -> Group:
    """Return the parts in the order in which they run, what was not run, and what to type next."""
    rows = tuple(
        Row(cells=(
            word(part["module"]), word(part["kind"]), word(part["output"]), verdict(part["verdict"], t),
            number(part["error"]), number(part["floor"]), number(part["ratio"]), word(part["reason"]),
        ))
        for part in found["parts"]
    )  # fmt: skip
    shape = columns(t, "part", "class_of_part", "output", "verdict", "rel_err", "floor", "ratio", "reason",
                    part="code", class_of_part="code")  # fmt: skip
    key = "parts_cut_caption" if found["upto"] else "parts_caption"
    caption = t(key, counts=part_counts(found["parts"]), floor=t.floor([found["precision"]]))
    labels = warnings(found, t)
    parts: list[Part] = [Table(id=f"{id}-table", caption=caption, columns=shape, rows=rows, labels=labels)]
    notes = [Line(text=note, tone="muted") for note in distinct(note for p in found["parts"] for note in p["notes"])]
    if found["not_run"]:
        notes.append(Line(text=", ".join(found["not_run"]), tone="muted", lead=f"{t('parts_not_run')}:"))
    parts += [Lines(items=tuple(notes))] if notes else []
    steps = distinct(part["next_step"] for part in found["parts"])
    parts += [Code(label=t("commands"), text="\n".join(steps))] if steps else []
    heading = f"{t('parts_one_by_one')}: {facts.target_name(found)}, {found['case']}"
    return Group(id=id, heading=heading, parts=tuple(parts), labels=labels)
