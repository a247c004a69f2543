"""What is said of a run, as a code with arguments: every language renders it.

``en.py`` is the one place of the English sentences; harness/report/words has the others.
"""

from harness.sentences.sentence import ENGLISH, JOINED, Language, Sentence, in_language, joined
from harness.sentences.table import SENTENCES, localised, with_sentences, writable

__all__ = [
    "ENGLISH",
    "JOINED",
    "SENTENCES",
    "Language",
    "Sentence",
    "in_language",
    "joined",
    "localised",
    "with_sentences",
    "writable",
]
