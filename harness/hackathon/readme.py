"""The hackathon report: a README.md in the contest's sections, from records alone, around what people wrote in it.

``save_readme`` draws the figures and writes it, ``is_current`` says whether it is what the records would give now. The
sections are in ``template``; how a person's text survives is in ``human_blocks``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from harness.errors import UsageError
from harness.files import write_text
from harness.hackathon import (
    accuracy,
    bugs,
    environment,
    headline,
    human_blocks,
    key_numbers,
    overview,
    performance,
    variants,
)
from harness.hackathon.context import Context
from harness.hackathon.figures import FOLDER, Figure, Key, draw
from harness.hackathon.template import TEMPLATES, TITLE, Place
from harness.hackathon.wenet import wenet_tables
from harness.records import Records
from harness.report.words import LANGUAGES, Language, Words

README = "README.md"
PARTS: dict[str, Callable[[Context], list[str]]] = {
    "headline": headline.headline,
    "entry": overview.entry,
    "numbers": key_numbers.numbers,
    "findings": overview.findings,
    "variants": variants.variants,
    "layers": accuracy.layers,
    "labels": accuracy.labels,
    "accuracy": accuracy.accuracy,
    "cost": accuracy.cost,
    "metrics": accuracy.metrics,
    "scores": accuracy.scores,
    "wenet": wenet_tables,
    "performance": performance.performance,
    "environment": environment.environment,
    "commands": environment.commands,
    "bugs": bugs.bugs,
}
"""Every generated part by the name that ``TEMPLATES`` gives it."""


def save_readme(
    records: Records, folder: Path, *, lang: str = "", template: str = "", wenet: Mapping[str, str] | None = None
) -> Path:
    """Write ``folder``/README.md and its figures and return the README's path.

    Figures that only the README of before had are deleted. Without ``lang`` and ``template`` an existing README keeps
    its own; a new one is English and of 2023. A person's text stays, see ``human_blocks``. ``wenet`` gives subjects by
    role for the table of the 2022 preliminary. Raises UsageError when the README there was not made by this function or
    its marks are damaged, and when nothing can be written; the README is then as it was.
    """
    path = folder / README
    old = read_readme(path)
    drawn = draw(records, folder)
    text = render(records, old=old, figures=drawn, lang=lang, template=template, wenet=wenet or {})
    if not path.exists() or path.read_bytes() != text.encode():
        write_text(text, path)
    _remove_figures(old, text, folder)
    return path


def _remove_figures(old: human_blocks.Old | None, text: str, folder: Path) -> None:
    """Delete the figures that the README of before made and the new one does not show, in no block either."""
    for link in _figures("\n".join(old.generated if old else ())) - _figures(text):
        path = folder / unquote(link)
        if path.resolve().parent == (folder / FOLDER).resolve():
            for file in (path, path.with_suffix(".svg")):  # a chart has both
                file.unlink(missing_ok=True)


def _figures(text: str) -> set[str]:
    return set(re.findall(rf"\(({FOLDER}/[^)\s]+)\)", text))


def is_current(records: Records, folder: Path, *, wenet: Mapping[str, str] | None = None) -> bool:
    """Return whether ``save_readme`` would leave the README as it is. Raises UsageError as ``render`` does."""
    path = folder / README
    old = read_readme(path)
    drawn = draw(records, folder, write=False)
    text = render(records, old=old, figures=drawn, wenet=wenet or {})
    return old is not None and path.read_bytes() == text.encode()


def read_readme(path: Path) -> human_blocks.Old | None:
    """Return what an earlier README holds; None where there is none. Raises UsageError when it cannot be read."""
    if not path.exists():
        return None
    try:
        return human_blocks.parse(path.read_bytes().decode("utf-8"), where=str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8 or give another folder") from error


def render(
    records: Records,
    *,
    old: human_blocks.Old | None,
    figures: Mapping[Key, tuple[Figure, ...]],
    lang: str = "",
    template: str = "",
    wenet: Mapping[str, str] | None = None,
) -> str:
    """Return the README around what ``old`` holds of a person's text."""
    known = old.options if old else {}
    language = _language(lang or known.get("lang", "en"))
    year = template or known.get("template", "2023")
    if year not in TEMPLATES:
        raise UsageError(f"there is no template {year!r}; known: {', '.join(TEMPLATES)}")
    words = Words(language)
    context = Context(
        records=words.records(records), recorded=records, words=words, template=year, figures=figures, wenet=wenet or {}
    )
    heading = [f"## {words('readme_kept')}", "", words("readme_kept_note")]
    return human_blocks.compose(
        _parts(context), options={"lang": language, "template": year}, kept_heading=heading, old=old
    )  # fmt: skip


def _language(lang: str) -> Language:
    for known in LANGUAGES:
        if known == lang:
            return known
    raise UsageError(f"there is no language {lang!r}; known: {', '.join(LANGUAGES)}")


def _parts(context: Context) -> list[str | human_blocks.Human]:
    """Return the whole template: headings, blocks for people, and generated lines."""
    words = context.words
    parts: list[str | human_blocks.Human] = [_human(context, TITLE), "", f"> {words('readme_generated')}", ""]
    for section in TEMPLATES[context.template]:
        parts += [f"{'#' * section.level} {words(section.title)}", ""]
        for part in section.parts:
            parts += [_human(context, part)] if isinstance(part, Place) else [*_behind(parts), *PARTS[part](context)]
        parts += _behind(parts)
    while parts and parts[-1] == "":
        parts.pop()
    return parts


def _behind(parts: Sequence[str | human_blocks.Human]) -> list[str]:
    """Return the empty line that follows the last of several blocks."""
    return [] if isinstance(parts[-1], str) else [""]


def _human(context: Context, place: Place) -> human_blocks.Human:
    words = context.words
    points = words("bracketed", inner=words(f"points_{place.points}")) if place.points else ""
    hint = f"*{words(f'hint_{place.name}', year=context.template)}{points}*"
    return human_blocks.Human(name=place.name, hint=hint)
