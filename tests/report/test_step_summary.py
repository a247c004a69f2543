"""What the summary on GitHub's job page shows."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import recorded

from harness.errors import UsageError
from harness.records import Known, load
from harness.report import ci, step_summary
from harness.report.html.page import page
from harness.report.words import LANGUAGES

FAILED = recorded.result("fail", reason="relative error 0.1", next_step="parity bisect net -b rtx -p fp16")
SKIPPED = recorded.result("not_judged", reason="no GPU", outputs=())


def test_the_summary_says_what_failed_and_what_to_type(tmp_path: Path):
    text = step_summary.summary(
        recorded.load(tmp_path, results=[FAILED, recorded.result(case="two")], bench=recorded.sweep())
    )
    first = text.split("<details")[0]
    for fact in ("❌ parity: 1 of 1 model fails on NVIDIA H200", "**1 accuracy failed** · 1 passed", "c0ffee",
                 "TensorRT for RTX 1.6.1.120", "weights: random; inputs: random", FAILED.next_step):  # fmt: skip
        assert fact in first
    failure = next(line for line in text.split("\n") if line.startswith("- `net`/`one`"))
    assert failure.endswith(FAILED.reason)
    assert FAILED.next_step in text
    assert recorded.cells(text, "`net`", "`two`", "`rtx-fp16`") == ["pass", "0.001", "0.0009", "1.11"]
    assert recorded.cells(text, "`net`", "`one batch=1`", "`rtx-fp16`") == ["no baseline", "0.9", "4.7"]


def test_the_summary_says_how_many_runs_there_were_and_what_they_miss(tmp_path: Path):
    results = [recorded.result(runs=8), recorded.result(case="two", backend="ort-cpu", runs=2)]
    text = step_summary.summary(recorded.load(tmp_path, results=results))
    assert re.search(r"8 runs of rtx-fp16: .*1 of 3 runs is missed with 4%, one in 1 of 10 with 43%", text)
    assert re.search(r"2 runs of ort-cpu-fp16: .*1 of 3 runs is missed with 44%, one in 1 of 10 with 81%", text)
    many = step_summary.summary(recorded.load(tmp_path, results=[recorded.result(runs=20)]))
    assert "1 of 3 runs is missed with less than 1%" in many
    assert "runs of" not in step_summary.summary(recorded.load(tmp_path, results=[recorded.result()]))


def test_the_summary_shows_a_nan_as_such_and_a_run_that_was_cut_short(tmp_path: Path):
    bad = recorded.output(verdict="fail", stats=recorded.stats(1e-9, mismatched_nonfinite=1))
    results = [recorded.result("fail", outputs=(bad,))]
    text = step_summary.summary(recorded.load(tmp_path, results=results, complete=False, error="interrupted"))
    assert recorded.cells(text, "`net`", "`one`", "`rtx-fp16`")[:2] == ["**FAIL**", "NaN/Inf 1/1000"]
    assert re.search("all.json.*interrupted", text)


def test_a_summary_beyond_githubs_limit_counts_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_summary, "LIMIT", 900)
    results = [recorded.result(case=f"case {number}") for number in range(50)]
    text = step_summary.summary(recorded.load(tmp_path, results=results))
    assert len(text.encode()) <= 900
    assert "entries left out" in text
    assert text.count("<details>") == text.count("</details>") == 1


def test_the_limit_holds_for_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_summary, "LIMIT", 3000)
    results = [recorded.result("fail", case=str(n), reason="x" * 400, next_step="parity bisect") for n in range(50)]
    text = step_summary.summary(recorded.load(tmp_path, results=results))
    assert 2000 < len(text.encode()) <= 3000
    assert text.count("```bash") == text.count("x" * 400) == text.count("parity bisect\n")
    assert "entries left out" in text


def test_the_summary_shows_an_infinite_error_as_such(tmp_path: Path):
    zero = recorded.output("a", "fail", stats=replace(recorded.stats(), relative_l2=math.inf))
    results = [recorded.result("fail", outputs=(zero, recorded.output("b")))]
    text = step_summary.summary(recorded.load(tmp_path, results=results))
    assert recorded.cells(text, "`net`", "`one`", "`rtx-fp16`")[:2] == ["**FAIL**", "inf (`a`)"]


def test_the_summary_is_appended_to_the_file_that_github_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert step_summary.write_summary("a\n") is None
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "s.md"))
    for text in ("a\n", "b\n"):
        assert step_summary.write_summary(text) == tmp_path / "s.md"
    assert (tmp_path / "s.md").read_text() == "a\nb\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(UsageError, match="cannot write GITHUB_STEP_SUMMARY"):
        step_summary.write_summary("a")


KNOWN = Known(
    file="known.toml", entry=1, kind="wrong_answer", at_most=None, reason="kernel 7", issue="https://example.com/7",
    owner="team-x", expires="2027-03-01", verdict="fail",
)  # fmt: skip


def test_failures_stand_under_who_answers_for_them(tmp_path: Path):
    failed = [replace(FAILED, case=case, owner=owner) for case, owner in (("a", "zoe"), ("b", ""), ("c", "adam"))]
    text = step_summary.summary(recorded.load(tmp_path, results=failed))
    places = [
        text.index(words, text.index("Failed:"))
        for words in ("**`adam`**", "`net`/`c`", "**`zoe`**", "`net`/`a`", "**no owner**")
    ]
    assert places == sorted(places)
    assert "no owner" not in step_summary.summary(recorded.load(tmp_path, results=[FAILED]))


def test_known_failures_are_counted_and_listed_and_never_green(tmp_path: Path):
    known = replace(FAILED, verdict="known", known=KNOWN, owner="team-x")
    standing = {
        "file": "known.toml", "entry": 1, "subject": "net", "source": "", "target": ["rtx-fp16"], "case": [],
        "kind": "wrong_answer", "at_most": None, "reason": "kernel 7", "issue": "https://example.com/7",
        "owner": "team-x", "expires": "2027-03-01", "days_left": 3, "expires_soon": True, "status": "known",
        "matched": 2, "reached": 1,
    }  # fmt: skip
    found = recorded.load(tmp_path, results=[known, recorded.result(case="two")], known=[standing])
    text = step_summary.summary(found)
    assert "1 passed · 1 known to fail" in text
    assert recorded.cells(text, "`net`", "`rtx-fp16`", "all")[1:3] == ["known", "team-x"]
    assert "expires on 2027-03-01" in text
    assert (ci.badge(found)["color"], ci.badge(found)["message"]) == ("yellow", "1 passed, 1 known")
    for lang in ("en", "zh"):
        shown = page(found, lang=lang)
        assert recorded.banner(shown) == "warn"
        assert LANGUAGES[lang]["verdict_known"] in shown
        assert "team-x" in shown


def test_what_stands_above_the_folds_has_at_most_15_lines_the_worst_engine_first(tmp_path: Path):
    failed = [
        replace(FAILED, subject=f"net{times}", outputs=(recorded.output(verdict="fail", stats=recorded.stats(times)),))
        for times in range(1, 9)
    ]
    recorded.document(tmp_path, results=[*failed, SKIPPED], bench=recorded.sweep(), complete=False, error="killed")
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.json").write_text("{")
    text = step_summary.summary(load([tmp_path]))
    lines = [line for line in text.split("<details")[0].splitlines() if line]
    assert len(lines) <= 15
    assert [line.split("`")[1] for line in lines if line.startswith("| ❌")] == [f"net{n}" for n in (8, 7, 6, 5, 4, 3)]
    assert "and 3 engines more" in text
    assert "Further problems of the records: 2" in text


def test_error_and_floor_of_a_row_are_of_one_output(tmp_path: Path):
    far = recorded.output("far", "fail", stats=recorded.stats(0.01))
    result = recorded.result("fail", outputs=(far, recorded.output("near")))
    text = step_summary.summary(recorded.load(tmp_path, results=[result]))
    floor = far.floor.relative_l2
    assert recorded.cells(text, "❌")[2:5] == ["0.01 (`far`)", f"{floor:g}", f"{0.01 / floor:.3g}"]


def test_what_was_not_judged_stands_with_its_reason_once_and_what_to_type(tmp_path: Path):
    skipped = [replace(SKIPPED, case=case, next_step="pip install x") for case in ("a", "b")]
    text = step_summary.summary(recorded.load(tmp_path, results=skipped))
    assert "- 2 verdicts: no GPU: `net rtx-fp16 a`, `net rtx-fp16 b`\n" in text
    assert text.count("pip install x") == 2, "above the folds, and beside its reason"
    assert text.startswith("## ⚠️ parity: of 1 model nothing was judged")


@pytest.mark.parametrize("rest", ["", "+changes"])
def test_a_commit_is_named_by_its_first_seven_digits(rest: str, tmp_path: Path):
    environment = {**recorded.ENVIRONMENT, "commit": f"{'0123456789' * 4}{rest}"}
    passed = replace(recorded.result(), provenance=None)
    text = step_summary.summary(recorded.load(tmp_path, results=[passed], environment=environment))
    assert f"`0123456{rest}`" in text
