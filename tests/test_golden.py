"""What people read, as files in tests/golden, made from one set of records.

After a change of words or layout: ``python -m pytest tests/test_golden.py --rewrite-golden``, and look at the diff.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import recorded
import report_fixtures as made
from diagnosed import VARIANTS, as_json

from harness.hackathon.readme import render
from harness.records import Entry, Records, load
from harness.report import step_summary, text
from harness.report.html.page import page

GOLDEN = Path(__file__).parent / "golden"


def html(records: Records, lang: str) -> str:
    """Return the page as it is read: of charts the words, without coordinates; without pixels, style and script."""
    text = page(records, lang=lang)  # type: ignore[arg-type]
    text = re.sub(r"<(style|script)\b.*?</\1>|<meta http-equiv.*?>", "", text, flags=re.DOTALL)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "2026-01-02 00:00 UTC", text)  # when the records were written
    text = re.sub(r"<svg\b.*?</svg>", _words, text, flags=re.DOTALL)
    return re.sub(r"(data:image/png;base64,)[^\"]*", r"\1...", text)


def _words(drawing: re.Match[str]) -> str:
    words = re.findall(r"<(?:title|text)\b[^>]*>([^<]*)<", drawing[0])
    return f"<svg>{' | '.join(word.strip() for word in words)}</svg>"


def readme(records: Records, lang: str, template: str) -> str:
    """Return the hackathon's README without the digests of its lines at the end."""
    whole = render(records, old=None, figures={}, lang=lang, template=template)
    return whole[: whole.index("<!-- parity:lines")]


def terminal(table: Callable[[dict[str, Any]], str], entries: Iterable[Entry]) -> str:
    """Return what a command prints of each entry."""
    return "\n\n".join(table(entry.data) for entry in entries) + "\n"


def diagnoses() -> str:
    """Return the first lines of every kind of diagnosis."""
    blocks = [[f"# {name}", *text.diagnosis_text(text.diagnosis_lines(*as_json(name)))] for name in VARIANTS]
    return "\n\n".join(map("\n".join, blocks)) + "\n"


def latency(records: Records) -> str:
    """Return what ``parity bench`` prints: the table, then the kernels of what was profiled."""
    measured, missing = ([entry.data for entry in found] for found in (records.bench, records.not_measured))
    profiled = [entry for entry in records.bench if entry.data["kernels"]]
    return f"{text.latency_table(measured, missing)}\n\n{terminal(text.kernels_table, profiled)}"


RENDERED: dict[str, Callable[[Records], str]] = {
    "page.en.html": lambda records: html(records, "en"),
    "page.zh.html": lambda records: html(records, "zh"),
    "readme.en.md": lambda records: readme(records, "en", "2023"),
    "readme.zh.md": lambda records: readme(records, "zh", "2022"),
    "summary.md": step_summary.summary,
    "verify.txt": lambda records: text.results_table([entry.data for entry in records.results]) + "\n",
    "layers.txt": lambda records: terminal(text.layers_text, [e for e in records.results if e.data["layers"]]),
    "diagnosis.txt": lambda records: diagnoses(),
    "bisect.txt": lambda records: terminal(text.bisection_text, records.bisections),
    "bench.txt": latency,
    "study.txt": lambda records: terminal(text.study_text, records.studies),
}
"""Every golden file, and what renders it."""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Every kind of record, with one look into an engine and one broken engine."""
    folder = tmp_path_factory.mktemp("golden")
    whole = made.results(values=24)
    recorded.everything(folder)
    recorded.document(folder, "layers.json", results=[whole[2], whole[3]])
    return load([folder])


@pytest.mark.parametrize("name", RENDERED)
def test_reads_as_its_golden_file(name: str, records: Records, pytestconfig: pytest.Config):
    path, text = GOLDEN / name, RENDERED[name](records)
    if pytestconfig.getoption("--rewrite-golden"):
        path.write_text(text, encoding="utf-8")
    golden = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(
        golden.splitlines(), text.splitlines(), f"tests/golden/{name}", "rendered", lineterm=""
    )
    diff = "\n".join(lines)
    if diff:
        pytest.fail(f"{diff}\nwhere this is as it should be: python -m pytest tests/test_golden.py --rewrite-golden")


NAMES = frozenset((
    "clip", "net", "unet", "minilm", "sample", "gelu", "gemm", "softmax", "tokens", "one", "two", "short",
    "wrong", "slower", "rtx", "cuda", "torch", "seed", "eager", "unfused", "pd", "max", "engine", "parity",
    "verify", "precision", "batch", "for",
))  # fmt: skip
"""What the records name: models, cases, outputs, kernels, backends, keys of files."""
LOANWORDS = frozenset((
    "ms", "bug", "issue", "commit", "plugin", "timeline", "inf", "container", "driver", "backend", "compute",
    "capability",
))  # fmt: skip
"""What a Chinese engineer writes in English."""


@pytest.mark.parametrize("name", ["readme.zh.md", "page.zh.html"])
def test_the_chinese_holds_no_english_but_names(name: str, records: Records):
    text = RENDERED[name](records)
    if name.endswith(".md"):  # a bug report is sent to NVIDIA, in English
        text = re.sub(r"(?s)\n### Bug .*?(?=\n<!-- |\n## |\Z)", " ", text)
    text = re.sub(r"(?s)<!--.*?-->|```.*?```|`[^`]*`|<(code|pre)\b.*?</\1>|https?://\S+|<[^>]*>", " ", text)
    words = re.findall(r"[\w./=#:@-]+", text.replace("\\_", "_"), flags=re.ASCII)
    assert {word for word in words if re.fullmatch("[a-z]{2,}", word)} <= NAMES | LOANWORDS


def test_every_golden_file_is_rendered():
    assert {path.name for path in GOLDEN.iterdir()} == set(RENDERED)
