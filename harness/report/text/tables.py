"""Text laid out for a terminal: figures as the tables print them, aligned columns, and lines of at most WIDTH."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from harness.errors import visible
from harness.report.words import Words

WORDS = Words("en")
WIDTH = 120
_INDENT = " " * 12
Cells = Sequence[str]


def number(value: float | None, spec: str = ".3g") -> str:
    """Return a figure as the tables print it; a dash where there is none."""
    return "-" if value is None else format(value, spec)


def ms(value: float | None) -> str:
    """Return milliseconds as the tables print them."""
    return number(value, ".4g")


def plural(count: int, noun: str) -> str:
    """Return ``1 tensor`` or ``2 tensors``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def verdict_word(verdict: str) -> str:
    """Return ``pass``, ``FAIL``, ``not judged`` or ``reference``."""
    return WORDS(f"verdict_{verdict}")


def failure_word(failure: str, t: Words = WORDS) -> str:
    """Return the words for a class of failures; empty for none, and for a wrong answer, which needs no other word."""
    return t(f"failure_{failure}") if failure not in ("", "wrong_answer") else ""


def latency_word(verdict: str) -> str:
    """Return ``REGRESSED``, ``equivalent``, ...: a verdict on latency."""
    return WORDS(f"latency_{verdict}")


def explained(heads: Mapping[str, str], precisions: Iterable[str]) -> str:
    """Return what column heads stand for, ``head: meaning; ...``; the values are terms of the word list.

    ``precisions`` are those of the figures: a floor is explained as PyTorch's own error in the one that they share.
    """
    terms = {"floor": WORDS.floor(precisions)}
    return "; ".join(f"{head}: {terms.get(term) or WORDS(f'term_{term}')}" for head, term in heads.items())


def ascii_safe(text: str) -> str:
    """Return the text with every character that a plain terminal may not have, or acts upon, as a backslash escape.

    Line ends stay.
    """
    shown = "\n".join(visible(line) for line in text.split("\n"))
    return shown.encode("ascii", "backslashreplace").decode("ascii")


def wrapped(label: str, text: str, *, indent: str = "    ") -> list[str]:
    """Return label and text on lines of at most WIDTH; a word that is longer than a line (a path) stays whole."""
    line = ascii_safe((label + text).replace("\n", " "))
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [
        label.rstrip()
    ]


def aligned(rows: Sequence[Cells], *, words: int = 2) -> list[str]:
    """Return rows as lines of a table, the first ``words`` columns set to the left and the others to the right.

    A row may have fewer cells than the first.
    """
    widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def columns(headings: Cells, rows: Sequence[tuple[Cells, Cells]]) -> list[str]:
    """Return a table whose rows are cells, then names: the first cell is set to the left and the others to the right.

    The last heading stands over the names. Names that do not fit go below.
    """
    names = [[headings[-1]], *([ascii_safe(visible(name)) for name in names if name] for _, names in rows)]
    cells = [list(headings[:-1]), *([ascii_safe(visible(cell)) for cell in cells] for cells, _ in rows)]
    width = sum(max(map(len, column)) + 2 for column in zip(*cells, strict=True))
    lines = []
    for line, words in zip(aligned(cells, words=1), names, strict=True):
        fitting = [n for n in range(len(words) + 1) if width + len("  ".join(words[:n])) <= WIDTH][-1]
        lines.append(f"{line.ljust(width)}{'  '.join(words[:fitting])}".rstrip())
        lines += wrapped(_INDENT, "  ".join(words[fitting:]), indent=_INDENT) if words[fitting:] else []
    return lines
