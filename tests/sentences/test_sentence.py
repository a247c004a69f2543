# ruff: noqa: RUF001 - Chinese punctuation is full-width
from __future__ import annotations

import ast
import copy
import json
import pickle
import string
from pathlib import Path

import pytest

import harness
from harness.report.words import SENTENCES as LANGUAGES
from harness.sentences import (
    ENGLISH,
    JOINED,
    SENTENCES,
    Language,
    Sentence,
    in_language,
    joined,
    localised,
    with_sentences,
    writable,
)

ZH = LANGUAGES["zh"]


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def constructions() -> list[tuple[str, str, set[str] | None]]:
    """Return where every sentence in harness/ is made, its code, and the names of its arguments, if these are plain."""
    found = []
    for path in sorted(Path(harness.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Sentence":
                where = f"{path.name}:{node.lineno}"
                code = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
                names = {keyword.arg for keyword in node.keywords}
                found.append((where, code, None if None in names else names))
    return found


def test_every_sentence_that_is_made_has_its_words():
    made = [one for one in constructions() if not one[0].startswith(("table.py", "sentence.py"))]
    assert made
    wrong = [one for one in made if one[1] not in ENGLISH.templates]
    wrong += [
        (where, code, names ^ fields(ENGLISH.templates[code]))
        for where, code, names in made
        if names is not None and code in ENGLISH.templates and names != fields(ENGLISH.templates[code])
    ]
    assert not wrong


def test_no_sentence_is_kept_that_nothing_makes():
    assert not set(ENGLISH.templates) - {code for _, code, _ in constructions()} - set(JOINED.values())


def test_both_languages_say_the_same():
    assert ENGLISH.templates.keys() == ZH.templates.keys()
    differ = [code for code, text in ENGLISH.templates.items() if fields(text) != fields(ZH.templates[code])]
    assert not differ


def test_a_sentence_is_its_english_text():
    made = Sentence("decisions_differ", differ=1, elements=64)
    assert made == "1 of 64 differs"
    assert str(ValueError(made)) is made
    assert in_language(made, ZH) == "64 个中 1 个不同"
    assert in_language("as somebody else said it", ZH) == "as somebody else said it"


def test_parts_keep_what_they_are_made_of():
    tie, counted = Sentence("decisions_tie"), Sentence("decisions_differ", differ=1, elements=2)
    assert counted + tie == "1 of 2 differs, a tie"
    assert in_language(counted + tie, ZH) == "2 个中 1 个不同，为并列"
    assert in_language("y: " + counted, ZH) == "y: 2 个中 1 个不同"
    assert joined(["", counted]) is counted
    assert in_language(joined([counted, "quoted"]), ZH) == "2 个中 1 个不同；quoted"
    assert type(joined(["a", "b"])) is str
    for between in JOINED:
        assert joined([counted, tie], between) == f"{counted}{between}{tie}"
    assert joined([]) == ""


def test_what_is_unknown_is_an_error_where_it_is_made():
    with pytest.raises(KeyError):
        Sentence("no such code")
    with pytest.raises(KeyError):
        Sentence("decisions_differ", differ=1)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_is_a_sentence(again):
    made = Sentence("of", name="y", reason=Sentence("no_floor"))
    copied = again(made)
    assert copied == made
    assert in_language(copied, ZH) == in_language(made, ZH)


def test_json_holds_the_text_and_what_it_is_made_of():
    reason = Sentence("of", name="y", reason=Sentence("error_loses", relative_l2=float("nan"), loses="1", limit=""))
    data = writable({"results": [{"reason": reason, "notes": [reason, "plain"], "error": 0.5}]})
    text = json.dumps(data, allow_nan=False)
    assert type(data["results"][0]["reason"]) is str
    assert data[SENTENCES][reason]["arguments"]["reason"]["code"] == "error_loses"
    read = with_sentences(json.loads(text))
    assert read == {"results": [{"reason": reason, "notes": [reason, "plain"], "error": 0.5}]}
    assert in_language(read["results"][0]["reason"], ZH) == in_language(reason, ZH)


def test_json_without_sentences_is_as_it_is():
    data = {"results": [{"reason": "as an earlier version wrote it"}]}
    assert writable(data) == data
    assert with_sentences(data) == data


@pytest.mark.parametrize(
    "entry",
    [
        {"code": "no such code", "arguments": {}},
        {"code": "no_floor", "arguments": {}},
        {"code": "of", "arguments": {"name": "y"}},
        {"code": "of"},
        {"code": "joined", "arguments": {"parts": 3}},
        None,
        "of",
    ],
)
def test_a_table_that_does_not_give_the_text_changes_nothing(entry):
    assert with_sentences({"reason": "another text", SENTENCES: {"another text": entry}}) == {"reason": "another text"}


def test_a_table_that_somebody_made_costs_nothing():
    entry: dict[str, object] = {"code": "in_turns", "arguments": {"than": "", "figures": "", "processes": 1}}
    for _ in range(300):
        entry = {"code": "in_turns", "arguments": {"than": "", "figures": "", "processes": entry}}
    huge = {"code": "loses", "arguments": {"error": 10**400}}
    assert with_sentences({"reason": "x", SENTENCES: {"x": entry, "y": huge}}) == {"reason": "x"}


def test_a_long_sum_is_no_deep_one():
    text = Sentence("no_floor")
    for _ in range(50):
        text += Sentence("decisions_tie")
    (read,) = with_sentences(writable({"notes": [text]}))["notes"]
    assert in_language(read, ZH) == in_language(text, ZH)


def test_data_in_a_language():
    language = Language({"no_floor": "rien", "joined": "{parts:; }"}, {"; ": " ; "})
    data = {"reason": Sentence("no_floor"), "notes": (Sentence("joined", parts=["a", Sentence("no_floor")]),), "n": 1}
    assert localised(data, language) == {"reason": "rien", "notes": ("a ; rien",), "n": 1}
