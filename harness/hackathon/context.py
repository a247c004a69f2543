"""What every generated part of a hackathon report is made from, and the phrases that several of them share."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.hackathon.figures import Figure, Key
from harness.records import Json, Records
from harness.report import code, escape, image, verdict_cell
from harness.report.words import Words

MISSING = "<!-- parity:missing {name} -->"
"""Before a sentence that says what the report lacks; ``parity report --check`` finds it."""
BOUNDS = {"difference": "±", "at_most": "≤", "at_least": "≥"}
"""How a metric's limit is meant."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """The records and the language of one report."""

    records: Records
    """In the language of the report."""
    recorded: Records
    """The same as recorded, in English: what is sent to others is made of it."""
    words: Words
    template: str
    """``2022`` or ``2023``."""
    figures: Mapping[Key, tuple[Figure, ...]] = field(default_factory=dict)
    """As ``draw`` returns them."""
    wenet: Mapping[str, str] = field(default_factory=dict)
    """Subjects by their role in the WeNet table."""

    def line(self, *parts: str) -> str:
        """Return phrases with the language's colon between."""
        return self.words("colon").join(parts)

    def listed(self, values: Iterable[str]) -> str:
        """Return different values with the language's comma between."""
        return distinct(values, self.words("list_comma"))

    def contestant(self, name: str) -> str:
        """Return ``PyTorch FP32`` of ``eager fp32``; the name of an engine as code."""
        how, _, precision = name.partition(" ")
        if not precision:
            return code(name)
        return self.words("with_compile" if how == "compile" else "with_pytorch", precision=escape(precision.upper()))

    def heads(self, *names: str) -> list[str]:
        """Return the heads of columns."""
        return list(map(self.words, names))

    def verdict(self, verdict: str) -> str:
        """Return the word of a verdict, a failure in bold; ``reference`` counts as one."""
        return verdict_cell(self.words, verdict)

    def missing(self, key: str, **values: str) -> list[str]:
        """Return a paragraph that says what is missing and what to do."""
        lead, words = self.words("readme_missing"), self.words(f"missing_{key}", **values)
        return paragraphs([f"{MISSING.format(name=key)}{lead}{words}"])

    def images(self, *key: str) -> list[str]:
        """Return the figures of one key; one that could not be made is said to be missing."""
        lines = []
        for figure in self.figures.get(key, ()):
            if figure.path:
                lines += [image(figure.title, figure.path), ""]
            else:
                lines += self.missing("figure", name=escape(figure.title), why=escape(figure.why))
        return lines


def paragraphs(*blocks: Sequence[str]) -> list[str]:
    """Return blocks of lines with an empty line behind each; a block without lines is left out."""
    return [line for block in blocks if block for line in (*block, "")]


def folded(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines that are shown on a click on the title, which is Markdown; nothing where there are none."""
    shown = list(lines)
    while shown and not shown[-1]:
        shown.pop()
    return [f"<details><summary>{_html(title)}</summary>", "", *shown, "", "</details>", ""] if shown else []


def _html(markdown: str) -> str:
    """Return text with code spans and backslash escapes as HTML: within a tag GitHub reads no Markdown."""

    def replaced(found: re.Match[str]) -> str:
        return html.escape(found[1]) if found[1] else f"<code>{html.escape(found[2])}</code>"

    return re.sub(r"\\(.)|`([^`]*)`", replaced, markdown)


def informative(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows without the columns that hold nothing but dashes."""
    kept = [i for i in range(len(headings)) if any(row[i] != "-" for row in rows)]
    return [headings[i] for i in kept], [[row[i] for i in kept] for row in rows]


def distinct(values: Iterable[str], comma: str = ", ") -> str:
    """Return different values with commas between, as they first occur."""
    return comma.join(dict.fromkeys(value for value in values if value))


def origin(words: Words, sources: Iterable[Json]) -> dict[str, str]:
    """Return ``weights``, ``inputs`` and ``device`` of what gave figures, in words."""
    found = list(sources)
    return {
        key: distinct((source_word(words, one.get(key, "")) for one in found), words("list_comma"))
        or words("not_recorded")
        for key in ("weights", "inputs", "device")
    }


def source_word(words: Words, label: str) -> str:
    """Return ``trained``, ``random``, ``real``, ``file`` in the report's language, and a device's name as it is."""
    if not label:
        return words("not_recorded")
    return escape(words.source(label))
