"""What becomes of a pytest run that does not come to its end: its status, and why the other tests have no verdict."""

from __future__ import annotations

import json
from typing import Any

import fake
import pytest
from test_plugin import suite

pytest_plugins = ["pytester"]

TARGETS = "targets('rtx', precisions=('fp16',))"
GOOD = suite("good", targets=TARGETS)
EXIT = "pytest.exit('no time', returncode=0)"
ENDINGS: dict[str, tuple[dict[str, str], str, int, str]] = {
    "import error": ({"test_a": "import none_such"}, "", 2, "test_a.py could not be collected"),
    "no SUBJECT": ({"test_a": "from harness.checks import *"}, "", 2, "test_a.py could not be collected"),
    "exit in a suite": ({"test_a": f"import pytest\n{EXIT}"}, "", 2, "test_a.py could not be collected"),
    "exit in a test": ({"test_a": f"import pytest\ndef test_a():\n    {EXIT}"}, "", 3, "pytest.exit: no time"),
    "exit with a status": (
        {"test_a": f"import pytest\ndef test_a():\n    {EXIT}".replace("=0", "=7")}, "", 7, "pytest.exit: no time",
    ),
    "exit of a conftest": ({}, f"def pytest_collection_modifyitems():\n    {EXIT}", 3, "pytest.exit: no time"),
    "error of a conftest": (
        {}, "def pytest_collection_modifyitems():\n    raise ValueError('oh')", 3,
        "pytest itself failed: ValueError: oh",
    ),
}  # fmt: skip


@pytest.fixture
def run(project: pytest.Pytester) -> Any:
    """Return a function that runs a good suite beside other files; it returns the status and the JSON."""

    def run(files: dict[str, str], conftest: str = "", *options: str) -> tuple[int, dict[str, Any]]:
        project.makeconftest(f"{fake.CONFTEST}\n{conftest}\n")
        project.makepyfile(test_good=GOOD, **files)
        result = project.runpytest_inprocess("--parity-json", "out.json", "--junitxml", "junit.xml", *options)
        return int(result.ret), json.loads((project.path / "out.json").read_text())

    return run


@pytest.mark.parametrize("name", ENDINGS)
def test_what_ended_the_run_is_why_the_others_were_not_judged(run: Any, name: str):
    files, conftest, status, why = ENDINGS[name]
    ended, data = run(files, conftest)
    assert ended == status
    assert (data["complete"], data["results"]) == (False, [])
    assert why in data["error"]
    assert [one["why"] for one in data["expected"]] == [f"not judged: {why}"] * 2


def test_a_suite_that_pytest_goes_on_without_is_a_wrong_request(run: Any):
    status, data = run({"test_a": "import none_such"}, "", "--continue-on-collection-errors")
    assert (status, data["complete"]) == (2, False)
    assert [one["verdict"] for one in data["results"]] == ["pass", "pass"]


@pytest.mark.parametrize("where", ["pytest_sessionstart(session)", "pytest_sessionfinish(session)"])
def test_an_exit_of_status_0_is_no_pass(run: Any, where: str):
    status, _ = run({}, f"def {where}:\n    {EXIT}")
    assert status == 3


def test_what_ends_the_run_before_it_begins_is_in_its_record(run: Any):
    _, data = run({}, f"def pytest_sessionstart(session):\n    {EXIT}")
    assert (data["complete"], data["error"]) == (False, "pytest.exit: no time")


FOLDERS = """
from pathlib import Path

def test_a():
    for name in ("out.json", "junit.xml"):
        Path(name).rename(f"old-{name}")
        Path(name).mkdir()
"""


def test_a_file_that_cannot_be_written_at_the_end_is_a_wrong_request_and_the_results_are_shown(
    project: pytest.Pytester,
):
    project.makepyfile(test_good=GOOD, test_a=FOLDERS)
    result = project.runpytest_inprocess("--parity-json", "out.json", "--junitxml", "junit.xml")
    assert result.ret == 2
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["2 verdicts: 2 passed*", "parity: cannot write out.json: *", "parity: cannot write *junit.xml: *"]
    )
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_workers_that_stop_at_a_failure_have_the_status_of_one_that_failed(project: pytest.Pytester):
    project.makeconftest(fake.CONFTEST + fake.NO_MACHINE)
    project.makepyfile(test_good=GOOD, test_wrong=suite("wrong", targets=TARGETS, rtx_fp16_short=("fail", "bad")))
    result = project.runpytest_subprocess("-n", "1", "-x", "--parity-json", "out.json")
    assert result.ret == 1
    data = json.loads((project.path / "out.json").read_text())
    assert {one.get("why") for one in data["expected"] if not one["arrived"]} <= {
        "not judged: stopping after 1 failures"
    }


def test_what_workers_left_out_is_listed_though_nothing_ran(project: pytest.Pytester):
    project.makeconftest(fake.CONFTEST + fake.NO_MACHINE)
    project.makepyfile(test_good=GOOD)
    result = project.runpytest_subprocess("-n", "1", "-k", "nothing", "--parity-json", "out.json")
    assert result.ret == 5
    assert len(json.loads((project.path / "out.json").read_text())["left_out"]) == 2
