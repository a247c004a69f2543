"""Transcripts against transcripts: word and character error rate by jiwer, behind one normaliser."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from harness.errors import UsageError
from harness.metrics import networks
from harness.metrics.remarks import remark
from harness.metrics.text import CJK, check_texts, words
from harness.sentences import Sentence

NORMALISER = Sentence("normaliser_rules")
"""What :func:`normalise` does; error rates under different normalisers cannot be compared."""
_APOSTROPHES = re.compile(r"['\u2019\u02bc\u2018`]")
_SPACE_BESIDE = re.compile(rf"(?<=[{CJK}])\s+|\s+(?=[{CJK}])")


def wer(actual: Sequence[str], expected: Sequence[str]) -> float:
    """Return the word error rate of transcripts: edits over reference words, of all texts together, 0 for none.

    It can exceed 1. Raises NotJudged where jiwer is not installed, UsageError for lists of different lengths, an empty
    list, or references without a single word.
    """
    hypotheses, references = _normalised(actual, expected)
    return float(networks.package("jiwer", "text").wer(references, hypotheses))


def cer(actual: Sequence[str], expected: Sequence[str]) -> float:
    """Return the character error rate of transcripts: edits over reference characters, of all texts together.

    A space is a character between words, and none beside a Chinese character or kana. Raises as :func:`wer` does.
    """
    hypotheses, references = _normalised(actual, expected)
    texts = [[_SPACE_BESIDE.sub("", text) for text in side] for side in (references, hypotheses)]
    return float(networks.package("jiwer", "text").cer(*texts))


def normalise(text: str) -> str:
    """Return a text as :data:`NORMALISER` says, with single spaces between its words."""
    text = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).lower())
    return " ".join(words(text))


def _normalised(actual: Sequence[str], expected: Sequence[str]) -> tuple[list[str], list[str]]:
    check_texts(actual, expected)
    hypotheses, references = [normalise(text) for text in actual], [normalise(text) for text in expected]
    if not any(references):
        raise UsageError("the references hold no word after normalising; an error rate needs at least one")
    remark(Sentence("normaliser", rules=NORMALISER))
    return hypotheses, references
