"""A record whose parts contradict its verdict is green nowhere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded

from harness.cli import commands as cli
from harness.records import CONTRADICTORY, ContestPicture, ContestResult, MetricResult, Question, exit_status, load
from harness.records.contradictions import IS_WRONG
from harness.records.known import Known
from harness.records.latency import Comparison
from harness.report import badge, summary
from harness.report.html import page as html
from harness.report.text import failure_text, result_line, results_table, study_text
from harness.report.verdicts import all_verdicts, problems
from harness.report.words import LANGUAGES


def metric(verdict: Any) -> MetricResult:
    return MetricResult(name="wer", verdict=verdict, reason="0.4", actual=0.4, expected=0.0, allowed=0.1)


RESULTS = {
    "an output failed": (recorded.result(outputs=(recorded.output(), recorded.output("z", "fail"))), "fail"),
    "an output was not judged": (recorded.result(outputs=(recorded.output("z", "not_judged"),)), "not_judged"),
    "a metric failed": (recorded.result(metrics=(metric("fail"),)), "fail"),
    "a metric was not judged": (recorded.result(metrics=(metric("not_judged"),)), "not_judged"),
    "nothing was judged": (recorded.result(outputs=()), "not_judged"),
    "a value is NaN": (recorded.result(outputs=(recorded.output(stats=recorded.stats(math.nan)),)), "fail"),
    "not judged, and an output failed": (
        recorded.result("not_judged", outputs=(recorded.output(verdict="fail"),)), "fail"
    ),
}  # fmt: skip


def invalid() -> Any:
    """Return a session of which no process counts, and which is said to be as fast as before."""
    measured = recorded.measured()
    runs = tuple(replace(run, invalid=("another process ran",)) for run in measured.session.runs)
    same = Comparison(verdict="equivalent", ratio=1.0, low=0.99, high=1.01)
    return replace(measured, session=replace(measured.session, runs=runs), comparison=same)


def wrong_score() -> dict[str, Any]:
    picture = ContestPicture(name="bird", latency_ms=9.0, pd=None, file="", reason="no picture")
    parts: dict[str, Any] = {"folder": "entry", "verdict": "pass", "reason": "", "parameters": {}}
    return ContestResult(pictures=(picture,), **parts).to_json()


OTHERS: dict[str, dict[str, Any]] = {
    "bisection": {
        "bisect": recorded.bisection(
            kind="none", finding="nothing to repair",
            gates=(Question(question=IS_WRONG, answer="yes", detail="relative error 0.4", good="no"),),
        )
    },
    "study": {"studied": recorded.study(variants=(
        recorded.variant("fp32", 100.0), recorded.variant("fp16", 60.0, metrics=(metric("fail"),)),
    ))},
    "score": {"score": wrong_score()},
    "latency": {"bench": [invalid()]},
    "faster and slower": {"bench": [replace(
        recorded.measured(), comparison=Comparison(verdict="improved", ratio=1.4, low=1.3, high=1.5)
    )]},
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_has_the_verdict_of_its_worst_part(name: str, tmp_path: Path):
    result, verdict = RESULTS[name]
    found = load([recorded.document(tmp_path, results=[result])])
    shown = found.results[0].data
    assert shown["verdict"] == verdict
    assert shown["reason"].startswith(CONTRADICTORY)
    assert len(found.contradictory) == 1
    assert exit_status([result]) == {"fail": 1, "not_judged": 3}[verdict]
    assert exit_status([result, recorded.result()], [result.backend]) == {"fail": 1, "not_judged": 3}[verdict]
    written = result.to_json()
    for text in (results_table([written]), failure_text(written), result_line(written)):
        assert CONTRADICTORY in text
        assert "1 passed" not in text


@pytest.mark.parametrize("parts", [*({"results": [r]} for r, _ in RESULTS.values()), *OTHERS.values()])
def test_what_contradicts_itself_is_green_nowhere(parts: dict[str, Any], tmp_path: Path, capsys: Any):
    folder = tmp_path / "records"
    folder.mkdir()
    found = load([recorded.document(folder, **parts)])
    assert [one.verdict for one in all_verdicts(found)].count("pass") == 0
    assert any(one.reason.startswith(CONTRADICTORY) for one in all_verdicts(found))
    assert any("contradict" in problem for problem in problems(found))
    assert badge(found)["color"] != "brightgreen"
    assert "1 contradictory" in badge(found)["message"]
    assert "contradict" in summary(found)
    page = html.page(found)
    assert recorded.banner(page) != "good"
    assert CONTRADICTORY in page
    assert cli.main(["report", str(folder), "-o", str(tmp_path / "out")]) == 1
    assert "contradict" in capsys.readouterr().err
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "contradict" in readme
    assert LANGUAGES["en"]["readme_no_findings"] not in readme


def test_the_text_of_a_study_says_it():
    text = study_text(OTHERS["study"]["studied"].to_json())
    assert CONTRADICTORY in text
    assert "1 failed" in text


def test_what_agrees_is_left_as_it_is(tmp_path: Path):
    found = load([recorded.everything(tmp_path)])
    assert found.contradictory == ()
    unjudged = recorded.variant("fp16", 60.0, metrics=(metric("not_judged"),))  # LPIPS may be only shown
    parts = {"studied": recorded.study(variants=(recorded.variant("fp32", 100.0), unjudged))}
    assert load([recorded.document(tmp_path / "study", **parts)]).contradictory == ()
    failed = recorded.result("fail", outputs=(recorded.output(),))  # the engine's runs differ, say
    assert load([recorded.document(tmp_path / "failed", results=[failed])]).contradictory == ()


KNOWN = Known(
    file="known.toml", entry=1, kind="wrong_answer", at_most=10.0, reason="tactic 7", issue="https://example.com/7",
    owner="", expires="2027-03-01", verdict="fail",
)  # fmt: skip


@pytest.mark.parametrize(
    ("claimed", "changes", "found"),
    [
        ("known", {"known": KNOWN, "times_limit": 4.0}, "known"),
        ("pass", {"known": KNOWN, "times_limit": 4.0}, "known"),
        ("not_judged", {"known": KNOWN, "times_limit": 4.0}, "not_judged"),
        ("known", {"known": KNOWN, "times_limit": 40.0}, "fail"),
        ("known", {"known": KNOWN}, "fail"),
        ("known", {"known": replace(KNOWN, why="it passes"), "times_limit": 4.0}, "fail"),
        ("known", {"known": None, "times_limit": 4.0}, "fail"),
        ("known", {"known": KNOWN, "times_limit": 4.0, "failure": "memory"}, "fail"),
    ],
)
def test_a_part_is_known_as_far_as_its_entry_covers_it(
    claimed: str, changes: dict[str, Any], found: str, tmp_path: Path
):
    part = recorded.part("layers.1", "known", **{"failure": "wrong_answer", **changes})
    model = recorded.brought_up(recorded.part(), part, verdict=claimed)
    (entry,) = load([recorded.document(tmp_path / "parts", parts=[model])]).parts
    assert entry.data["verdict"] == found
