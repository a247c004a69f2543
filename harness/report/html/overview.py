"""The top of the page: the verdict on everything, cards, where it is from, and every verdict, the worst first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from harness.records import Records
from harness.report import verdicts
from harness.report.facts import Json, beyond, session_latency, short_commit, worst_output
from harness.report.html.cards import Card, cards
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
    bar,
    columns,
    distinct,
    verdict,
    word,
)
from harness.report.text import worst_error
from harness.report.verdicts import RANKS
from harness.report.words import Words

NAMED = 3
"""Commits and commands at the top; the end of the page has all."""


@dataclass(frozen=True, kw_only=True)
class Item(verdicts.Judged):
    """One verdict with its figure and its place in the page."""

    figure: str
    """What it was judged by, in words."""
    href: str
    of_limit: float | None = None
    """How many times its limit it is; infinite where it is not finite, None where it has no limit."""

    @classmethod
    def of(
        cls, judged: verdicts.Judged, figure: str, href: str, *, label: str = "", of_limit: float | None = None
    ) -> Self:
        """Return a verdict as an item; ``label`` stands in front of its reason."""
        reason = ": ".join(filter(None, (label, judged.reason)))
        return cls(**{**vars(judged), "reason": reason}, figure=figure, href=href, of_limit=of_limit)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The top of the page."""

    tone: str
    """``good`` only when there are verdicts, all passed, and nothing is missing."""
    headline: str
    cards: tuple[Card, ...]
    section: Section


def overview(
    items: Sequence[Item],
    records: Records,
    labels: tuple[str, ...],
    t: Words,
    *,
    warnings: Sequence[str] = (),
) -> Overview:
    """Return the verdict on everything, with files that could not be used and runs that were cut short.

    ``warnings`` are said beside it and change nothing.
    """
    problems = list(map(t.sentence, verdicts.problems(records)))
    ordered = sorted(items, key=lambda item: (RANKS.index(item.verdict), -(item.of_limit or 0.0)))
    counts = Counter(item.verdict for item in items)
    parts: list[Part] = _origin(records, t)
    lines = [Line(text=problem, tone="warn", lead=t("problem")) for problem in problems]
    lines += [Line(text=sentence, tone="warn", lead=t("warning")) for sentence in warnings]
    parts += [Lines(items=tuple(lines))] if lines else []
    open_items, passed = ([one for one in ordered if (one.verdict == "pass") == ok] for ok in (False, True))
    if open_items:
        parts.append(_table(open_items, "overview-open", t("open_verdicts", count=len(open_items)), labels, t))
    if passed:
        table = _table(passed, "overview-passed", t("passed_verdicts", count=len(passed)), labels, t)
        parts.append(Details(summary=table.caption, parts=(table,), open=not (lines or open_items)))
    green = items and counts["pass"] == len(items) and not problems
    tone = "bad" if counts["fail"] else "good" if green else "warn"
    group = Group(id="overview-verdicts", heading="", parts=tuple(parts), labels=labels)
    section = Section(id="overview", heading=t("overview"), groups=(group,))
    return Overview(tone=tone, headline=_headline(items, problems, t), cards=cards(records, t), section=section)


def _origin(records: Records, t: Words) -> list[Part]:
    """Return when, of which commit and by which command it was recorded; the end of the page has all of it."""
    dates = sorted(doc.recorded_at for doc in records.documents if doc.recorded_at)
    shown = " - ".join(dict.fromkeys(date[:16].replace("T", " ") for date in (dates[:1] + dates[-1:])))
    commits = ", ".join(map(short_commit, records.commits[:NAMED]))
    rows = (
        (t("recorded"), f"{shown} UTC" if shown else t("not_recorded")),
        (t("commit"), commits or t("not_recorded")),
    )
    commands = records.commands
    if not commands:
        return [Facts(rows=rows)]
    more = f" ({t('first_of', shown=NAMED, count=len(commands))})" if len(commands) > NAMED else ""
    return [Facts(rows=rows), Code(label=t("commands") + more, text="\n".join(commands[:NAMED]))]


def result_items(result: Json, bisections: verdicts.Bisections, href: str, t: Words) -> list[Item]:
    """Return the verdict on an engine's outputs, with the error furthest above its floor, and that on its cost."""
    shown = {"accuracy": result["outputs"], "cost": (result["cost"] or result)["outputs"]}
    return [
        Item.of(one, _furthest(shown[one.kind], t), href, of_limit=_of_limit({**result, "outputs": shown[one.kind]}))
        for one in verdicts.result_items(result, bisections, t)
    ]


def _of_limit(result: Json) -> float | None:
    """Return how many times its limit the worst output is; None where none has figures and a limit."""
    output = worst_output(result)
    if output is None or output["decisions"] or "relative_l2" not in output:
        return None
    if output["mismatched_nonfinite"] or output["relative_l2"] is None:
        return math.inf
    times, part = beyond(output)
    return times if part else None


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
    held = verdicts.held(items)
    counts = Counter(item.verdict for item in held)
    worst = next((verdict for verdict in ("fail", "not_judged") if counts[verdict]), "")
    key = worst or ("problems" if problems else "known" if counts["known"] else "pass")
    numbers = {"fail": counts["fail"], "not_judged": counts["not_judged"], "passed": counts["pass"]}
    headline = t(f"headline_{key}", count=len(held), problems=len(problems), known=counts["known"], **numbers)
    headline += t("headline_and_known", known=counts["known"]) if counts["known"] and key != "known" else ""
    return headline + (t("headline_and_unheld", unheld=len(items) - len(held)) if len(held) < len(items) else "")


def _table(items: Sequence[Item], id: str, caption: str, labels: tuple[str, ...], t: Words) -> Table:
    """Return one row per verdict in their order; an engine that was judged and bisected alike has one row."""
    found: dict[tuple[str, str, str], list[Item]] = {}
    for item in items:
        found.setdefault((item.verdict, item.name, item.reason), []).append(item)
    rows = []
    for same in found.values():
        item = same[0]
        kinds = ", ".join(distinct(t("kind_of_" + one.kind) for one in same))
        limit = next((one.of_limit for one in same if one.of_limit is not None), None)
        text = "" if limit is None else f"{limit:.3g}x" if math.isfinite(limit) else "NaN/Inf"
        judged = verdict(item.verdict, t)
        cells = (
            judged._replace(text=t("latency_no_baseline")) if item.lacks_baseline else judged,
            Cell(text=item.name, href=item.href), bar(limit, text, TONES[item.verdict]),
            word(item.figure), word(kinds), word(item.reason),
        )  # fmt: skip
        rows.append(Row(cells=cells, mark=item.verdict))
    return Table(
        id=id,
        caption=caption,
        columns=columns(t, "verdict", "what", "of_limit", "figure", "judged", "reason", figure="word"),
        rows=tuple(rows),
        filters=len(rows) > 8,
        marks=tuple((v, t("verdict_" + v)) for v in RANKS if any(item.verdict == v for item in items)),
        labels=labels,
    )
