"""The checks of a suite, ``test_outputs``, ``test_layers`` and ``parity.check_metric``, in a test run of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake import quiet
from planted import PLANTED, install

from harness.verify.prepare import prepare

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


@pytest.mark.parametrize(("options", "ending"), [((), "skipped"), (("--require", "rtx"), "failed")])
def test_a_suite_s_own_test_that_cannot_judge_is_no_pass_and_no_traceback(
    project: pytest.Pytester, options: tuple[str, ...], ending: str
):
    result, _ = run(project, 'raise NotJudged("no weights: put them there")', *options)
    result.assert_outcomes(passed=1, **{ending: 1})
    assert "no weights: put them there" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()
    assert "raise NotJudged" not in result.stdout.str()


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
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*{words}*"])


# test_layers and test_outputs of an engine with a planted fault


@pytest.fixture(scope="module")
def all_loaded(kept_modules: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Load what an export loads late: a run in this process forgets its imports, and PyTorch's bear no repetition."""
    assert prepare(PLANTED["masked_nan"].subject, quiet(tmp_path_factory.mktemp("loaded"))).program.values


@pytest.fixture
def planted_project(all_loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose runs in this process see the backend that is installed here."""
    pytester.makeconftest('pytest_plugins = ["harness.plugin"]')
    others = "-p no:randomly -p no:cacheprovider -p no:hypothesispytest -p no:benchmark"
    pytester.makeini(f"[pytest]\naddopts = --strict-markers {others}\n")
    monkeypatch.setenv("PARITY_ENGINES", "engines")
    monkeypatch.setenv("PARITY_REFERENCES", "references")
    return pytester


PLANT = "import planted\nSUBJECT = planted.PLANTED[{name!r}].subject\n"


def suite(name: str, *checks: str) -> str:
    return f"from harness.checks import {', '.join(checks)}\n{PLANT.format(name=name)}"


def recorded(planted_project: pytest.Pytester) -> Any:
    [result] = json.loads((planted_project.path / "out.json").read_text())["results"]
    return result


def test_the_check_passes_and_records_every_value(planted_project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    engine = install(monkeypatch, PLANTED["masked_overflow"])
    planted_project.makepyfile(test_it=suite("masked_overflow", "test_layers", "test_outputs"))
    planted_project.runpytest_inprocess("--parity-json", "out.json").assert_outcomes(passed=2)
    report = recorded(planted_project)["layers"]
    assert report["trusted"]
    assert [value for value in report["values"] if value["status"] == "compared"]
    assert engine.builds == 2, "one to be judged and one to be looked into"


def test_the_check_fails_with_the_table(planted_project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, PLANTED["wrong_kernel"])
    planted_project.makepyfile(test_it=suite("wrong_kernel", "test_layers"))
    result = planted_project.runpytest_inprocess("--parity-json", "out.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: wrong_kernel/one [[]planted fp16[]] WRONG: output * x what is allowed",
            "*culprit: *linear_1*",
            "*next: parity bisect * -b planted -p fp16",
            "*SUSPECT*linear_1*blocks.1.linear*",
        ]
    )
    marks = {value["name"]: value["mark"] for value in recorded(planted_project)["layers"]["values"]}
    assert [name for name, mark in marks.items() if mark == "suspect"] == ["linear_1"]


@pytest.mark.parametrize("order", [("outputs", "layers", "task"), ("task", "layers", "outputs")])
def test_the_layers_stay_beside_a_metric_that_fails(
    order: tuple[str, ...], planted_project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, PLANTED["masked_overflow"])
    metric = "parity.check_metric('m', lambda out: out['output'] + next(COUNT), at_most=0.1)"
    checks = {
        "outputs": "\ndef test_outputs(parity):\n    parity.check()\n",
        "layers": "\ndef test_layers(parity):\n    parity.check_layers()\n",
        "task": f"\nimport itertools\nCOUNT = itertools.count()\n\ndef test_task(parity):\n    {metric}\n",
    }
    planted_project.makepyfile(test_it=PLANT.format(name="masked_overflow") + "".join(checks[name] for name in order))
    planted_project.runpytest_inprocess("--parity-json", "out.json").assert_outcomes(passed=2, failed=1)
    found = recorded(planted_project)
    assert (found["verdict"], [metric["verdict"] for metric in found["metrics"]]) == ("fail", ["fail"])
    assert found["layers"]["values"]


def test_a_failing_check_of_outputs_prints_the_command_that_goes_on(
    planted_project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, PLANTED["wrong_kernel"])
    planted_project.makepyfile(test_it=suite("wrong_kernel", "test_outputs"))
    result = planted_project.runpytest_inprocess("--parity-json", "out.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*next: parity bisect * -b planted -p fp16"])
    assert recorded(planted_project)["layers"] is None


@pytest.mark.parametrize(("options", "outcome"), [((), "skipped"), (("--require", "planted"), "failed")])
@pytest.mark.parametrize("trouble", ["no engine", "no taps"])
def test_the_check_is_not_judged_where_nobody_can_look(
    trouble: str,
    options: tuple[str, ...],
    outcome: str,
    planted_project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
):
    engine = install(monkeypatch, PLANTED["masked_nan"])
    if trouble == "no taps":
        engine.tap_modes = ()
        words = "cannot be observed"
    else:
        engine.unavailable = lambda: words  # type: ignore[method-assign]
        words = "no GPU here"
    planted_project.makepyfile(test_it=suite("masked_nan", "test_layers"))
    result = planted_project.runpytest_inprocess("-ra", "--parity-json", "out.json", *options)
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines([f"*{words}*"])
    assert recorded(planted_project)["layers"] is None


def test_an_observation_that_changes_the_engine_is_no_pass(
    planted_project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    install(monkeypatch, PLANTED["nan_unobserved"])
    planted_project.makepyfile(test_it=suite("nan_unobserved", "test_layers"))
    result = planted_project.runpytest_inprocess("--parity-json", "out.json")
    result.assert_outcomes(failed=1)
    report = recorded(planted_project)["layers"]
    assert not report["trusted"]
    result.stdout.fnmatch_lines(["*WRONG: *are NaN or infinite*", "*trust: NONE: *"])
