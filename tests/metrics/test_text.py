"""ROUGE and error rates: known values, Chinese, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import NotJudged, UsageError
from harness.metrics import networks
from harness.metrics.binding import Metric, measure
from harness.metrics.remarks import collect_remarks
from harness.metrics.speech import NORMALISER, cer, normalise, wer
from harness.metrics.text import ROUGE_KINDS, one_sentence_per_line, rouge, tokenize

REASON = "rouge-score and jiwer are not installed: pip install '.[text]'"

ENGLISH = [
    ("The quick brown fox jumps over the lazy dog.", "The quick brown dog jumps on the log."),
    ("A storm warning was issued.\nShips stay in port.", "Ships stay in port.\nA storm was expected, it's 3.5 m high!"),
    ("snake_case and UPPER-case", "Snake case and upper case"),
    ("nothing in common", ""),
]


def needs_text_packages() -> None:
    pytest.importorskip("rouge_score", reason=REASON)
    pytest.importorskip("jiwer", reason=REASON)


def test_tokens():
    assert tokenize("Hello, World_1!") == ["hello", "world", "1"]
    assert tokenize("用GPU加速 2.5 倍。") == ["用", "gpu", "加", "速", "2", "5", "倍"]
    assert tokenize("Café, cafe\u0301") == ["café", "café"]
    assert tokenize("ラーメン・すし") == ["ラ", "ー", "メ", "ン", "す", "し"]
    assert tokenize("Привет мир 한국어 텍스트") == ["привет", "мир", "한국어", "텍스트"]
    assert tokenize(" \n。、") == []


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\u0915\u093f", "\u0915\u0940"),  # Devanagari ki, kii
        ("\u0e19\u0e49\u0e33", "\u0e19\u0e33"),  # Thai water, to lead
        ("\u0643\u0650\u062a\u064e\u0627\u0628", "\u0643\u064f\u062a\u064f\u0628"),  # Arabic book, books
        ("C++ is fast", "C is fast"),
        ("written in C#", "written in C"),
        ("-5 degrees", "5 degrees"),
        ("x=-5", "x=5"),
        ("\u22125 degrees", "5 degrees"),
    ],
)
def test_what_changes_a_word_is_kept(left: str, right: str):
    assert tokenize(left) != tokenize(right)
    assert normalise(left) != normalise(right)
    needs_text_packages()
    assert float(rouge([right], [left])["rouge1"]) < 100
    assert wer([right], [left]) > 0
    assert cer([right], [left]) > 0


def test_words_with_marks_stay_whole():
    hindi = "\u092e\u0948\u0902 \u0918\u0930 \u091c\u093e\u0924\u093e \u0939\u0942\u0901"
    assert tokenize(hindi) == hindi.split() == normalise(hindi).split()
    # Persian, with and without the joiner; a zero-width space parts Thai words.
    assert tokenize("\u0645\u06cc\u200c\u0631\u0648\u0645") == tokenize("\u0645\u06cc\u0631\u0648\u0645")
    assert tokenize("\u0e19\u0e49\u0e33\u200b\u0e14\u0e35") == ["\u0e19\u0e49\u0e33", "\u0e14\u0e35"]


def test_signs_that_are_no_part_of_a_word():
    assert tokenize("1990-2000, GPT-4, a - 5, a+b, 5+, well-known") == (
        ["1990", "2000", "gpt", "4", "a", "5", "a", "b", "5", "well", "known"]
    )
    assert tokenize("C++, C# and C++11: -3 to (-5)") == ["c++", "c#", "and", "c++", "11", "-3", "to", "-5"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(max_codepoint=127, exclude_characters="+-#")))
def test_tokens_of_ascii_are_those_of_rouge_score(text: str):
    module = pytest.importorskip("rouge_score.tokenize", reason=REASON)
    assert tokenize(text) == module.tokenize(text, None)


@pytest.mark.parametrize(("actual", "expected"), ENGLISH)
def test_rouge_of_english_is_that_of_rouge_score(actual: str, expected: str):
    module = pytest.importorskip("rouge_score.rouge_scorer", reason=REASON)
    theirs = module.RougeScorer(list(ROUGE_KINDS)).score(expected, actual)
    ours = rouge([actual], [expected])
    assert {kind: float(value) for kind, value in ours.items()} == {
        kind: 100 * theirs[kind].fmeasure for kind in ROUGE_KINDS
    }


def test_rouge_by_hand():
    needs_text_packages()
    # Three of four words, in order; of the bigrams only "the cat" is on both sides.
    scores = rouge(["the cat sat down"], ["the cat lay down"])
    assert float(scores["rouge1"]) == pytest.approx(75)
    assert float(scores["rouge2"]) == pytest.approx(100 / 3)
    assert float(scores["rougeL"]) == pytest.approx(75)
    # Precision 2/4, recall 2/2.
    assert float(rouge(["a b c d"], ["a b"])["rouge1"]) == pytest.approx(100 * 2 * 0.5 / 1.5)


def test_rouge_of_chinese():
    needs_text_packages()
    text = "今天天气很好。我们去公园。"
    scores = rouge([text, "今天下雨", ""], [text, "今天晴天", text])
    assert all(float(values[0]) == pytest.approx(100) for values in scores.values())
    assert float(scores["rouge1"][1]) == pytest.approx(50)
    assert all(float(values[2]) == 0 for values in scores.values())
    assert scores["rouge1"].dtype == torch.float64


def test_lines_make_rouge_lsum():
    needs_text_packages()
    actual, expected = "Second thing. First thing here!", "First thing here! Second thing."
    joined = rouge([actual], [expected])
    assert float(joined["rougeLsum"]) == float(joined["rougeL"]) < 100
    split = rouge([one_sentence_per_line(actual)], [one_sentence_per_line(expected)])
    assert float(split["rougeLsum"]) == pytest.approx(100)
    assert float(split["rougeL"]) == float(joined["rougeL"])


def test_sentences():
    assert one_sentence_per_line("It is 3.5 m. Go!  Why?\n\nYes") == "It is 3.5 m.\nGo!\nWhy?\nYes"
    assert one_sentence_per_line("今天好。明天呢？好！") == "今天好。\n明天呢？\n好！"  # noqa: RUF001
    assert one_sentence_per_line("") == ""


@pytest.mark.parametrize("function", [rouge, wer, cer])
@pytest.mark.parametrize(
    ("actual", "expected", "words"),
    [([], [], "at least one"), (["a"], ["a", "b"], "1 texts against 2"), ("ab", ["a", "b"], "list of texts")],
)
def test_texts_that_are_none(function, actual, expected, words):
    with pytest.raises(UsageError, match=words):
        function(actual, expected)


def test_nan_is_no_text():
    with pytest.raises(UsageError, match="list of texts"):
        rouge([float("nan")], ["a"])


def test_unknown_kind():
    with pytest.raises(UsageError, match="rougeLsum"):
        rouge(["a"], ["a"], kinds=["rouge3"])


def test_missing_package_is_not_judged(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(networks.importlib, "import_module", missing)
    for function in (rouge, wer, cer):
        with pytest.raises(NotJudged, match=r"pip install '\.\[text\]'"):
            function(["a"], ["a"])
    metric = Metric("wer", lambda a, e: wer(a, e), at_most=1, why="a test")
    assert measure(metric, ["a"], ["a"]).verdict == "not_judged"


# Error rates


def test_word_error_rate_by_hand():
    needs_text_packages()
    assert wer(["Hello, World"], ["hello world"]) == 0
    # One substitution and one insertion on three words, then nothing on one: 2 of 4.
    assert wer(["a x c d", "e"], ["a b c", "e"]) == pytest.approx(0.5)
    assert wer(["a b c"], ["d"]) == pytest.approx(3)
    assert wer([""], ["a b"]) == 1


def test_character_error_rate_by_hand():
    needs_text_packages()
    assert cer(["abcd"], ["abce"]) == pytest.approx(0.25)
    assert cer(["ab d"], ["abcd"]) == pytest.approx(0.25)
    assert cer(["今天 天气很好"], ["今天天气不好。"]) == pytest.approx(1 / 6)
    assert wer(["今天天气很好"], ["今天天气不好。"]) == pytest.approx(1 / 6)


@pytest.mark.parametrize("texts", [("the cat sat", "the bat sat on"), ("one two", "two one")])
def test_plain_english_is_that_of_jiwer(texts: tuple[str, str]):
    jiwer = pytest.importorskip("jiwer", reason=REASON)
    assert wer([texts[0]], [texts[1]]) == jiwer.wer(texts[1], texts[0])
    assert cer([texts[0]], [texts[1]]) == jiwer.cer(texts[1], texts[0])


def test_normaliser():
    assert normalise("Don\u2019t  STOP\u2014well-known\uff01") == "dont stop well known"
    assert normalise("用ＧＰＵ，加速") == "用 gpu 加 速"  # noqa: RUF001
    assert normalise("...") == ""


def test_normaliser_is_said():
    needs_text_packages()
    with collect_remarks() as remarks:
        wer(["a"], ["a"])
        cer(["a"], ["a"])
    assert remarks == [f"normaliser: {NORMALISER}"]


def test_empty_references_prove_nothing():
    for function in (wer, cer):
        with pytest.raises(UsageError, match="hold no word"):
            function(["", ""], ["", "..."])
