"""Two sets of records side by side: on the terminal and on the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded

from harness.records import Records
from harness.report import against as side
from harness.report.html.page import page
from harness.report.words import LANGUAGES


def loaded(folder: Path, *results: Any, bench: Any = ()) -> Records:
    """Return the records of a run."""
    return recorded.load(folder, results=list(results), bench=list(bench))


def kinds(old: Records, new: Records) -> dict[str, str]:
    """Return the kind of each change by the name of what changed."""
    return {one.name: one.kind for one in side.changes(old, new)}


def case(name: str, verdict: str = "pass", error: float = 1e-3) -> Any:
    """Return a result of a case."""
    return recorded.result(verdict, case=name, outputs=(recorded.output(verdict=verdict, stats=recorded.stats(error)),))


def test_every_kind_of_change_the_worst_first(tmp_path: Path):
    old = loaded(tmp_path / "old", case("a"), case("b"), case("c"), case("d", "fail"), case("e"))
    new = loaded(tmp_path / "new", case("a"), case("b", "fail"), case("c", error=2e-3), case("d"), case("f"))
    found = kinds(old, new)
    assert found == {
        "net rtx-fp16 b": "worse", "net rtx-fp16 e": "gone", "net rtx-fp16 c": "moved", "net rtx-fp16 f": "new",
        "net rtx-fp16 d": "better",
    }  # fmt: skip
    assert list(found.values()) == list(side.KINDS)
    assert side.changes(new, new) == ()


@pytest.mark.parametrize(("verdict", "kind"), [("not_judged", "worse"), ("known", "worse"), ("fail", "worse")])
def test_what_is_no_pass_any_more_is_worse(verdict: Any, kind: str, tmp_path: Path):
    changed = replace(case("a"), verdict=verdict, outputs=())
    if verdict == "known":
        changed = replace(changed, failure="crash")
    assert kinds(loaded(tmp_path / "old", case("a")), loaded(tmp_path / "new", changed)) == {"net rtx-fp16 a": kind}


@pytest.mark.parametrize(("error", "moved"), [(1.05e-3, False), (1.2e-3, True), (0.8e-3, True)])
def test_an_error_has_moved_where_it_is_another_share_of_the_floor(error: float, moved: bool, tmp_path: Path):
    found = kinds(loaded(tmp_path / "old", case("a")), loaded(tmp_path / "new", case("a", error=error)))
    assert bool(found) == moved


@pytest.mark.parametrize(("ms", "moved"), [(2.02, False), (2.4, True), (1.7, True)])
def test_a_latency_has_moved_where_no_process_took_as_long(ms: float, moved: bool, tmp_path: Path):
    old, new = (loaded(tmp_path / str(n), bench=[recorded.measured(took)]) for n, took in enumerate((2.0, ms)))
    assert list(kinds(old, new).values()) == ["moved"] * moved


def test_the_terminal_and_the_page_say_it(tmp_path: Path):
    old, new = loaded(tmp_path / "old", case("a")), loaded(tmp_path / "new", case("a", "fail", 0.1))
    text = side.changes_text(side.changes(old, new), "old.json")
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["worse"]
    for lang in ("en", "zh"):
        shown = page(new, lang=lang, against=("old.json", old))
        assert LANGUAGES[lang]["change_worse"] in shown
        assert LANGUAGES[lang]["changes_none"] in page(new, lang=lang, against=("new.json", new))
        assert 'id="changes"' not in page(new, lang=lang)
