"""Sentences in JSON: the text stands where it is read, and one table says what each is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.sentences.sentence import Language, Sentence, in_language

SENTENCES = "sentences"
"""The key of the table: by its text, the code and the arguments of each sentence."""


MOST_DEPTH = 16
"""Sentences within sentences that are read: a file that somebody made may not keep a report busy for ever."""


def writable(data: Any) -> Any:
    """Return JSON data with plain text for sentences, and the table of these beside it, if there are any."""
    table: dict[str, Any] = {}
    plain = _mapped(data, lambda text: _noted(text, table))
    return {**plain, SENTENCES: table} if table and isinstance(plain, dict) else plain


def with_sentences(data: Any) -> Any:
    """Return JSON data that was written so with its sentences, without the table.

    A text that its code no longer gives, or that no version here wrote, stays the text that it is.
    """
    table = data.get(SENTENCES) if isinstance(data, dict) else None
    if not isinstance(table, Mapping):
        return data
    known = {text: sentence for text, entry in table.items() if (sentence := _read(entry)) == text}
    return _mapped({key: value for key, value in data.items() if key != SENTENCES}, lambda text: known.get(text, text))


def localised(data: Any, language: Language) -> Any:
    """Return data with every sentence in a language."""
    return _mapped(data, lambda text: in_language(text, language))


def _mapped(data: Any, change: Any) -> Any:
    if isinstance(data, str):
        return change(data)
    if isinstance(data, dict):
        return {key: _mapped(value, change) for key, value in data.items()}
    if isinstance(data, list):
        return [_mapped(value, change) for value in data]
    return tuple(_mapped(value, change) for value in data) if type(data) is tuple else data


def _noted(text: str, table: dict[str, Any]) -> str:
    if not isinstance(text, Sentence):
        return text
    plain = str.__str__(text)
    if plain not in table:
        table[plain] = _entry(text)
    return plain


def _entry(value: Any) -> Any:
    if isinstance(value, Sentence):
        return {"code": value.code, "arguments": {name: _entry(one) for name, one in value.arguments.items()}}
    return [_entry(one) for one in value] if isinstance(value, list) else value


def _read(entry: Any, depth: int = MOST_DEPTH) -> Any:
    """Return the sentence of an entry, or a value inside one; None for what is no sentence of this version."""
    if isinstance(entry, list):
        return [_read(one, depth) for one in entry]
    if not isinstance(entry, Mapping):
        return entry
    try:
        inside = {name: _read(one, depth - 1) for name, one in entry["arguments"].items()} if depth else {}
        return Sentence(entry["code"], **inside)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError):
        return None
