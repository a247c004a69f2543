"""Text as GitHub-flavoured Markdown: special characters are escaped, so that any text is shown as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from harness.errors import visible
from harness.report.words import Words

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_SPECIAL = re.compile(r"[\\`*_\[\]~$@]")
_LINKS = re.compile(r"(?i)(?<=[a-z])(:)(?=//)|(?<=www)(\.)|(?<=mailto)(:)|(?<=xmpp)(:)")
_LINE_STARTS = re.compile(r"^(?:[-+](?=\s|$)|-(?=-)|[#=]|\d+[.)](?=\s|$))")
"""What makes a list, a heading or a rule of a line."""
_CODE_FORBIDS = re.compile(r"[`|]")


def escape(text: object) -> str:
    """Return text that Markdown and HTML show as it is, on one line; what cannot be seen becomes visible.

    Links, images, emphasis, formulas, tags and mentions in it stay plain text.
    """
    shown = "".join(_ENTITIES.get(character, character) for character in visible(str(text)))
    shown = _SPECIAL.sub(lambda found: f"\\{found[0]}", shown)
    shown = _LINKS.sub(lambda found: f"&#{ord(found[0])};", shown)
    start = _LINE_STARTS.match(shown)
    return f"{shown[: start.end() - 1]}\\{shown[start.end() - 1 :]}" if start else shown


def code(text: object) -> str:
    """Return text as a code span that can stand in a table; escaped text where a span cannot hold it."""
    shown = visible(str(text)).strip()
    if not shown or _CODE_FORBIDS.search(shown):
        return escape(shown)
    return f"`{shown}`"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> list[str]:
    """Return a table of Markdown cells; columns from ``words`` on hold figures and are set to the right."""
    marks = ["---"] * words + ["---:"] * (len(headings) - words)
    return [_row(headings), _row(marks), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def verdict_cell(words: Words, verdict: str) -> str:
    """Return the word of a verdict, a failure in bold; ``reference`` counts as one."""
    word = words(f"verdict_{verdict}")
    return f"**{word}**" if verdict == "fail" else word


def fence(lines: Iterable[str], language: str = "") -> list[str]:
    """Return a block of code whose fence is longer than any in it."""
    shown = [visible(line) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall(r"`+", line)), default=0)
    ticks = "`" * max(3, longest + 1)
    return [f"{ticks}{language}", *shown, ticks]


def image(words: str, path: str) -> str:
    """Return an image; the path is relative to the file."""
    return f"![{escape(words)}]({quote(path)})"
