"""Every word of the page and the README, per language: ``Words("zh")("verdict")`` is the word for a key."""

from __future__ import annotations

from harness.report.words.lookup import LANGUAGES, SENTENCES, Language, Words

__all__ = ["LANGUAGES", "SENTENCES", "Language", "Words"]
