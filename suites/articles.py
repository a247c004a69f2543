"""Articles with a summary each: written for this repository, or JSON lines in the folder of ``PARITY_ARTICLES``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import NotJudged

OWN = Path(__file__).with_name("articles")


@dataclass(frozen=True, kw_only=True)
class Article:
    """A text and what a person wrote in its place."""

    text: str
    summary: str


def articles() -> tuple[Article, ...]:
    """Return the articles in the order of their files. Raises NotJudged where there are none, or a line is none."""
    return _read(Path(os.environ.get("PARITY_ARTICLES") or OWN))


@cache
def _read(folder: Path) -> tuple[Article, ...]:
    found = []
    for file in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            found += [_article(line, f"{file}, line {number}")] if line.strip() else []
    if not found:
        raise NotJudged(f"{folder} holds no article; put files of JSON lines there, with article and summary in each")
    return tuple(found)


def _article(line: str, where: str) -> Article:
    """Return the article of one line; ``highlights``, as CNN / Daily Mail has it, is a summary as well."""
    try:
        known = json.loads(line)
        found = Article(text=known["article"], summary=known.get("summary") or known["highlights"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotJudged(f"{where} is none of an article; give {{'article': ..., 'summary': ...}}") from error
    if not (isinstance(found.text, str) and isinstance(found.summary, str) and found.text and found.summary):
        raise NotJudged(f"{where}: article and summary must be texts that are not empty")
    return found
