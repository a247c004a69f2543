"""What a known failure covers: the same kind of failure, no worse than its entry says; never a NaN by the way."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import recorded

from harness.records import CONTRADICTORY, Known, MetricResult, PartResult, exit_status, load
from harness.records.known import failure_kind, merged_standings, times_limit, why_slower, why_worse
from harness.report import badge
from harness.report.verdicts import all_verdicts


def known(**changes: Any) -> Known:
    fields: dict[str, Any] = {
        "file": "known.toml", "entry": 1, "kind": "wrong_answer", "at_most": 10.0, "reason": "tactic 7",
        "issue": "https://example.com/7", "owner": "team-x", "expires": "2027-03-01", "verdict": "fail",
    }  # fmt: skip
    return Known(**{**fields, **changes})


def wrong(error: float = 0.009, **changes: Any) -> Any:
    """Return an output that fails; its limit is 0.003."""
    return recorded.output(verdict="fail", stats=recorded.stats(error, **changes))


def metric(actual: float, bound: Any = "difference") -> MetricResult:
    return MetricResult(name="wer", verdict="fail", reason="0.4", actual=actual, expected=0.0, allowed=0.1, bound=bound)


COVERED = {
    "three times its limit": (recorded.result("fail", outputs=(wrong(),)), known()),
    "exactly at its bound": (recorded.result("fail", outputs=(wrong(0.03),)), known()),
    "a NaN where any wrong answer is known": (recorded.result("fail", outputs=(wrong(math.nan),)), known(at_most=None)),
    "a metric": (recorded.result("fail", outputs=(recorded.output(),), metrics=(metric(0.4),)), known()),
    "without a figure, where any is known": (
        recorded.result("fail", outputs=(recorded.output(verdict="fail", stats=None),)),
        known(at_most=None),
    ),
    "not launched": (recorded.result("fail", outputs=()), known(kind="crash", at_most=None, verdict="")),
}
WORSE = {
    "more than its bound": (recorded.result("fail", outputs=(wrong(0.04),)), known()),
    "a NaN": (recorded.result("fail", outputs=(wrong(math.nan),)), known()),
    "all zeros": (recorded.result("fail", outputs=(wrong(zero_actual=True),)), known()),
    "constant": (recorded.result("fail", outputs=(wrong(constant_actual=True),)), known()),
    "within its limit": (recorded.result("fail", outputs=(wrong(0.001),)), known()),
    "a worse output beside it": (
        recorded.result("fail", outputs=(wrong(), recorded.output("z", "fail", stats=recorded.stats(0.5)))), known()
    ),
    "a metric far off": (recorded.result("fail", outputs=(wrong(),), metrics=(metric(4.0),)), known()),
    "a metric that is NaN": (recorded.result("fail", outputs=(wrong(),), metrics=(metric(math.nan),)), known()),
    "without a figure": (recorded.result("fail", outputs=(recorded.output(verdict="fail", stats=None),)), known()),
    "outputs of another shape": (recorded.result("fail", outputs=()), known()),
    "a wrong answer of what crashed": (recorded.result("fail", outputs=(wrong(),)), known(kind="crash", at_most=None)),
    "one that passes": (recorded.result(), known(verdict="pass")),
    "one that was not judged": (recorded.result("not_judged", outputs=()), known(verdict="not_judged")),
    "one whose day is over": (recorded.result("fail", outputs=(wrong(),)), known(why="known only until 2020-01-01")),
    "one without a reason": (recorded.result("fail", outputs=(wrong(),)), known(reason="")),
    "one without an issue": (recorded.result("fail", outputs=(wrong(),)), known(issue="")),
    "a wrong answer that was not launched": (recorded.result("fail", outputs=()), known(verdict="")),
    "a crash that ran": (
        recorded.result("fail", outputs=(wrong(),)), known(kind="crash", at_most=None, verdict="")
    ),
    "no entry": (recorded.result("fail", outputs=(wrong(),)), None),
}  # fmt: skip


@pytest.mark.parametrize("name", COVERED)
def test_a_known_failure_is_known_and_never_green(name: str, tmp_path):
    result, entry = COVERED[name]
    result = replace(result, verdict="known", known=entry)
    found = load([recorded.document(tmp_path, results=[result, recorded.result(case="two")])])
    assert (found.results[0].data["verdict"], found.contradictory) == ("known", ())
    assert exit_status([result]) == 0
    assert (badge(found)["color"], badge(found)["message"]) == ("yellow", "1 passed, 1 known")
    assert [one.verdict for one in all_verdicts(found)] == ["known", "pass"]


@pytest.mark.parametrize("name", WORSE)
def test_what_an_entry_does_not_cover_fails_whatever_the_record_says(name: str, tmp_path):
    result, entry = WORSE[name]
    result = replace(result, verdict="known", known=entry)
    found = load([recorded.document(tmp_path, results=[result])])
    shown = found.results[0].data
    assert shown["verdict"] == "fail"
    assert shown["reason"].startswith(CONTRADICTORY)
    assert exit_status([result]) == 1
    assert badge(found)["color"] == "red"


def test_a_known_failure_does_not_stand_for_a_backend_that_is_required():
    crash = replace(COVERED["not launched"][0], verdict="known", known=COVERED["not launched"][1])
    assert exit_status([crash], ["rtx"]) == 3
    assert exit_status([crash, recorded.result(case="two")], ["rtx"]) == 0
    ran = replace(COVERED["three times its limit"][0], verdict="known", known=known())
    assert exit_status([ran], ["rtx"]) == 0


@pytest.mark.parametrize(
    ("made", "bound", "times"),
    [(0.4, "difference", 4.0), (0.4, "at_most", 4.0), (0.02, "at_least", 5.0), (0.0, "at_least", math.inf)],
)
def test_a_metric_loses_so_many_times_its_limit(made, bound, times):
    result = recorded.result("fail", outputs=(recorded.output(),), metrics=(metric(made, bound),)).to_json()
    assert times_limit(result) == pytest.approx(times)


def test_the_worst_part_counts():
    parts = tuple(
        PartResult(kind="slice", figure="scale", error=error, floor=0.001, allowed=0.003, elements=8)
        for error in (0.006, -0.06)
    )
    result = recorded.result("fail", outputs=(recorded.output(verdict="fail", parts=parts),)).to_json()
    assert times_limit(result) == pytest.approx(20)


def test_a_pass_is_no_failure():
    assert failure_kind(recorded.result().to_json()) == ""
    assert why_worse(recorded.result().to_json(), known().to_json())


@pytest.mark.parametrize(("ratio", "covered"), [(1.4, True), (1.6, False), (None, False)])
def test_a_known_regression_is_no_slower_than_its_entry_says(ratio, covered):
    assert (why_slower({"ratio": ratio}, known(kind="regressed", at_most=1.5).to_json()) == "") == covered


def test_an_entry_that_several_runs_saw_is_one_with_the_worst_that_became_of_it():
    seen = [
        {"file": "known.toml", "entry": entry, "status": status, "reached": reached, "matched": 4}
        for entry, status, reached in ((2, "known", 1), (1, "not_reached", 0), (2, "failed", 2), (2, "not_reached", 0))
    ]
    found = [(one["entry"], one["status"], one["reached"], one["matched"]) for one in merged_standings(seen)]
    assert found == [(1, "not_reached", 0, 4), (2, "failed", 3, 4)]
