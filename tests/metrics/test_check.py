"""``parity.check_metric`` in a test run of its own, with an engine that is only pretended."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest_plugins = ["pytester"]

SUITE = """
from harness import NotJudged, Subject, targets
from harness.checks import test_outputs
from harness.metrics import Metric
from harness.metrics.remarks import remark

SUBJECT = Subject(
    name="clip", build=object, cases={"one": dict}, weights="random", targets=targets("rtx", precisions=("fp16",))
)


def no_weights(actual, expected):
    raise NotJudged("no weights: put them there")


def distance(actual, expected):
    remark("computed on random weights")
    return (actual["y"] - expected["y"]).abs()


def test_task(parity):
"""


def run(project: pytest.Pytester, body: str, *options: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    project.makepyfile(test_clip=SUITE + f"    {body}\n")
    result = project.runpytest_inprocess("-ra", "--parity-json", "out.json", *options)
    (found,) = json.loads((project.path / "out.json").read_text())["results"]
    return result, found


@pytest.mark.parametrize(
    ("limit", "verdict", "words"),
    [
        ("at_most=0.5", "pass", "0.5 (worst of 2, mean 0.25): allowed at most 0.5"),
        ("at_most=0.4", "fail", "0.5 (worst of 2, mean 0.25): allowed at most 0.4"),
        ("at_least=0.1", "fail", "0 (worst of 2, mean 0.25): allowed at least 0.1"),
    ],
)
def test_bound_metric(project: pytest.Pytester, limit: str, verdict: str, words: str):
    result, found = run(project, f'parity.check_metric(Metric("d", distance, {limit}, why="a test"))')
    result.assert_outcomes(passed=2 if verdict == "pass" else 1, failed=0 if verdict == "pass" else 1)
    (metric,) = found["metrics"]
    assert (metric["verdict"], found["verdict"]) == (verdict, verdict)
    assert (metric["reason"], metric["note"]) == (words, "computed on random weights")
    assert metric["bound"] == limit.partition("=")[0]
    assert metric["expected"] is None


def test_short_form_limits_the_difference(project: pytest.Pytester):
    result, found = run(project, 'parity.check_metric("sum", lambda out: out["y"].sum(), at_most=0.5)')
    result.assert_outcomes(passed=2)
    (metric,) = found["metrics"]
    assert (metric["actual"], metric["expected"], metric["bound"]) == (3.5, 3.0, "difference")


NOT_JUDGED = 'parity.check_metric(Metric("pd", no_weights, at_most=12, why="a test"))'


def test_metric_that_cannot_be_computed_is_no_pass(project: pytest.Pytester):
    result, found = run(project, NOT_JUDGED)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*not judged: pd: no weights: put them there"])
    assert (found["verdict"], found["reason"]) == ("not_judged", "pd: no weights: put them there")
    assert [metric["verdict"] for metric in found["metrics"]] == ["not_judged"]


def test_metric_that_cannot_be_computed_fails_where_it_is_required(project: pytest.Pytester):
    result, _ = run(project, NOT_JUDGED, "--require", "rtx")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*required backend rtx gave no verdict: pd: no weights: put them there*"])


def test_nan_and_exceptions_leave_no_passed_result(project: pytest.Pytester):
    result, found = run(project, 'parity.check_metric("m", lambda out: out["y"] * float("nan"), at_most=9)')
    result.assert_outcomes(passed=1, failed=1)
    assert found["verdict"] == "fail"
    result, found = run(project, 'parity.check_metric("m", lambda out: out["typo"], at_most=9)')
    result.assert_outcomes(passed=1, failed=1)
    assert (found["verdict"], found["reason"]) == ("fail", "m: raised KeyError: 'typo'")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ('parity.check_metric("m", at_most=1)', "needs a function and at_most="),
        ('parity.check_metric("m", distance)', "needs a function and at_most="),
        ('parity.check_metric(Metric("m", distance, at_most=1, why="a test"), at_most=2)', "give it alone"),
    ],
)
def test_calls_that_make_no_sense(project: pytest.Pytester, call: str, words: str):
    result, _ = run(project, call)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"*{words}*"])
