"""A hackathon README as a person finishes it, and charts that take no time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import recorded

from harness.hackathon import template as hackathon_template
from harness.records.documents import Json

FILLED = {
    "title": "# A model, faster",
    "topic": "2+4",
    "model": "[Net](https://example.org/net), a small network.",
    "docker": "```bash\ndocker pull image\ndocker run image\n```",
    "introduction": "What it is for.",
    "difficulties": "None of them small.",
    "process": "First this, then that.",
}


def quick(measured: Sequence[Json], stem: Path, *, write: bool = True) -> list[Path]:
    """Write a picture of one pixel in place of a chart, which takes a second."""
    if write:
        recorded.picture(stem.with_name(f"{stem.name}.png"))
    return [stem.with_name(f"{stem.name}.png")]


def edit(path: Path, **texts: str) -> None:
    """Write into blocks of a README, in place of what they hold."""
    lines = path.read_text(encoding="utf-8").split("\n")
    for name, text in texts.items():
        start = lines.index(f"<!-- parity:human {name.replace('_', '-')} -->")
        end = lines.index("<!-- /parity:human -->", start)
        lines[start + 1 : end] = [text] if text else []
    path.write_text("\n".join(lines), encoding="utf-8")


def finish(path: Path) -> None:
    """Fill in every block that is there, and empty those that may be."""
    text = path.read_text(encoding="utf-8")
    known = [place for template in hackathon_template.TEMPLATES for place in hackathon_template.places(template)]
    texts = {**{place.name: "" for place in known if place.optional}, **FILLED}
    edit(path, **{name.replace("-", "_"): new for name, new in texts.items() if f"parity:human {name} -->" in text})
