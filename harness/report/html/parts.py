"""The parts a page is made of, as data: tables, charts, lines, facts, code, details, pictures. The template draws them.

All text is plain: the template escapes it. Only ``Chart.drawing`` holds markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from harness.report.facts import Json
from harness.report.plots import Draw, Drawing, embedded
from harness.report.verdicts import RANKS
from harness.report.words import Words

Tone = Literal["", "good", "bad", "warn", "muted"]
Kind = Literal["word", "code", "figure", "mark", "bar", "share"]
TONES: Mapping[str, Tone] = {"pass": "good", "fail": "bad", "known": "warn", "not_judged": "warn"}
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("verdict", "mark", "answer"), "mark"),
    **dict.fromkeys(
        ("target", "case", "case_sizes", "output", "shape", "module", "value", "op", "worst_value", "kernel", "nodes",
         "source", "kept_fp32", "settings", "commit", "file", "command"), "code",
    ),
    **dict.fromkeys(
        ("judged", "what", "allowed", "reason", "conditions", "status", "question", "detail", "tried_on", "metric",
         "range_ms", "device", "recorded", "baseline", "invalid", "picture", "variant", "complete", "error"), "word",
    ),
    "of_limit": "bar",
}  # fmt: skip
"""What a column holds, by the key of its head; figures where it is not named."""
STAYS = ("target", "value", "module", "what")
"""Columns that stay in sight beside the verdict while the rest of a table is moved sideways; the first one of them."""
FINE = ("pass", "ok")
"""Marks of rows that are folded in a table of more than FEW rows."""
FEW = 8
MISSING = "-"
CPU = "CPU"
"""What records call the device of a run without a GPU."""
NAMED = 3
"""Names that stand in front of a sentence; of more their number does."""


class Cell(NamedTuple):
    """One cell of a table. A tuple, because a page holds 100,000 of them: dataclasses cost it a third of its time."""

    text: str
    tone: Tone = ""
    order: float | None = None
    """What the column is sorted by where the text is no figure."""
    href: str = ""
    """Where in the page it leads."""
    choose: str = ""
    """The module whose values it shows in the table that ``href`` names."""
    bar: float | None = None
    """How much of its bar is filled, from 0 to 100; in a column of the kind ``bar`` the middle is 1, or the limit."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    label: str
    kind: Kind = "figure"
    extra: bool = False
    """Whether it is shown only with all figures."""
    stays: Literal["", "first", "second"] = ""
    """Its place among those that stay in sight."""

    @property
    def classes(self) -> str:
        """What its cells are to the style sheet."""
        return " ".join(filter(None, (self.kind, "extra" if self.extra else "", self.stays)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table."""

    cells: tuple[Cell, ...]
    mark: str = ""
    """The key that the mark filter selects by."""
    module: str | None = None
    """The module that the module filter selects by."""
    depth: int | None = None
    """The place in the chart above."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that can be sorted, and filtered where it is long."""

    part: ClassVar[str] = "table"
    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    filters: bool = False
    """Whether rows can be filtered by text."""
    marks: tuple[tuple[str, str], ...] = ()
    """Keys and words of the marks that rows can be filtered by."""
    modules: tuple[str, ...] = ()
    """Modules that rows can be filtered by."""
    labels: tuple[str, ...] = ()
    """What the figures must not be read without: random weights, CPU."""

    @property
    def folded(self) -> int:
        """How many of its rows, those without a fault, are folded: in a long table, beside others."""
        fine = sum(row.mark in FINE for row in self.rows)
        return fine if len(self.rows) > FEW and fine < len(self.rows) else 0


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with its legend and caption."""

    part: ClassVar[str] = "chart"
    drawing: Drawing
    caption: str
    labels: tuple[str, ...] = ()
    table: str = ""
    """Id of the table whose rows the pointer looks up by depth."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One sentence."""

    text: str
    tone: Tone = ""
    lead: str = ""
    """Words in front of it, such as the verdict."""
    links: tuple[tuple[str, str], ...] = ()
    """Places in the page that it is about, and their names."""
    more: str = ""
    """How many it is about beyond those."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Sentences, one below the other."""

    part: ClassVar[str] = "lines"
    items: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and what they are."""

    part: ClassVar[str] = "facts"
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text to be copied."""

    part: ClassVar[str] = "code"
    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Details:
    """Parts that can be folded away."""

    part: ClassVar[str] = "details"
    summary: str
    parts: tuple[Part, ...]
    open: bool = False
    long: bool = False
    """Too long to be printed unless it was opened."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image, or why there is none."""

    words: str
    """What it shows."""
    data: str = ""
    """A data URI."""
    problem: str = ""
    """Why it is missing; empty where it is there."""
    role: str = ""
    """``reference`` and ``engine`` can be laid over each other."""


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """Images that belong together: what the variants of a case share, or those of one variant."""

    heading: str
    items: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The images of one case, side by side."""

    part: ClassVar[str] = "pictures"
    heading: str
    sets: tuple[PictureSet, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrendPlot:
    """The ratios of one output over its runs, as paths and places in a drawing of 290 by 116 units."""

    heading: str
    words: str
    """Which engine, case and device."""
    line: str
    """Through the runs that passed."""
    dots: str
    """On them."""
    failed: str
    """Crosses."""
    not_judged: str
    """Ticks at the bottom."""
    floor: float
    """Height of the ratio 1."""
    limit: float | None
    """Height of the limit; None where it is not known."""
    limit_words: str
    """The limit as a figure."""
    changes: tuple[float, ...]
    """Where the level changed, from the left."""
    change_words: str
    """From what to what it changed last; empty where it did not."""
    first: str
    """Date of the oldest run."""
    last: str
    """Date of the newest."""
    rises: bool
    """Whether the last change is a rise."""
    summary: str
    """What it shows, for those who cannot see it."""


@dataclass(frozen=True, kw_only=True)
class TrendPlots:
    """Small plots side by side."""

    part: ClassVar[str] = "trends"
    items: tuple[TrendPlot, ...]
    caption: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One module of a tree."""

    name: str
    """Below the module that holds it."""
    module: str
    """Its whole path."""
    count: int
    error: Cell
    time: Cell
    open: bool
    below: tuple[Branch, ...]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Modules with what they hold, which can be folded, and a field that finds values of a table by their names."""

    part: ClassVar[str] = "tree"
    id: str
    caption: str
    table: str
    timed: bool
    branches: tuple[Branch, ...]
    labels: tuple[str, ...] = ()


Part = Tree | Table | Chart | Lines | Facts | Code | Details | Pictures | TrendPlots


@dataclass(frozen=True, kw_only=True)
class Group:
    """What is known of one thing: a heading and its parts."""

    id: str
    heading: str
    parts: tuple[Part, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """One subject, one study, or one chapter of the page."""

    id: str
    heading: str
    groups: tuple[Group, ...]
    verdict: str = ""
    """``pass``, ``fail``, ``known``, ``not_judged``, or empty where there is nothing to judge."""
    facts: tuple[tuple[str, str], ...] = field(default=())
    labels: tuple[str, ...] = ()


def word(text: object, tone: Tone = "") -> Cell:
    """Return a cell of words; a dash where there are none."""
    return Cell(text=str(text) if text not in ("", None) else MISSING, tone=tone)


def number(value: float | None, spec: str = ".3g", *, absent: str = MISSING, tone: Tone = "") -> Cell:
    """Return a cell with a figure, or what stands for one that is absent or not finite."""
    text = absent if value is None else format(value, spec)
    return Cell(text=text, tone="bad" if text in ("NaN", "inf") else tone)


def bar(value: float | None, text: str, tone: Tone = "") -> Cell:
    """Return a cell with a bar up to a multiple of a limit, which is its middle: twice the limit fills it."""
    if value is None:
        return Cell(text=text or MISSING)
    return Cell(text=text, tone=tone, order=min(value, sys.float_info.max), bar=round(min(value, 2.0) * 50, 1))


def share(value: float | None) -> Cell:
    """Return a cell with a bar of a share from 0 to 1."""
    return word("") if value is None else Cell(text=f"{value:.1%}", order=value, bar=round(100 * value, 1))


def verdict(value: str, t: Words) -> Cell:
    """Return a cell with a verdict, the worst of them sorted first."""
    return Cell(text=t(f"verdict_{value}"), tone=TONES[value], order=RANKS.index(value))


def columns(t: Words, *keys: str, extra: Sequence[str] = (), **kinds: Kind) -> tuple[Column, ...]:
    """Return columns by the keys of their heads; ``kinds`` says what a column holds where it is not as in KINDS.

    Those in ``extra`` are shown with all figures only. The verdict and what it is about stay in sight.
    """
    second = next((key for key in keys if key in STAYS), "") if keys[0] in ("verdict", "mark") else ""
    places: dict[str, Literal["first", "second"]] = {keys[0]: "first", second: "second"} if second else {}
    return tuple(
        Column(label=t(key), kind=kinds.get(key) or KINDS.get(key, "figure"), extra=key in extra,
               stays=places.get(key, ""))
        for key in keys
    )  # fmt: skip


def figure_columns(labels: Iterable[str], *, shown: int | None = None) -> tuple[Column, ...]:
    """Return columns of figures whose heads come from the records, those after ``shown`` only with all figures."""
    return tuple(Column(label=label, extra=shown is not None and n >= shown) for n, label in enumerate(labels))


def chart(
    draw: Draw, id: str, title: str, labels: tuple[str, ...], *, table: str = "", note: str = "", **size: Any
) -> Chart:
    """Return what ``draw`` draws, with ``title`` and ``note`` as its caption.

    ``table`` is the id of the table whose rows its cursor looks up; ``size`` are ``height`` and ``margins`` in inches.
    """
    drawing = embedded(draw, id=id, title=title, cursor=bool(table), **size)
    return Chart(drawing=drawing, caption=f"{title}. {note}" if note else title, labels=labels, table=table)


def warnings(data: Json, t: Words) -> tuple[str, ...]:
    """Return what figures must not be read without, from the keys ``weights``, ``inputs`` and ``device``."""
    found = [t("random_weights")] if data.get("weights") == "random" else []
    found += [t("random_inputs")] if data.get("inputs") == "random" else []
    found += [t("on_cpu")] if data.get("device") == CPU else []
    return tuple(found)


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return values once each, in their order, without empty ones."""
    return list(dict.fromkeys(value for value in values if value))


def grouped(sentences: Iterable[tuple[str, Tone, str]], most: str) -> list[Line]:
    """Return sentences once each, with who they are about in front: at most NAMED names, or how many.

    Each entry is the sentence, its tone, and whom it is about; ``most`` words a number of them (``{count}``).
    """
    found: dict[tuple[str, Tone], list[str]] = {}
    for text, tone, name in sentences:
        found.setdefault((text, tone), []).append(name)
    lines = []
    for (text, tone), names in found.items():
        once = list(dict.fromkeys(names))
        lead = ", ".join(once) if len(once) <= NAMED else most.format(count=len(once))
        lines.append(Line(text=text, tone=tone, lead=f"{lead}:"))
    return lines


def worst(verdicts: Iterable[str]) -> str:
    """Return the worst of some verdicts; empty where there are none."""
    found = set(verdicts)
    return next((value for value in RANKS if value in found), "")
