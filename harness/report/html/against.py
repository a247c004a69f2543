"""What changed against earlier records, as a chapter of the page."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.against import Change, figure_words
from harness.report.html.parts import (
    Cell,
    Group,
    Kind,
    Line,
    Lines,
    Part,
    Row,
    Section,
    Table,
    Tone,
    columns,
    verdict,
    word,
)
from harness.report.words import Words

_TONES: dict[str, Tone] = {"worse": "bad", "gone": "warn", "moved": "warn", "new": "", "better": "good"}


def changes_section(found: Sequence[Change], name: str, t: Words) -> Section:
    """Return a row per verdict that is not as it was in the records of this name, the worst first."""
    part: Part = Lines(items=(Line(text=t("changes_none"), tone="muted"),))
    if found:
        keys = ("change", "change_of", "what", "before", "after", "figure_before", "figure_after")
        kinds: dict[str, Kind] = dict.fromkeys(keys[:5], "word")
        shape = columns(t, *keys, **kinds)
        caption = t("changes_caption", count=len(found))
        rows = tuple(_row(one, t) for one in found)
        part = Table(id="changes-table", caption=caption, columns=shape, rows=rows, filters=len(rows) > 8)
    group = Group(id="changes-list", heading="", parts=(part,))
    return Section(id="changes", heading=t("changes_heading", name=name), groups=(group,))


def _row(change: Change, t: Words) -> Row:
    kind = Cell(text=t(f"change_{change.kind}"), tone=_TONES[change.kind])
    states = [verdict(one, t) if one else word("") for one in (change.before, change.after)]
    figures = [
        Cell(text=figure_words(change, figure), order=figure) for figure in (change.figure_before, change.figure_after)
    ]
    return Row(cells=(kind, word(t(f"kind_of_{change.of}")), word(change.name), *states, *figures))
