"""What is wrong with a subject's engines and where, at the top of its section."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.report import verdicts
from harness.report.facts import Json, bisected_result, bisection_verdict
from harness.report.html.parts import Code, Group, Line, Lines, Part, Tone, distinct, warnings
from harness.report.text import commands_of, diagnosis_lines
from harness.report.words import Words

MOST_CULPRITS = 32
_EXPONENT = re.compile(r"(?<=\de)-(?=\d)")
"""Where a browser would break ``4.1e-5``."""
_PLAIN: Tone = ""


def diagnosis_groups(results: Sequence[Json], bisections: Sequence[Json], id: str, t: Words) -> list[Group]:
    """Return one group with the first lines on every engine that is wrong, and what to type next; none without one."""
    parts: list[Part] = []
    labels: list[str] = []
    for result, found in explained(results, bisections):
        lines = diagnosis_lines(result, found, t, most=MOST_CULPRITS)
        shown = [(_EXPONENT.sub("\N{NON-BREAKING HYPHEN}", line.text), line.label) for line in lines if line.text]
        tones: list[Tone] = ["bad", *[_PLAIN] * len(shown)]
        rows = zip(shown, tones, strict=False)
        items = tuple(Line(text=text, tone=tone, lead=label and f"{label}:") for (text, label), tone in rows)
        parts.append(Lines(items=items))
        commands = commands_of(result, found)
        parts += [Code(label=t("next"), text="\n".join(commands))] if commands else []
        labels += warnings(result["provenance"] or {}, t) if result["provenance"] else ()
    return [Group(id=id, heading=t("diagnosis"), parts=tuple(parts), labels=tuple(distinct(labels)))] if parts else []


def explained(results: Sequence[Json], bisections: Sequence[Json]) -> list[tuple[Json, Json | None]]:
    """Return the engines that the first lines are about, each with its bisection: those that fail and were looked into.

    Of an engine that was bisected and has no verdict of its own, the bisection holds it.
    """
    newest = verdicts.by_engine(bisections)
    pairs = [(r, verdicts.bisection_of(r, newest)) for r in results if r["verdict"] == "fail"]
    pairs = [(result, found) for result, found in pairs if found or result["layers"]]
    known = {id(found) for _, found in pairs}
    alone = [one for one in bisections if bisection_verdict(one) == "fail" and id(one) not in known]
    alone = [one for one in alone if verdicts.bisection_of(one, newest) is one]
    return [*pairs, *((bisected_result(found), found) for found in alone)]
