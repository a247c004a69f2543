"""Texts against texts: ROUGE, with a tokenizer that serves Chinese too.

The default tokenizer of rouge-score keeps only ``a`` to ``z`` and digits, so that two identical Chinese texts score 0.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.metrics import networks

if TYPE_CHECKING:
    import torch


ROUGE_KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
CJK = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Chinese characters and kana, which are written without spaces, as the inside of a regular expression's brackets."""
_CJK = re.compile(f"[{CJK}]")
_WORD = re.compile(r"cm*|(?:(?<![acdm-])-(?=d))?[ad][adm]*(?:(?<=[am])(?:\+\+|[+#](?![acdm])))?")
"""A word, in kinds of characters (see :func:`_kind`)."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f\uff1b])\s*(?=\S)")


def tokenize(text: str) -> list[str]:
    """Return the words of a text in lower case; Chinese characters and kana are words of their own.

    On ASCII text these are the tokens of rouge-score without its stemmer, but for the signs of :func:`words`. Korean is
    split at its spaces, and so are Thai, Lao and Khmer, which have few: there a word is a phrase.
    """
    return words(unicodedata.normalize("NFC", text).lower())


def words(text: str) -> list[str]:
    """Return the words of a text as they stand in it: runs of letters, their combining marks and digits.

    A minus before a number (not between two) and the signs of a name (``C++``, ``C#``) belong to the word: without them
    it means another thing. Joiners and other characters without a width are dropped; a zero-width space parts words.
    """
    shown = [c for c in text.replace("\u2212", "-") if c == "\u200b" or unicodedata.category(c) != "Cf"]
    kinds = "".join(map(_kind, shown))
    return ["".join(shown[slice(*match.span())]) for match in _WORD.finditer(kinds)]


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """Return what a character is: ``m`` mark, ``c`` Chinese or kana, ``d`` digit, ``a`` letter, a sign, or a space."""
    if unicodedata.category(character)[0] == "M":
        return "m"
    if character.isalnum():
        return "c" if _CJK.match(character) else "d" if character.isdecimal() else "a"
    return character if character in "+#-" else " "


def one_sentence_per_line(text: str) -> str:
    """Return a text with a line break after every full stop, question and exclamation mark, Latin or Chinese.

    rougeLsum takes each line as a sentence; of a text without line breaks it is rougeL. Apply it to both sides.
    """
    lines = (part.strip() for line in text.splitlines() for part in _SENTENCE_END.split(line))
    return "\n".join(line for line in lines if line)


def rouge(
    actual: Sequence[str], expected: Sequence[str], *, kinds: Sequence[str] = ROUGE_KINDS
) -> dict[str, torch.Tensor]:
    """Return the ROUGE F-measures of each pair of texts by kind, from 0 to 100, float64 [n] each.

    ``actual`` are the texts to score and ``expected`` those they should be; ``kinds`` are among ``rouge1``, ``rouge2``,
    ``rougeL`` and ``rougeLsum`` (see :func:`one_sentence_per_line`). Raises NotJudged where rouge-score is not
    installed, UsageError for lists of different lengths, an empty list, what is no text and an unknown kind.
    """
    import torch

    check_texts(actual, expected)
    unknown = [kind for kind in kinds if kind not in ROUGE_KINDS]
    if unknown or not kinds:
        raise UsageError(f"ROUGE kinds {list(kinds)}: give one or more of {', '.join(ROUGE_KINDS)}")
    scorer = networks.package("rouge_score.rouge_scorer", "text").RougeScorer(
        list(kinds), tokenizer=SimpleNamespace(tokenize=tokenize)
    )
    scores = [scorer.score(target, prediction) for prediction, target in zip(actual, expected, strict=True)]
    return {kind: torch.tensor([100 * s[kind].fmeasure for s in scores], dtype=torch.float64) for kind in kinds}


def check_texts(actual: Sequence[str], expected: Sequence[str]) -> None:
    """Raise UsageError unless both are lists of as many texts, and at least one."""
    for name, texts in (("actual", actual), ("expected", expected)):
        if isinstance(texts, str | bytes) or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"{name} must be a list of texts")
    if len(actual) != len(expected) or not actual:
        raise UsageError(
            f"{len(actual)} texts against {len(expected)}; give as many of one as of the other, at least one"
        )
