"""Whether a hackathon report is finished: its sections, links, figures, statistics, environment, and no hint left."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from harness.errors import UsageError
from harness.hackathon import human_blocks, readme
from harness.hackathon.template import CONTEST, TEMPLATES, Section, needs, places
from harness.records import Records
from harness.report.words import LANGUAGES, Words

_MISSING = re.compile(r"<!-- parity:missing [a-z_]+ -->(.*)")
_LINK = re.compile(r"!?\[(?:[^\]\\]|\\.)*\]\(\s*<?([^)>\s]+)|<(?:img|a)\b[^>]*?\b(?:src|href)=[\"']([^\"']+)")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|#")
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_TOPIC = re.compile(r"(?<![\d+.])(?:2\+4|3\+4|[1-4])(?![\d+.])")
_BEGINS = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8", ".jpeg": b"\xff\xd8"}
_AGAIN = "run `parity report` again"


def check_readme(folder: Path, *, records: Records | None = None, wenet: Mapping[str, str] | None = None) -> list[str]:
    """Return one sentence per thing that keeps ``folder``/README.md from being finished; none when it is.

    With records the README must also be what they give now, generated with the same ``wenet``.
    """
    path = folder / readme.README
    try:
        old = readme.read_readme(path)
    except UsageError as error:
        return [str(error)]
    if old is None:
        return [f"there is no {path}; run `parity report -o {folder}`"]
    lang, template = old.options.get("lang", ""), old.options.get("template", "")
    known = next((Words(one) for one in LANGUAGES if one == lang), None)
    if known is None or template not in TEMPLATES:
        return [f"the first line of {path} names no known language and template; {_AGAIN} with --lang and --template"]
    lines = _without_code(path.read_text(encoding="utf-8-sig").split("\n"))
    sections = _sections(lines, TEMPLATES[template], known)
    found = [
        *_headings(sections, TEMPLATES[template], known),
        *_blocks(old, template),
        *_missing(lines),
        *_needed(sections, known),
        *_contest_link(sections, template),
        *_links(lines, folder),
    ]
    if old.gone:
        count = f"{old.gone} generated lines are" if old.gone > 1 else "a generated line is"
        found.append(f"{count} missing or changed; {_AGAIN}")
    if old.outside:
        first = old.outside.split("\n")[0]
        found.append(f"text stands outside the marked blocks ({first!r:.60}); move it into one, or {_AGAIN} to keep it")
    if records is not None:
        found += _stale(records, folder, wenet or {})
    return found


def _without_code(lines: Sequence[str]) -> list[str]:
    """Return the lines with those of code blocks emptied."""
    shown, fence = [], ""
    for line in lines:
        mark = _FENCE.match(line)
        if not fence and mark:
            fence = mark[1]
            shown.append("")
        elif fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            shown.append("")
        else:
            shown.append(line)
    return shown


def _title(section: Section, words: Words) -> str:
    return f"{'#' * section.level} {words(section.title)}"


def _sections(lines: Sequence[str], sections: Sequence[Section], words: Words) -> dict[str, list[str]]:
    """Return the lines of every section that is there, up to the next heading of the template."""
    titles = {_title(section, words): section.name for section in sections}
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        if line.rstrip() in titles:
            name = titles[line.rstrip()]
            found.setdefault(name, [])
        elif name:
            found[name].append(line)
    return found


def _headings(found: Mapping[str, object], sections: Sequence[Section], words: Words) -> list[str]:
    missing = [section for section in sections if section.required and section.name not in found]
    return [f"the section {_title(section, words)!r} is missing; {_AGAIN}" for section in missing]


def _blocks(old: human_blocks.Old, template: str) -> list[str]:
    """Return what is wrong with the places for people's text."""
    found = []
    for place in places(template):
        name, content = place.name, old.blocks.get(place.name)
        if content is None:
            found.append(f"the block {name!r} is missing; {_AGAIN}")
        elif human_blocks.is_hint(content):
            empty = " or empty it" if place.optional else ""
            found.append(f"the block {name!r} still holds its placeholder; replace it by your text{empty}")
        elif human_blocks.has_mark(content):
            found.append(
                f"the block {name!r} still holds the mark of its placeholder; delete '<!-- parity:todo ... -->'"
            )
        elif content.strip():
            found += _content(name, content)
        elif not place.optional:
            found.append(f"the block {name!r} is empty; the contest asks for it")
    return found


def _content(name: str, content: str) -> list[str]:
    """Return what the text of one block lacks."""
    if name == "title" and not content.strip().startswith("# "):
        return ["the block 'title' has no line that begins with '# '; write the report's title there"]
    if name == "topic" and not _TOPIC.search(content):
        return ["the block 'topic' names no topic; write one of 1, 2, 3, 4, 2+4, 3+4"]
    if name == "model" and "http" not in content:
        return ["the block 'model' has no link; add the link of the original model"]
    if name == "docker" and not (re.search(r"(?m)^\s{0,3}(```|~~~)", content) and "docker" in content):
        return ["the block 'docker' has no code block with a docker command; write every command to build and run"]
    return []


def _missing(lines: Sequence[str]) -> list[str]:
    return [found[1].replace("**", "").strip() for line in lines if (found := _MISSING.match(line))]


def _needed(sections: Mapping[str, Sequence[str]], words: Words) -> list[str]:
    """Return the statistics and facts that a section should hold and does not."""
    found = []
    for name, wanted in needs(words).items():
        body = "\n".join(sections.get(name, ()))
        gone = [word for word in wanted if word not in body]
        if gone and name in sections and "parity:missing" not in body:
            found.append(f"the section {name!r} does not show {', '.join(gone)}; {_AGAIN}")
    return found


def _contest_link(sections: Mapping[str, Sequence[str]], template: str) -> list[str]:
    link = CONTEST.format(year=template)
    if "overview" in sections and link not in "\n".join(sections["overview"]):
        return [f"the overview does not link to {link}; {_AGAIN}"]
    return []


def _links(lines: Sequence[str], folder: Path) -> list[str]:
    """Return links and figures that lead to no file beside the README."""
    targets = [first or second for line in lines for first, second in _LINK.findall(line)]
    found = []
    for target in dict.fromkeys(targets):
        file = unquote(target.partition("#")[0].partition("?")[0])
        if _SCHEME.match(target):
            continue
        if file.startswith("/"):
            found.append(f"the link {target!r} is absolute; make it relative to the README")
        elif not os.path.exists(folder / file):  # noqa: PTH110  Path.exists raises for a name that is too long
            found.append(f"the link {target!r} leads to no file; put the file there or mend the link")
        elif (folder / file).is_file() and (why := _spoilt(folder / file)):
            found.append(f"the file of the link {target!r} {why}; {_AGAIN}")
    return found


def _spoilt(path: Path) -> str:
    """Return what is wrong with a file that a README shows: it is empty, or no picture of the kind its name says."""
    with path.open("rb") as file:
        begins = file.read(8)
    if not begins:
        return "is empty"
    known = _BEGINS.get(path.suffix.lower())
    return f"is no {path.suffix[1:].upper()} picture" if known and not begins.startswith(known) else ""


def not_checked(folder: Path, *, records: Records | None = None) -> list[str]:
    """Return one phrase per thing that ``check_readme`` cannot know of a README, or was not given the means to."""
    try:
        old = readme.read_readme(folder / readme.README)
    except UsageError:
        old = None
    if old is None or old.options.get("template") not in TEMPLATES:
        return []
    text = (folder / readme.README).read_text(encoding="utf-8-sig")
    targets = {first or second for first, second in _LINK.findall("\n".join(_without_code(text.split("\n"))))}
    remote = sum(bool(_SCHEME.match(target)) for target in targets)
    empty = [p.name for p in places(old.options["template"]) if not old.blocks.get(p.name, "x").strip()]
    return [
        *([] if records else ["whether the figures are those of the records: there are none to compare with"]),
        "whether what the blocks say is true, well written, and without gaps",
        "whether the commands, those of Docker too, run and record the same again",
        f"whether links to the network lead anywhere: {remote}",
        f"what the pictures and files that are linked show: {len(targets) - remote}",
        *(
            [f"whether nothing belongs into the empty blocks, which earn no points: {', '.join(empty)}"]
            if empty
            else []
        ),
    ]


def _stale(records: Records, folder: Path, wenet: Mapping[str, str]) -> list[str]:
    try:
        current = readme.is_current(records, folder, wenet=wenet)
    except UsageError as error:
        return [str(error)]
    if current:
        return []
    return [f"{folder / readme.README} is not what the records give now; run `parity report` with the same options"]
