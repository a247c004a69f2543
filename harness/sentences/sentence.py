"""A sentence that knows what it is made of."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.sentences import en


@dataclass(frozen=True)
class Language:
    """The templates of one language, by code, and what it puts between the entries of a list."""

    templates: Mapping[str, str]
    separators: Mapping[str, str] = field(default_factory=dict)
    """By the English one, such as ``, ``; one that is not there is as in English."""

    def render(self, code: str, arguments: Mapping[str, Any]) -> str:
        """Return a sentence. Raises KeyError for a code or an argument that is not known."""
        return _Formatter(self).vformat(self.templates[code], (), arguments)


class _Formatter(string.Formatter):
    """``{names:, }`` of a list is its entries with that between them, ``{count:is|are}`` the first for 1; a figure that
    is not finite is kept as text."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        if "|" in format_spec:
            one, _, many = format_spec.partition("|")
            return one if value == 1 else many
        if isinstance(value, list) and format_spec:
            between = "" if format_spec == "none" else format_spec
            return self._language.separators.get(between, between).join(self.format_field(one, "") for one in value)
        if isinstance(value, Sentence):
            return self._language.render(value.code, value.arguments)
        try:
            return format(value, format_spec)
        except ValueError:
            return str(value)


ENGLISH = Language(en.SENTENCES)


class Sentence(str):
    """A sentence or a part of one: the English text, with the code and the arguments that it is rendered from.

    Where it becomes a part of a plain text, that text is all that is left of it: use another Sentence, ``joined`` or +.
    """

    code: str
    """A key of ``en.SENTENCES``."""
    arguments: dict[str, Any]
    """JSON data by the names in the template; sentences are among it."""

    def __new__(cls, code: str, /, **arguments: Any) -> Sentence:
        """Raises KeyError for a code or an argument that the template does not know."""
        kept = {name: _kept(value) for name, value in arguments.items()}
        self = super().__new__(cls, ENGLISH.render(code, kept))
        self.code, self.arguments = code, kept
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:  # for copy and pickle
        return (self.code,), self.arguments

    def __str__(self) -> str:
        return self  # so that str() of an error keeps it

    def __add__(self, other: str) -> Sentence:
        before = self.arguments["parts"] if self.code == "joined_close" else [self]
        return Sentence("joined_close", parts=[*before, other]) if other else self

    def __radd__(self, other: str) -> Sentence:
        return Sentence("joined_close", parts=[other, self]) if other else self


JOINED = {
    "": "joined_close", "; ": "joined", ": ": "joined_colon", ", ": "joined_comma", ", and ": "joined_and",
}  # fmt: skip
"""The codes of parts in one, by what is between them in English."""


def joined(parts: Iterable[str], between: str = "; ") -> str:
    """Return texts in one, without those that are empty; each language puts its own mark between them."""
    given = [part for part in parts if part]
    if not any(isinstance(part, Sentence) for part in given):
        return between.join(given)
    return given[0] if len(given) == 1 else Sentence(JOINED[between], parts=given)


def in_language(text: str, language: Language) -> str:
    """Return a text in a language; one that is no Sentence as it is."""
    return language.render(text.code, text.arguments) if isinstance(text, Sentence) else text


_PLAIN = (bool, int, type(None), Sentence)


def _kept(value: Any) -> Any:
    """Return an argument as JSON has it."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return [_kept(one) for one in value] if isinstance(value, list) else str(value)
