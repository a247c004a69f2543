"""What every generated part of a hackathon report is made from, and the phrases that several of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.hackathon.figures import Figure, Key
from harness.records import Json, Records
from harness.report import escape, image, verdict_cell
from harness.report.words import Words

MISSING = "<!-- parity:missing {name} -->"
"""Before a sentence that says what the report lacks; ``parity report --check`` finds it."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """The records and the language of one report."""

    records: Records
    words: Words
    template: str
    """``2022`` or ``2023``."""
    figures: Mapping[Key, tuple[Figure, ...]] = field(default_factory=dict)
    """As ``draw`` returns them."""
    wenet: Mapping[str, str] = field(default_factory=dict)
    """Subjects by their role in the WeNet table."""

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


def distinct(values: Iterable[str]) -> str:
    """Return different values with commas between, as they first occur."""
    return ", ".join(dict.fromkeys(value for value in values if value))


def origin(words: Words, sources: Iterable[Json]) -> dict[str, str]:
    """Return ``weights``, ``inputs`` and ``device`` of what gave figures, in words."""
    found = list(sources)
    return {
        key: words("list_comma").join(dict.fromkeys(source_word(words, one.get(key, "")) for one in found))
        or words("not_recorded")
        for key in ("weights", "inputs", "device")
    }


def source_word(words: Words, label: str) -> str:
    """Return ``trained``, ``random``, ``real``, ``file`` in the report's language, and a device's name as it is."""
    if not label:
        return words("not_recorded")
    return words(f"source_{label}") if label in ("trained", "random", "real", "file") else escape(label)
