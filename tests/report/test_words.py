"""The words of the page and the README: the same keys in every language, each of them used."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from string import Formatter

import pytest

import harness
from harness.report.words import LANGUAGES, Words

ENGLISH = LANGUAGES["en"]
SHOWN = [
    path
    for path in sorted(Path(harness.__file__).parent.rglob("*.*"))
    if path.suffix in (".py", ".js", ".j2") and path.parent.name != "words"
]
SOURCE = "".join(path.read_text(encoding="utf-8") for path in SHOWN)
_BEGINS = r"""\b(?:t|words)\(f?["'](\w+_)(?:["'] [+~]|\{)|`(\w+_)\$"""
FAMILIES = tuple({one or other for one, other in re.findall(_BEGINS, SOURCE)})
"""How keys begin of which the rest is data: a verdict, a mark."""


def fields(words: str) -> Counter[str]:
    return Counter(name for _, name, _, _ in Formatter().parse(words) if name is not None)


@pytest.mark.parametrize("lang", sorted(LANGUAGES))
def test_every_language_has_the_same_keys_and_fields(lang: str):
    words = LANGUAGES[lang]  # type: ignore[index]
    assert list(words) == list(ENGLISH)
    assert {key for key in words if not words[key] or fields(words[key]) != fields(ENGLISH[key])} == set()


def test_every_key_is_used():
    named = set(re.findall(r"""["']([\w-]+)["']""", SOURCE)) | set(re.findall(r"\bwords\.(\w+)", SOURCE))
    named |= {"term_floor_of", "decisions_equal", "decisions_differ", "decisions_floor"}  # methods of Words have them
    named |= {key for key in ENGLISH if key.startswith("source_")}
    assert {key for key in ENGLISH if key not in named and not key.startswith(FAMILIES)} == set()


def test_equal_words_have_one_key():
    keys: dict[tuple[str, ...], list[str]] = {}
    for key in ENGLISH:
        if not key.startswith(FAMILIES):
            keys.setdefault(tuple(words[key] for words in LANGUAGES.values()), []).append(key)
    assert [names for names in keys.values() if len(names) > 1] == []


def test_values_fill_the_fields():
    assert Words("en")("rows_shown", shown=1, total=2) == "1 of 2 rows"
    assert Words("zh")("rows_shown") == LANGUAGES["zh"]["rows_shown"]
    with pytest.raises(KeyError):
        Words("en")("no such key")
