"""What README.md, CONTRIBUTING.md and docs/ name is there: files, imports, links, commands and their options."""

from __future__ import annotations

import ast
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

from harness.cli.commands import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
COMMANDS = [
    (page, line.strip())
    for page in PAGES
    for line in re.sub(r"```.*?```", "", TEXT[page], flags=re.DOTALL).splitlines()
    if line.startswith("    parity ")
]
NAMED = re.compile(r"(?<![\w/.-])((?:harness|suites|tests|benchmarks|examples|docs)/[\w./-]*\w)")
NOT_THERE = {"suites/test_mymodel.py"}
"""What a reader makes."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_links_lead_somewhere(page: Path):
    named = {ROOT / name for name in set(NAMED.findall(TEXT[page])) - NOT_THERE}
    linked = {page.parent / target for target in re.findall(r"\]\(([^)#:]+)\)", TEXT[page])}
    assert sorted(str(path) for path in named | linked if not path.exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_imports_give_what_is_shown(page: Path):
    for source in re.findall(r"```python\n(.*?)```", TEXT[page], re.DOTALL):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness"):
                exec(ast.unparse(node), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dotted_names_resolve(page: Path):
    for name in re.findall(r"`(harness(?:\.\w+)+)", TEXT[page]):
        pkgutil.resolve_name(name)


def test_there_are_commands():
    assert len(COMMANDS) > 25


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page.name}-{text}" for page, text in COMMANDS])
def test_commands_are_understood(page: Path, command: str):
    words = shlex.split(re.sub(r"\[.*?\]|\.\.\. ", "", command), comments=True)
    parser().parse_args(words[1:])
