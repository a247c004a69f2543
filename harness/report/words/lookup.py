"""From a key to its words in one language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.report.words import en, zh

Language = Literal["en", "zh"]
LANGUAGES: Mapping[Language, Mapping[str, str]] = {"en": en.WORDS, "zh": zh.WORDS}
"""Languages and their words by key."""


@dataclass(frozen=True)
class Words:
    """The words in one language."""

    lang: Language

    def __call__(self, key: str, /, **values: Any) -> str:
        """Return the words of a key, with its fields filled in where ``values`` are given."""
        words = LANGUAGES[self.lang][key]
        return words.format(**values) if values else words
