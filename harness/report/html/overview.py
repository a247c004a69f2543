"""The top of the page: the verdict on everything, how many of which kind, and what did not pass, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from harness.report import verdicts
from harness.report.facts import Json, session_latency
from harness.report.html.parts import (
    RANKS,
    TONES,
    Cell,
    Details,
    Group,
    Line,
    Lines,
    Part,
    Row,
    Section,
    Table,
    columns,
    number,
    verdict,
    word,
)
from harness.report.text import worst_error
from harness.report.words import Words

NAMED = 4
"""Verdicts that one line names; the table has all."""


@dataclass(frozen=True, kw_only=True)
class Item(verdicts.Judged):
    """One verdict with its figure and its place in the page."""

    figure: str
    """What it was judged by, in words."""
    href: str

    @classmethod
    def of(cls, judged: verdicts.Judged, figure: str, href: str, *, label: str = "") -> Self:
        """Return a verdict as an item; ``label`` stands in front of its reason."""
        reason = ": ".join(filter(None, (label, judged.reason)))
        return cls(**{**vars(judged), "reason": reason}, figure=figure, href=href)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The top of the page."""

    tone: str
    """``good`` only when there are verdicts, all passed, and nothing is missing."""
    headline: str
    section: Section


def overview(
    items: Sequence[Item], problems: Sequence[str], labels: tuple[str, ...], t: Words, *, warnings: Sequence[str] = ()
) -> Overview:
    """Return the verdict on everything; ``problems`` are files that could not be used and runs that were cut short.

    ``warnings`` are said beside it and change nothing.
    """
    ordered = sorted(items, key=lambda item: RANKS.index(item.verdict))
    counts = Counter(item.verdict for item in items)
    parts: list[Part] = [_counts(items, t)] if items else []
    lines = _attention([item for item in ordered if item.verdict != "pass"], t)
    lines += [Line(text=problem, tone="warn", lead=t("problem")) for problem in problems]
    lines += [Line(text=sentence, tone="warn", lead=t("warning")) for sentence in warnings]
    if lines:
        parts.append(Lines(items=tuple(lines)))
    if items:
        table = _all(ordered, labels, t)
        parts.append(Details(summary=table.caption, parts=(table,), open=not lines))
    green = items and counts["pass"] == len(items) and not problems
    tone = "bad" if counts["fail"] else "good" if green else "warn"
    group = Group(id="overview-verdicts", heading="", parts=tuple(parts), labels=labels)
    section = Section(id="overview", heading=t("overview"), groups=(group,))
    return Overview(tone=tone, headline=_headline(items, problems, t), section=section)


def result_items(result: Json, bisections: verdicts.Bisections, href: str, t: Words) -> list[Item]:
    """Return the verdict on an engine's outputs, with the error furthest above its floor, and that on its cost."""
    shown = {"accuracy": result["outputs"], "cost": (result["cost"] or result)["outputs"]}
    return [Item.of(one, _furthest(shown[one.kind], t), href) for one in verdicts.result_items(result, bisections, t)]


def _furthest(outputs: Sequence[Json], t: Words) -> str:
    """Return the error furthest above its floor, and how many times the floor it is.

    The largest error where no floor is known, or where one is not finite.
    """
    known = [output for output in outputs if "relative_l2" in output]
    finite = all(output["relative_l2"] is not None and not output.get("mismatched_nonfinite") for output in known)
    floors = [(output["floor"] or {}).get("relative_l2") for output in known]
    if not finite or not any(floors):
        return worst_error(known or outputs, t)
    pairs = zip(known, floors, strict=True)
    times, error = max((output["relative_l2"] / floor, output["relative_l2"]) for output, floor in pairs if floor)
    return f"{error:.3g}, {times:.3g}x"


def latency_item(measured: Json, href: str, t: Words) -> Item:
    """Return the verdict on a latency."""
    time = session_latency(measured["session"])
    figure = f"{time[0]:.4g} ms" if time else ""
    return Item.of(
        verdicts.latency_item(measured), figure, href, label=t(f"latency_{measured['comparison']['verdict']}")
    )


def variant_item(study: Json, variant: Json, href: str) -> Item:
    """Return the verdict on one variant of a study."""
    figure = "" if variant["latency_ms"] is None else f"{variant['latency_ms']:.4g} ms"
    return Item.of(verdicts.variant_item(study, variant), figure, href)


def score_item(score: Json, href: str) -> Item:
    """Return the verdict on an entrant's folder."""
    figure = "" if score["pd_max"] is None else f"PD {score['pd_max']:.4g}"
    return Item.of(verdicts.score_item(score), figure, href)


def _headline(items: Sequence[Item], problems: Sequence[str], t: Words) -> str:
    """Return the verdict on everything; a latency without a baseline is counted apart from what was not judged."""
    if not items:
        return t("headline_nothing")
    held = [item for item in items if not item.lacks_baseline] or items
    counts = Counter(item.verdict for item in held)
    worst = next((verdict for verdict in ("fail", "not_judged") if counts[verdict]), "")
    key = worst or ("problems" if problems else "known" if counts["known"] else "pass")
    numbers = {"fail": counts["fail"], "not_judged": counts["not_judged"], "passed": counts["pass"]}
    headline = t(f"headline_{key}", count=len(held), problems=len(problems), known=counts["known"], **numbers)
    headline += t("headline_and_known", known=counts["known"]) if counts["known"] and key != "known" else ""
    return headline + (t("headline_and_unheld", unheld=len(items) - len(held)) if len(held) < len(items) else "")


def _counts(items: Sequence[Item], t: Words) -> Table:
    rows = []
    shown = [rank for rank in RANKS if rank != "known" or any(item.verdict == rank for item in items)]
    for kind in verdicts.KINDS:
        counts = Counter(item.verdict for item in items if item.kind == kind)
        if counts:
            cells = [number(counts[v], "d", tone=TONES[v] if counts[v] else "muted") for v in shown]
            rows.append(Row(cells=(word(t("kind_of_" + kind)), *cells)))
    shape = columns(t, "judged", *(f"verdict_{value}" for value in shown))
    return Table(id="overview-counts", caption=t("counts_caption"), columns=shape, rows=tuple(rows))


def _attention(items: Sequence[Item], t: Words) -> list[Line]:
    """Return what did not pass, the worst first; what shares a reason is one line.

    An engine is named once, though it was judged and bisected.
    """
    found: dict[tuple[str, str], dict[str, Item]] = {}
    for item in items:
        found.setdefault((item.verdict, item.reason), {}).setdefault(item.name, item)
    return [
        Line(
            text=why,
            tone=TONES[value],
            lead=t("verdict_" + value),
            links=tuple((item.href, name) for name, item in list(same.items())[:NAMED]),
            more=t("and_more", count=len(same) - NAMED) if len(same) > NAMED else "",
        )
        for (value, why), same in found.items()
    ]


def _all(items: Sequence[Item], labels: tuple[str, ...], t: Words) -> Table:
    rows = []
    for item in items:
        name = Cell(text=item.name, href=item.href)
        cells = (verdict(item.verdict, t), word(t("kind_of_" + item.kind)), name, word(item.figure), word(item.reason))
        rows.append(Row(cells=cells, mark=item.verdict))
    return Table(
        id="overview-all",
        caption=t("all_verdicts", count=len(rows)),
        columns=columns(t, "verdict", "judged", "what", "figure", "reason", figure="word"),
        rows=tuple(rows),
        filters=len(rows) > 8,
        marks=tuple((v, t("verdict_" + v)) for v in RANKS if any(item.verdict == v for item in items)),
        labels=labels,
    )
