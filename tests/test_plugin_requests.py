"""Wrong requests under pytest: errors of a test or of a suite, in one sentence said once, with exit status 2."""

from __future__ import annotations

import json
import re
from typing import Any

import fake
import pytest
from bad_inputs.row import suite

from harness.cli.commands import main

pytest_plugins = ["pytester"]

TWO = "{'one': lambda: {'input': torch.ones(2, 4)}, 'two': lambda: {'input': torch.ones(2, 4)}}"
DYNAMIC = {"dynamic": "{'input': {0: 'n'}}"}
SUITES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "reversed range": ({**DYNAMIC, "ranges": "{'n': (4, 1)}"}, ("'n'", "(4, 1)", "test_s.py, line 4")),
    "range of NaN": ({**DYNAMIC, "ranges": "{'n': (1, float('nan'))}"}, ("'n'", "nan", "test_s.py, line 4")),
    "unknown field": ({"shapes": "1"}, ("'shapes'", "test_s.py, line 4")),
    "field that is missing": ({"weights": None}, ("weights=", "test_s.py, line 4")),
    "text for targets": ({"targets": "'rtx'"}, ("targets", "'rtx'", "test_s.py, line 4")),
    "unknown weights": ({"weights": "'pretrained'"}, ("'pretrained'", "trained", "test_s.py, line 4")),
}
TESTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no module": ({"build": "lambda: None"}, ("s: build()", "NoneType")),
    "wrong shape": ({"cases": "{'one': lambda: {'input': torch.ones(2, 5)}}"}, ("s: forward()", "2x5")),
    "no dict": ({"cases": "{'one': lambda: 3}"}, ("'one'", "no inputs")),
    "case out of range": ({**DYNAMIC, "ranges": "{'n': (3, 4)}"}, ("'input'", "is 2", "from 3 to 4")),
    "unknown tolerance": ({"tolerances": "{'z': Tolerance(cosine=0.9, why='w')}"}, ("tolerances=", "'z'", "output")),
    "unknown option": ({"options": "{'opset': 18}"}, ("'opset'", "opset_version")),
    "plan that is missing": ({"targets": "(Target('ort-cpu', 'none.toml'),)"}, ("none.toml",)),
    "file that is missing": ({"build": None, "onnx": "'none.onnx'"}, ("none.onnx", "does not exist")),
}


@pytest.fixture(scope="module")
def all_imported(kept_modules: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what a run of a suite imports: ``pytester`` forgets what is new, and PyTorch's code bears it only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("imported"))
        suite()()
        assert main(["verify", "s"]) == 0


@pytest.fixture
def run(all_imported: None, pytester: pytest.Pytester) -> Any:
    """Return a function that runs a suite of these fields; it returns what was printed of it, and the status."""
    pytester.makeconftest('"""The plugin."""\n\npytest_plugins = ["harness.plugin"]\n')
    pytester.makeini(fake.INI)

    def run(fields: dict[str, Any], *options: str) -> tuple[str, pytest.RunResult]:
        suite(path="test_s.py", **fields)()
        path = pytester.path / "test_s.py"
        path.write_text(path.read_text() + "from harness.checks import test_outputs\n")
        result = pytester.runpytest_inprocess(*options)
        return "\n".join(line for line in result.outlines if not line.startswith("ERROR test_s.py")), result

    return run


def said(text: str, facts: tuple[str, ...]) -> list[str]:
    return [line for line in text.splitlines() if all(fact in line for fact in facts)]


@pytest.mark.parametrize("name", [*SUITES, *TESTS])
def test_it_is_an_error_in_one_sentence(run: Any, name: str):
    fields, facts = (SUITES | TESTS)[name]
    text, result = run(fields)
    assert result.ret == 2
    assert not result.parseoutcomes().keys() - {"error", "errors"}
    assert len(said(text, facts)) == 1
    assert not re.search(r"Traceback|exception|harness/\w+\.py", text)


def test_what_is_wrong_with_a_subject_is_said_once_and_recorded(run: Any, pytester: pytest.Pytester):
    fields = {"build": "lambda: None", "cases": TWO}
    text, result = run(fields, "--parity-json", "r.json", "--junit-xml", "j.xml")
    assert result.ret == 2
    result.assert_outcomes(errors=2)
    assert len(said(text, ("build()", "NoneType"))) == 1
    assert len(said(text, ("the same as of test_s.py::test_outputs[ort-cpu-fp32-one]",))) == 1
    assert "build() returned a NoneType" in (pytester.path / "r.json").read_text()
    junit = (pytester.path / "j.xml").read_text()
    assert 'errors="2" failures="0"' in junit


def test_a_failure_beside_a_wrong_request_leaves_its_status(run: Any, pytester: pytest.Pytester):
    pytester.makepyfile(test_other="def test_other():\n    assert False\n")
    _, result = run({"build": "lambda: None"})
    result.assert_outcomes(errors=1, failed=1)
    assert result.ret == 2


LATE = "__import__('pytest').fail('Timeout (>1.0s) from pytest-timeout.')"
LATE_MODULE = f"""
import torch


class Late(torch.nn.Module):
    def forward(self, input):
        {LATE}
"""


@pytest.mark.parametrize(
    "fields",
    [
        {"build": f"lambda: {LATE}"},
        {"cases": f"{{'one': lambda: {LATE}}}"},
        {"build": "lambda: __import__('late').Late().eval()"},
    ],
)
def test_a_time_limit_of_a_plugin_fails_its_test_wherever_it_is_then(
    run: Any, pytester: pytest.Pytester, fields: dict[str, str]
):
    (pytester.path / "late.py").write_text(LATE_MODULE)
    pytester.syspathinsert()
    _, result = run(fields, "--parity-json", "r.json")
    assert result.ret == 1
    assert set(result.parseoutcomes()) <= {"failed", "error", "errors"}
    data = json.loads((pytester.path / "r.json").read_text())
    assert not data["complete"]
    assert "Timeout (>1.0s)" in data["error"]


def test_a_failed_engine_has_no_chain_of_errors(run: Any):
    text, result = run({"build": "lambda: 1 / 0"}, "--require", "ort-cpu")
    assert result.ret == 1
    assert len(said(text, ("required backend", "ZeroDivisionError"))) >= 1
    assert "exception" not in text


def test_files_take_the_place_of_the_cases_of_a_suite(run: Any, pytester: pytest.Pytester):
    import numpy as np

    np.savez(pytester.path / "in-1.npz", input=np.ones((2, 4), np.float32))
    text, result = run({"cases": TWO}, "--cases", "in-*.npz")
    assert result.ret == 0
    assert "[ort-cpu-fp32-in-1]" in text or "in-1" in text
    np.savez(pytester.path / "in-2.npz", imput=np.ones((2, 4), np.float32))
    text, result = run({"cases": TWO}, "--cases", "in-2.npz")
    assert result.ret == 2
    assert len(said(text, ("in-2.npz", "'input'", "imput"))) == 1
