"""What counts as a verdict, the same for the badge, the summary and the page: nothing is green that was not judged."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded

from harness.records import reader as records
from harness.records import writer as report
from harness.records.contest import ContestPicture, ContestResult
from harness.records.documents import Records
from harness.records.latency import Comparison
from harness.report import ci, step_summary, verdicts
from harness.report.html import page as html

PASSED = recorded.result()
REFERENCE = recorded.variant("fp32", 100.0, "not_judged")


def study(*variants: Any) -> dict[str, Any]:
    return recorded.study(variants=variants).to_json()


def score(verdict: Any, **changes: Any) -> ContestResult:
    pictures = (ContestPicture(name="bird_1", latency_ms=9.0, pd=1.0, file="bird_1.png"),)
    return ContestResult(
        folder="entry", verdict=verdict, reason="why", pictures=pictures, parameters={"seed": 1}, **changes
    )


def with_score(tmp_path: Path, verdict: Any, **changes: Any) -> Records:
    data = report.document([PASSED.to_json()], environment=recorded.ENVIRONMENT, command="parity score")
    report.save_json({**data, "score": score(verdict, **changes).to_json()}, tmp_path / "all.json")
    return records.load([tmp_path])


def test_all_that_passed_is_green(tmp_path: Path):
    slower = Comparison(verdict="equivalent", ratio=1.0, low=0.99, high=1.01)
    bench = [replace(recorded.measured(), comparison=slower)]
    found = recorded.load(
        tmp_path, results=[PASSED], bench=bench, study=study(REFERENCE, recorded.variant("fp16", 60.0))
    )
    assert ci.badge(found)["message"] == "3 passed"
    assert (ci.badge(found)["color"], recorded.banner(html.page(found))) == ("brightgreen", "good")


@pytest.mark.parametrize(
    ("parts", "colour", "tone"),
    [
        ({"study": recorded.study().to_json()}, "red", "bad"),
        ({"study": study(REFERENCE)}, "yellow", "warn"),
        ({"study": study()}, "yellow", "warn"),
        ({"study": study(REFERENCE, recorded.variant("a", 9.0, "not_judged"))}, "yellow", "warn"),
        ({"study": study(recorded.variant("fp32", None, "fail"))}, "red", "bad"),
        ({"bisect": recorded.bisection()}, "red", "bad"),
        ({"bisect": recorded.bisection(kind="not_judged")}, "yellow", "warn"),
        ({"bench": [recorded.measured()]}, "yellow", "warn"),
        ({"complete": True, "error": "no space left"}, "yellow", "warn"),
    ],
    ids=["study", "reference-alone", "empty-study", "unjudged-variant", "failed-reference", "bisection",
         "unjudged-bisection", "no-baseline", "error"],
)  # fmt: skip
def test_nothing_else_is_green(tmp_path: Path, parts: dict[str, Any], colour: str, tone: str):
    found = recorded.load(tmp_path, results=[PASSED], **parts)
    assert ci.badge(found)["color"] == colour
    assert recorded.banner(html.page(found)) == tone


@pytest.mark.parametrize(("failed", "colour", "tone"), [(True, "red", "bad"), (False, "yellow", "warn")])
def test_an_engine_that_could_not_be_timed_is_not_green(tmp_path: Path, failed: bool, colour: str, tone: str):
    data = report.document([PASSED.to_json()], environment=recorded.ENVIRONMENT, command="parity bench")
    missing = {"subject": "net", "case": "one", "backend": "rtx", "precision": "fp16", "reason": "NaN"}
    report.save_json({**data, "not_measured": [{**missing, "failed": failed}]}, tmp_path / "all.json")
    found = records.load([tmp_path])
    assert (ci.badge(found)["color"], recorded.banner(html.page(found))) == (colour, tone)
    assert ("- latency: `net rtx-fp16 one`: NaN" in step_summary.summary(found)) == failed


def test_a_baseline_that_could_not_be_timed_keeps_its_name(tmp_path: Path):
    missing = {"subject": "net", "case": "one", "backend": "torch", "precision": "fp32", "reason": "no", "failed": True}
    rows = [{**missing, "runner": runner} for runner in ("eager", "compile")]
    found = recorded.load(tmp_path, not_measured=[*rows, {**missing, "runner": "eager", "sizes": {"batch": 4}}])
    names = [one.name for one in verdicts.all_verdicts(found)]
    assert names == ["net eager fp32 one", "net compile fp32 one", "net eager fp32 one batch=4"]


def test_foreign_files_and_verdicts_recorded_twice_are_no_problem(tmp_path: Path):
    for name in ("a.json", "b.json"):
        recorded.document(tmp_path, name, results=[PASSED])
    (tmp_path / "request.json").write_text("{}")
    found = records.load([tmp_path])
    assert [len(found.foreign), len(found.twice), verdicts.problems(found)] == [1, 1, []]
    assert ci.badge(found)["color"] == "brightgreen"


def test_problems_name_what_is_missing(tmp_path: Path):
    recorded.document(tmp_path, results=[PASSED], study=study(), complete=False, error="no space left")
    (tmp_path / "bad.json").write_text("{")
    broken, cut, empty = verdicts.problems(records.load([tmp_path]))
    assert broken.startswith("bad.json is not used")
    assert cut.startswith("all.json ")
    assert cut.endswith("no space left")
    assert "canny2image" in empty


@pytest.mark.parametrize(
    ("verdict", "colour", "tone"),
    [("pass", "brightgreen", "good"), ("fail", "red", "bad"), ("not_judged", "yellow", "warn")],
)
def test_a_contest_folder_counts(tmp_path: Path, verdict: str, colour: str, tone: str):
    found = with_score(tmp_path, verdict, pd_max=1.0, pd_mean=1.0, latency_ms=9.0, score_rule="a rule")
    assert (ci.badge(found)["color"], recorded.banner(html.page(found))) == (colour, tone)
    page = html.page(found)
    assert "entry" in page
    assert "bird_1" in page


def test_the_newest_session_counts_and_pytorch_only_with_a_baseline_of_its_own(tmp_path: Path):
    worse = Comparison(verdict="regressed", ratio=1.2, low=1.1, high=1.3, repeated=True)
    same = Comparison(verdict="equivalent", ratio=1.0, low=0.99, high=1.01)
    none = Comparison(verdict="no_baseline", ratio=None, low=None, high=None)
    old = replace(recorded.measured(id="a", recorded_at="2026-01-01T00:00:00Z"), comparison=worse)
    new = replace(recorded.measured(id="b", recorded_at="2026-01-03T00:00:00Z"), comparison=same)
    eager = replace(recorded.measured(backend="torch", precision="fp32", runner="eager"), comparison=none)
    found = recorded.load(tmp_path, bench=[old, new, eager])
    assert [(one.kind, one.verdict) for one in verdicts.all_verdicts(found)] == [("latency", "pass")]
    slow = recorded.load(tmp_path, bench=[replace(eager, comparison=worse)])
    assert [one.verdict for one in verdicts.all_verdicts(slow)] == ["fail"]


def test_a_file_of_another_version_is_missed_and_not_passed_over(tmp_path: Path):
    recorded.document(tmp_path, results=[PASSED])
    (tmp_path / "new.json").write_text('{"schema": "parity/99", "results": []}')
    (tmp_path / "other.json").write_text('{"schema": "somebody/1"}')
    found = records.load([tmp_path])
    assert [len(found.broken), len(found.foreign)] == [1, 1]
    assert ci.badge(found)["color"] == "yellow"
    assert recorded.banner(html.page(found)) == "warn"


def test_the_summary_names_what_failed_of_every_kind(tmp_path: Path):
    found = recorded.load(tmp_path, results=[PASSED], study=recorded.study().to_json())
    text = step_summary.summary(found)
    assert "**1 study failed** · 3 passed" in text
    assert re.search("study.*wrong.*PD 14 .*above 12", text)
