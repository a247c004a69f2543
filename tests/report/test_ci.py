"""What a CI run shows: the summary of GitHub's job page, and the badge."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded

from harness.errors import UsageError
from harness.records import Known
from harness.records import reader as records
from harness.records.latency import Comparison
from harness.report import ci
from harness.report.html.page import page
from harness.report.words import LANGUAGES

FAILED = recorded.result("fail", reason="relative error 0.1", next_step="parity bisect net -b rtx -p fp16")
SKIPPED = recorded.result("not_judged", reason="no GPU", outputs=())


def test_the_summary_says_what_failed_and_what_to_type(tmp_path: Path):
    text = ci.summary(recorded.load(tmp_path, results=[FAILED, recorded.result(case="two")], bench=recorded.sweep()))
    for fact in ("1 passed, 1 failed", "weights: random", "inputs: random", "NVIDIA H200"):
        assert fact in text
    failure = next(line for line in text.split("\n") if line.startswith("- `net`/`one`"))
    assert failure.endswith(FAILED.reason)
    assert FAILED.next_step in text
    assert recorded.cells(text, "`net`", "`two`", "`rtx-fp16`") == ["pass", "0.001", "0.0009"]
    assert recorded.cells(text, "`net`", "`one batch=1`", "`rtx-fp16`") == ["no baseline", "0.9", "4.7"]


def test_the_summary_says_how_many_runs_there_were_and_what_they_miss(tmp_path: Path):
    results = [recorded.result(runs=8), recorded.result(case="two", backend="ort-cpu", runs=2)]
    text = ci.summary(recorded.load(tmp_path, results=results))
    assert re.search(r"8 runs of rtx-fp16: .*1 of 3 runs is missed with 4%, one in 1 of 10 with 43%", text)
    assert re.search(r"2 runs of ort-cpu-fp16: .*1 of 3 runs is missed with 44%, one in 1 of 10 with 81%", text)
    many = ci.summary(recorded.load(tmp_path, results=[recorded.result(runs=20)]))
    assert "1 of 3 runs is missed with less than 1%" in many
    assert "runs of" not in ci.summary(recorded.load(tmp_path, results=[recorded.result()]))


def test_the_summary_shows_a_nan_as_such_and_a_run_that_was_cut_short(tmp_path: Path):
    bad = recorded.output(verdict="fail", stats=recorded.stats(1e-9, mismatched_nonfinite=1))
    results = [recorded.result("fail", outputs=(bad,))]
    text = ci.summary(recorded.load(tmp_path, results=results, complete=False, error="interrupted"))
    assert recorded.cells(text, "`net`", "`one`", "`rtx-fp16`")[:2] == ["**FAIL**", "NaN/Inf"]
    assert re.search("all.json.*interrupted", text)


def test_a_summary_beyond_githubs_limit_counts_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ci, "LIMIT", 600)
    results = [recorded.result(case=f"case {number}") for number in range(50)]
    text = ci.summary(recorded.load(tmp_path, results=results))
    assert len(text.encode()) <= 600
    assert "entries left out" in text
    assert text.count("<details>") == text.count("</details>") == 1


def test_the_limit_holds_for_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ci, "LIMIT", 3000)
    results = [recorded.result("fail", case=str(n), reason="x" * 400, next_step="parity bisect") for n in range(50)]
    text = ci.summary(recorded.load(tmp_path, results=results))
    assert 2000 < len(text.encode()) <= 3000
    assert text.count("```bash") == text.count("x" * 400) == text.count("parity bisect")
    assert "entries left out" in text


def test_the_summary_shows_an_infinite_error_as_such(tmp_path: Path):
    zero = recorded.output("a", "fail", stats=replace(recorded.stats(), relative_l2=math.inf))
    results = [recorded.result("fail", outputs=(zero, recorded.output("b")))]
    text = ci.summary(recorded.load(tmp_path, results=results))
    assert recorded.cells(text, "`net`", "`one`", "`rtx-fp16`")[:2] == ["**FAIL**", "inf"]


def test_the_summary_is_appended_to_the_file_that_github_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert ci.write_summary("a\n") is None
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "s.md"))
    for text in ("a\n", "b\n"):
        assert ci.write_summary(text) == tmp_path / "s.md"
    assert (tmp_path / "s.md").read_text() == "a\nb\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(UsageError, match="cannot write GITHUB_STEP_SUMMARY"):
        ci.write_summary("a")


@pytest.mark.parametrize(
    ("results", "message", "colour"),
    [
        ([recorded.result()], "1 passed", "brightgreen"),
        ([recorded.result(), FAILED], "1 failed, 1 passed", "red"),
        ([recorded.result(), SKIPPED], "1 passed, 1 not judged", "yellow"),
        ([SKIPPED], "1 not judged", "lightgrey"),
        ([], "nothing recorded", "lightgrey"),
    ],
)
def test_the_badge_is_green_only_when_all_was_judged_and_passed(
    results: list[Any], message: str, colour: str, tmp_path: Path
):
    assert ci.badge(recorded.load(tmp_path, results=results)) == {
        "schemaVersion": 1, "label": "parity", "message": message, "color": colour, "isError": colour == "red",
    }  # fmt: skip


def test_the_badge_is_not_green_for_a_run_cut_short_or_a_broken_file(tmp_path: Path):
    assert ci.badge(recorded.load(tmp_path, results=[recorded.result()], complete=False))["color"] == "yellow"
    recorded.document(tmp_path, results=[recorded.result()])
    (tmp_path / "bad.json").write_text("{")
    found = ci.badge(records.load([tmp_path]))
    assert (found["message"], found["color"]) == ("1 passed, 1 unreadable", "yellow")


@pytest.mark.parametrize(("repeated", "colour"), [(True, "red"), (False, "yellow")])
def test_a_regression_counts_when_it_was_seen_twice(repeated: bool, colour: str, tmp_path: Path):
    slower = Comparison(verdict="regressed", ratio=1.2, low=1.1, high=1.3, repeated=repeated)
    bench = [replace(recorded.measured(), comparison=slower)]
    assert ci.badge(recorded.load(tmp_path, results=[recorded.result()], bench=bench))["color"] == colour


KNOWN = Known(
    file="known.toml", entry=1, kind="wrong_answer", at_most=None, reason="kernel 7", issue="https://example.com/7",
    owner="team-x", expires="2027-03-01", verdict="fail",
)  # fmt: skip


def test_failures_stand_under_who_answers_for_them(tmp_path: Path):
    failed = [replace(FAILED, case=case, owner=owner) for case, owner in (("a", "zoe"), ("b", ""), ("c", "adam"))]
    text = ci.summary(recorded.load(tmp_path, results=failed))
    places = [text.index(words) for words in ("**`adam`**", "`net`/`c`", "**`zoe`**", "`net`/`a`", "**no owner**")]
    assert places == sorted(places)
    assert "**" not in ci.summary(recorded.load(tmp_path, results=[FAILED])).partition("<details>")[0]


def test_known_failures_are_counted_and_listed_and_never_green(tmp_path: Path):
    known = replace(FAILED, verdict="known", known=KNOWN, owner="team-x")
    standing = {
        "file": "known.toml", "entry": 1, "subject": "net", "source": "", "target": ["rtx-fp16"], "case": [],
        "kind": "wrong_answer", "at_most": None, "reason": "kernel 7", "issue": "https://example.com/7",
        "owner": "team-x", "expires": "2027-03-01", "days_left": 3, "expires_soon": True, "status": "known",
        "matched": 2, "reached": 1,
    }  # fmt: skip
    found = recorded.load(tmp_path, results=[known, recorded.result(case="two")], known=[standing])
    text = ci.summary(found)
    assert "1 passed, 0 failed, 1 known to fail, 0 not judged" in text
    assert recorded.cells(text, "`net`", "`rtx-fp16`", "all")[1:3] == ["known", "team-x"]
    assert "expires on 2027-03-01" in text
    assert (ci.badge(found)["color"], ci.badge(found)["message"]) == ("yellow", "1 passed, 1 known")
    for lang in ("en", "zh"):
        shown = page(found, lang=lang)
        assert recorded.banner(shown) == "warn"
        assert LANGUAGES[lang]["verdict_known"] in shown
        assert "team-x" in shown
