"""A Markdown file that is generated anew while what a person wrote in it stays.

A person's text stands in blocks::

    <!-- parity:human NAME -->
    ...
    <!-- /parity:human -->

Everything else is generated. The last lines of the file hold a digest of every generated line, so text that was written
outside the blocks is recognised and moved into a block of its own. A block that is not filled in holds a hint and a
``parity:todo`` mark with the hint's digest: only a hint that is still as it was generated is ever replaced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from harness.errors import UsageError

KEPT = "kept"
"""The block that holds what was found outside the blocks."""
_OPEN = re.compile(r"<!-- parity:human ([a-z0-9-]+) -->")
_CLOSE = "<!-- /parity:human -->"
_HEADER = re.compile(r"<!-- parity:report ((?:[a-z]+=[a-z0-9]+ ?)+)-->")
_TODO = re.compile(r"<!-- parity:todo ([0-9a-f]{8}) -->")
_LINES, _LINES_END = "<!-- parity:lines", "-->"
_DIGEST = re.compile(r"[0-9a-f]{8}(?: [0-9a-f]{8})*")
_PER_LINE = 100


@dataclass(frozen=True, kw_only=True)
class Human:
    """A place for a person's text."""

    name: str
    hint: str
    """What belongs there; shown until it is filled in."""


@dataclass(frozen=True, kw_only=True)
class Old:
    """What an earlier file holds."""

    options: dict[str, str] = field(default_factory=dict)
    """What it was generated with: ``lang``, ``template``."""
    blocks: dict[str, str] = field(default_factory=dict)
    """The content of every block by name, hints included; of several blocks of one name, one below the other."""
    outside: str = ""
    """What a person wrote outside the blocks; empty where there is nothing."""
    generated: tuple[str, ...] = ()
    """The generated lines that are still there as they were."""
    gone: int = 0
    """How many generated lines were taken away or changed."""


def parse(text: str, *, where: str) -> Old:
    """Return what a file holds that :func:`compose` made and people have edited since.

    Raises UsageError when it was not made so, or its marks are damaged: then it does not tell what a person wrote.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    header = next((found for line in lines if (found := _HEADER.fullmatch(line.strip()))), None)
    if header is None:
        raise _damaged(where, "it was not written by `parity report`")
    digests, lines = _split_digests(lines, where)
    blocks, rest = _split_blocks(lines, where)
    rest = [line for line in rest if not _HEADER.fullmatch(line.strip())]
    options = dict(option.split("=") for option in header[1].split())
    outside, generated = _told_apart(rest, digests)
    gone = len(digests) - len(generated)
    return Old(options=options, blocks=blocks, outside=outside, generated=generated, gone=gone)


def compose(
    parts: Sequence[str | Human], *, options: Mapping[str, str], kept_heading: Sequence[str], old: Old | None = None
) -> str:
    """Return the file: generated lines, and blocks with the text that the old file has for them.

    Text of blocks that have no place among ``parts``, and text from outside the blocks, follows ``kept_heading`` at
    the end. Composing again with what this returns gives the same bytes.
    """
    known = old.blocks if old else {}
    generated = [part for part in parts if isinstance(part, str)]
    lines = [_header(options)]
    for part in parts:
        lines += _block(part.name, _content(part, known)) if isinstance(part, Human) else [part]
    if kept := _kept(parts, old):
        lines += ["", *kept_heading, ""]
        generated += kept_heading
        for name, content in kept.items():
            lines += [*_block(name, content), ""]
        lines.pop()
    return "\n".join([*lines, "", *_digest_lines(generated), ""])


def is_hint(content: str) -> bool:
    """Return whether a block holds nothing but the hint that was generated."""
    found = _TODO.search(content)  # earlier versions had it in a line of its own, before the hint
    return found is not None and found[1] == _digest((content[: found.start()] + content[found.end() :]).strip())


def has_mark(content: str) -> bool:
    """Return whether a block still holds the mark of a hint, with or without other text."""
    return _TODO.search(content) is not None


def _content(part: Human, known: Mapping[str, str]) -> str:
    """Return what the old file has in a block, unless that is but an untouched hint, perhaps in another language."""
    content = known.get(part.name)
    return _hint(part.hint) if content is None or is_hint(content) else content


def _hint(words: str) -> str:
    return f"{words.strip()} <!-- parity:todo {_digest(words.strip())} -->"


def _header(options: Mapping[str, str]) -> str:
    return f"<!-- parity:report {' '.join(f'{key}={value}' for key, value in options.items())} -->"


def _block(name: str, content: str) -> list[str]:
    return [f"<!-- parity:human {name} -->", *([content] if content else []), _CLOSE]


def _kept(parts: Sequence[str | Human], old: Old | None) -> dict[str, str]:
    """Return the blocks that have no place among the parts, and what stood outside the blocks."""
    if old is None:
        return {}
    placed = {part.name for part in parts if isinstance(part, Human)}
    placeless = {
        name: content
        for name, content in old.blocks.items()
        if name not in placed and name != KEPT and content.strip() and not is_hint(content)
    }
    outside = [text for text in (old.blocks.get(KEPT, ""), old.outside) if text.strip()]
    return {**placeless, **({KEPT: "\n\n".join(outside)} if outside else {})}


def _split_digests(lines: Sequence[str], where: str) -> tuple[list[str], list[str]]:
    """Return the digests at the end of the file, and the lines without theirs."""
    starts = [number for number, line in enumerate(lines) if line.strip() == _LINES]
    if len(starts) != 1:
        raise _damaged(where, f"it has {len(starts)} lists of its generated lines ({_LINES!r}) in place of one")
    end = next((n for n in range(starts[0] + 1, len(lines)) if lines[n].strip() == _LINES_END), None)
    inner = [line.strip() for line in lines[starts[0] + 1 : end]]
    if end is None or not all(_DIGEST.fullmatch(line) for line in inner):
        raise _damaged(where, f"the list of its generated lines at line {starts[0] + 1} was edited")
    return " ".join(inner).split(), [*lines[: starts[0]], *lines[end + 1 :]]


def _split_blocks(lines: Sequence[str], where: str) -> tuple[dict[str, str], list[str]]:
    """Return the blocks by name, and the lines outside them."""
    blocks: dict[str, list[str]] = {}
    outside: list[str] = []
    name, content, opened = "", list[str](), 0
    for number, line in enumerate(lines, start=1):
        mark = _OPEN.fullmatch(line.strip())
        closes = line.strip() == _CLOSE
        if (mark and name) or (closes and not name):
            raise _damaged(where, f"line {number} holds {line.strip()!r} {'inside' if name else 'outside'} a block")
        if mark:
            name, content, opened = mark[1], [], number
        elif closes:
            blocks.setdefault(name, []).append("\n".join(content))
            name = ""
        elif name:
            content.append(line)
        else:
            outside.append(line)
    if name:
        raise _damaged(where, f"the block {name!r} that begins at line {opened} has no end ({_CLOSE!r})")
    return {name: _joined(contents) for name, contents in blocks.items()}, outside


def _joined(contents: Sequence[str]) -> str:
    """Return the content of all blocks of one name; a hint counts only where there is nothing else."""
    written = [content for content in contents if not is_hint(content)]
    filled = list(dict.fromkeys(content for content in written if content.strip()))
    return "\n\n".join(filled) if filled else (written or list(contents))[0]


def _told_apart(lines: Sequence[str], digests: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the lines that were not generated, runs of them with a blank line between, and those that were."""
    filled = [number for number, line in enumerate(lines) if line.strip()]
    found = [_digest(lines[number]) for number in filled]
    runs, generated = [], list[str]()
    for action, _, _, start, end in SequenceMatcher(None, digests, found, autojunk=False).get_opcodes():
        if action == "equal":
            generated += [lines[number] for number in filled[start:end]]
        elif action in ("insert", "replace"):
            runs.append("\n".join(lines[filled[start] : filled[end - 1] + 1]))
    return "\n\n".join(runs), tuple(generated)


def _digest_lines(generated: Sequence[str]) -> list[str]:
    digests = [_digest(line) for part in generated for line in part.split("\n") if line.strip()]
    rows = [" ".join(digests[i : i + _PER_LINE]) for i in range(0, len(digests), _PER_LINE)]
    return [_LINES, *rows, _LINES_END]


def _digest(line: str) -> str:
    return hashlib.sha256(line.rstrip().encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _damaged(where: str, why: str) -> UsageError:
    return UsageError(
        f"{where} was left as it is: {why}, so your text in it cannot be told from what was generated; mend it, "
        "move it away, or give another folder with -o"
    )
