"""The check of a finished README finds whatever is taken away from it, or says that it cannot know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import recorded
import report_fixtures
from readmes import finish, quick

from harness.hackathon import check_readme, not_checked, save_readme
from harness.hackathon import figures as hackathon_figures
from harness.records import Records, load

BLOCK = re.compile(r"<!-- parity:human ([a-z0-9-]+) -->\n(?:.*\n)*?<!-- /parity:human -->\n")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Every kind of record and of verdict, as the golden files have them."""
    folder = tmp_path_factory.mktemp("records")
    whole = report_fixtures.results(values=24)
    recorded.everything(folder)
    recorded.document(folder, "layers.json", results=whole)
    return load([folder])


@pytest.fixture(params=["2022", "2023"])
def folder(records: Records, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished README and its figures; charts are pictures of one pixel."""
    monkeypatch.setattr(hackathon_figures, "save_bench", quick)
    monkeypatch.setattr(hackathon_figures, "save_layers", quick)
    save_readme(records, tmp_path, lang="zh", template=request.param)
    finish(tmp_path / "README.md")
    assert check_readme(tmp_path, records=records) == []
    return tmp_path


def pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name of every piece of a README, and the README without it."""
    lines = text.split("\n")
    marks = {number for block in BLOCK.finditer(text) for number in range(text[: block.start()].count("\n"),
             text[: block.end()].count("\n"))}  # fmt: skip
    end = lines.index("<!-- parity:lines")
    for number, line in enumerate(lines[:end]):
        if line.strip() and number not in marks:
            yield f"line {number + 1}: {line:.60}", "\n".join([*lines[:number], *lines[number + 1 :]])
    headings = [number for number, line in enumerate(lines[:end]) if re.match(r"#{2,3} ", line)]
    for start, stop in zip(headings, [*headings[1:], end], strict=True):
        yield f"section {lines[start]}", "\n".join([*lines[:start], *lines[stop:]])
    for block in BLOCK.finditer(text):
        yield f"block {block[1]}", text[: block.start()] + text[block.end() :]
        for mark in (f"<!-- parity:human {block[1]} -->\n", "<!-- /parity:human -->\n"):
            at = text.index(mark, block.start())
            yield f"mark {mark.strip()} of {block[1]}", text[:at] + text[at + len(mark) :]


def test_every_piece_that_is_taken_away_is_missed_even_without_records(folder: Path):
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    unseen = []
    for name, less in pieces(text):
        path.write_text(less, encoding="utf-8")
        if not check_readme(folder):
            unseen.append(name)
    assert unseen == []


def test_with_records_whatever_the_file_says_of_itself_is_held_against_them(folder: Path, records: Records):
    """Without them a file whose own list of lines was changed too cannot be told; an empty line says nothing."""
    path = folder / "README.md"
    save_readme(recorded.load(folder / "r", results=[recorded.result(), recorded.result(case="two")]), folder)
    assert not any("missing or changed" in finding for finding in check_readme(folder))
    assert any("is not what the records give now" in finding for finding in check_readme(folder, records=records))
    save_readme(records, folder)
    assert check_readme(folder, records=records) == []
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\n\n", "\n", 1), encoding="utf-8")
    assert check_readme(folder) == []
    assert check_readme(folder, records=records) != []


def test_every_changed_figure_is_seen_without_records(folder: Path):
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    body = BLOCK.sub(lambda block: "x" * len(block[0]), text)
    for place in re.finditer(r"(?<=[ \[])\d+(?:\.\d+)?(?=[ ,\]])", body[: body.index("<!-- parity:lines")]):
        path.write_text(f"{text[: place.start()]}7777{text[place.end() :]}", encoding="utf-8")
        assert check_readme(folder), place


def test_every_figure_that_is_gone_empty_or_no_picture_is_missed(folder: Path):
    shown = sorted((folder / "figures").glob("*.png"))
    assert len(shown) >= 4
    for path in shown:
        whole = path.read_bytes()
        for other in (None, b"", b"not a picture"):
            path.unlink() if other is None else path.write_bytes(other)
            assert check_readme(folder), (path.name, other)
            path.write_bytes(whole)
    assert check_readme(folder) == []


def test_a_required_block_that_is_emptied_is_missed(folder: Path):
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    year = text.split("template=")[1][:4]
    required = [block for block in BLOCK.finditer(text) if block[0].count("\n") > 2]
    assert {block[1] for block in required} >= {"title", "model", "docker", "introduction", "difficulties", "process"}
    for block in required:
        lines = block[0].split("\n")
        path.write_text(text.replace(block[0], "\n".join([lines[0], *lines[-2:]])), encoding="utf-8")
        assert bool(check_readme(folder)) == ((year, block[1]) != ("2023", "introduction"))


def test_what_the_check_cannot_know_is_said(folder: Path, records: Records):
    said = " ".join(not_checked(folder, records=records))
    for word in ("true", "commands", "network", "pictures", "nsight"):
        assert word in said
    assert "records: there are none" not in said
    assert "records: there are none" in " ".join(not_checked(folder))
    assert not_checked(folder / "nothing") == []


def test_figures_that_the_new_readme_has_not_are_deleted_but_none_of_yours(folder: Path, records: Records):
    kept = next((folder / "figures").glob("study-*.png")).name
    recorded.picture(folder / "figures" / "timeline.png")
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("First this, then that.", f"![mine](figures/{kept})"), encoding="utf-8")
    save_readme(recorded.load(folder / "r", results=[recorded.result()]), folder)
    assert {file.name for file in (folder / "figures").iterdir()} == {kept, "timeline.png"}
