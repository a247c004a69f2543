"""From a key to its words in one language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from harness.records import Records
from harness.report.words import en, sentences_zh, zh
from harness.sentences import ENGLISH, in_language, localised
from harness.sentences import Language as Templates
from harness.subject import PLAIN_PRECISIONS

Language = Literal["en", "zh"]
LANGUAGES: Mapping[Language, Mapping[str, str]] = {"en": en.WORDS, "zh": zh.WORDS}
"""Languages and their words by key."""
SENTENCES: Mapping[Language, Templates] = {
    "en": ENGLISH, "zh": Templates(sentences_zh.SENTENCES, sentences_zh.SEPARATORS),
}  # fmt: skip
"""How each renders what is recorded as a code."""


@dataclass(frozen=True)
class Words:
    """The words in one language."""

    lang: Language

    def records(self, found: Records) -> Records:
        """Return records with every sentence in this language."""
        if self.lang == "en":
            return found
        documents = tuple(
            replace(
                document, **localised({f.name: getattr(document, f.name) for f in fields(document)}, self._templates)
            )
            for document in found.documents
        )
        broken, foreign = (localised(files, self._templates) for files in (found.broken, found.foreign))
        return replace(found, documents=documents, broken=broken, foreign=foreign)

    def sentence(self, text: str) -> str:
        """Return a text in this language, where it is a sentence with a code."""
        return in_language(text, self._templates)

    def source(self, label: str) -> str:
        """Return ``trained``, ``random``, ``real`` or ``file`` in this language, any other label as it is."""
        return LANGUAGES[self.lang].get(f"source_{label}", label)

    @property
    def _templates(self) -> Templates:
        return SENTENCES[self.lang]

    def floor(self, precisions: Iterable[str]) -> str:
        """Return what a floor is, with the precision where all figures have the same: PyTorch's own fp16 error."""
        known = set(precisions)
        plain = len(known) == 1 and known <= set(PLAIN_PRECISIONS)
        return self("term_floor_of", precision=known.pop()) if plain else self("term_floor")

    def decisions(self, outputs: Iterable[Mapping[str, Any]]) -> str:
        """Return how many indices, labels or codes of outputs differ and how many of these are ties; "" for floats."""
        found = [output["decisions"] for output in outputs if output.get("decisions")]
        counts = {key: sum(one[key] for one in found) for key in ("elements", "differ", "ties")}
        if not found:
            return ""
        return self("decisions_differ", **counts) if counts["differ"] else self("decisions_equal", **counts)

    def floor_decisions(self, output: Mapping[str, Any]) -> str:
        """Return how many PyTorch decides differently in the engine's precision; empty where that is not known."""
        differ = (output.get("decisions") or {}).get("floor_differ")
        return "" if differ is None else self("decisions_floor", differ=differ)

    def __call__(self, key: str, /, **values: Any) -> str:
        """Return the words of a key, with its fields filled in where ``values`` are given."""
        words = LANGUAGES[self.lang][key]
        return words.format(**values) if values else words
