"""JUnit has a property per figure, on one process, on several and with reruns, and keeps to its schema."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import latencies
import pytest
import xmlschema
from recorded import output, result

from harness.junit import figures
from harness.records import DIED, MetricResult

SCHEMA = xmlschema.XMLSchema(os.environ.get("JUNIT_XSD") or Path(__file__).parents[1] / "data" / "xunit2.xsd")
ASKED = {"test": "test_a.py::test", "subject": "net", "case": "one", "backend": "rtx", "precision": "fp16"}
METRIC = """
def test_task(parity, parity_case):
    tries = attempt(parity_case)
    if tries > 1:
        parity.check_metric("pd", lambda out: out["y"].mean(), at_most=1)
    else:
        parity.check()
        assert tries > 1
"""


def properties(folder: Path) -> dict[str, dict[str, str]]:
    """Return the properties of each test by its name; of one test none may come twice."""
    found = {}
    for case in ElementTree.parse(folder / "junit.xml").getroot().iter("testcase"):
        names = Counter(one.get("name") for one in case.iter("property"))
        assert set(names.values()) <= {1}, names
        found[str(case.get("name"))] = {str(one.get("name")): str(one.get("value")) for one in case.iter("property")}
    return found


def problems(folder: Path, *, strict: bool) -> list[str]:
    """Return where the file breaks the schema; pytest's own properties of a testcase only count where ``strict``."""
    tree = ElementTree.parse(folder / "junit.xml")
    for case in () if strict else tree.getroot().iter("testcase"):
        for one in case.findall("properties"):
            case.remove(one)
    return [str(error.reason) for error in SCHEMA.iter_errors(tree)]


@pytest.mark.parametrize("options", [("--reruns", "1"), ("--reruns", "1", "-n", "2")])
def test_every_test_has_its_figures_once(repository, options):
    repository.suite("clip", METRIC)
    assert repository.pytest(*options, PARITY_RUN="run-7").status == 0
    found = properties(repository.folder)
    assert len(found) == 8
    for name, given in found.items():
        precision, case = name.removesuffix("]").split("[rtx-")[1].split("-")
        about = {"run": "run-7", "subject": "clip", "case": case, "target": f"rtx-{precision}", "backend": "rtx"}
        assert given.items() >= {**about, "verdict": "pass", "outputs.y.verdict": "pass"}.items()
        assert ("metrics.pd.allowed" in given) == name.startswith("test_task")
    assert float(found["test_task[rtx-fp16-long]"]["metrics.pd.actual"]) == 1.75
    assert problems(repository.folder, strict=False) == []


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_by_the_letter_of_the_schema_the_figures_are_the_suites(repository, options):
    repository.suite("clip", verdicts={"rtx-fp16-short": ("fail", "wrong"), "rtx-bf16-long": ("not_judged", "no GPU")})
    assert repository.pytest("--parity-junit", "testsuite", *options).status == 1
    assert problems(repository.folder, strict=True) == []
    assert set(map(len, properties(repository.folder).values())) == {0}
    given = {
        one.get("name"): one.get("value")
        for one in ElementTree.parse(repository.folder / "junit.xml").getroot().iter("property")
    }
    test = "test_clip.py::test_outputs[rtx-fp16-short]"
    assert (given[f"{test} verdict"], given[f"{test} reason"], given[f"{test} parity"]) == (
        "fail", "wrong", "FAIL: wrong"
    )  # fmt: skip
    assert sum(name.endswith(" target") for name in given) == 4


@pytest.mark.parametrize(
    ("where", "options"),
    [("testsuite", ("-n", "1", "--max-worker-restart", "0")), ("testcase", ("-n", "2", "--reruns", "1"))],
)
def test_tests_that_died_say_what_they_were_to_judge(repository, options, where):
    repository.suite("clip", "def test_task(parity, parity_case):\n    os.kill(os.getpid(), 9)\n")
    assert repository.pytest("--parity-junit", where, *options).status == 1
    assert problems(repository.folder, strict=where == "testsuite") == []
    root = ElementTree.parse(repository.folder / "junit.xml").getroot()
    dead = [f"test_task[rtx-{precision}-{case}]" for precision in ("fp16", "bf16") for case in ("short", "long")]
    for name in dead:
        (case,) = [one for one in root.iter("testcase") if one.get("name") == name]
        of_suite = {str(one.get("name")): str(one.get("value")) for one in root.iter("property")}
        given = (
            properties(repository.folder)[name] if where == "testcase"
            else {key.removeprefix(f"test_clip.py::{name} "): value for key, value in of_suite.items() if name in key}
        )  # fmt: skip
        assert (given["subject"], given["verdict"], given["reason"]) == ("clip", "not_judged", DIED), case


def test_the_file_of_a_run_that_only_started_keeps_to_the_schema(repository):
    repository.suite("clip", "import signal\n\nos.kill(os.getpid(), signal.SIGKILL)\n")
    ended = repository.pytest()
    assert (problems(repository.folder, strict=True), ended.junit) == ([], {"run": "error"})


def test_names_go_by_the_json_and_what_is_null_is_left_out():
    metric = MetricResult(name="pd mean", verdict="pass", reason="", actual=1.5, expected=float("nan"), allowed=2.0)
    one = result(metrics=(metric,), outputs=(output("kv.0.key"), output("y")), runs=8).to_json()
    given = figures(ASKED, one)
    assert given.items() >= {
        "subject": "net", "target": "rtx-fp16", "verdict": "pass", "runs": "8", "provenance.weights": "random",
        "outputs.y.relative_l2": "0.001", "outputs.y.absolute.max": "0.008", "outputs.y.floor.relative_l2": "0.0009",
        "outputs.y.allowed.relative_l2": "0.003", "outputs.y.cosine": "0.999", "outputs.kv.0.key.effective_bits": "9.0",
        "outputs.y.zero_actual": "false", "outputs.y.shape": "[2, 8]", "metrics.pd mean.actual": "1.5",
    }.items()  # fmt: skip
    assert float(given["outputs.y.ratio"]) == pytest.approx(1e-3 / 9e-4)
    assert "metrics.pd mean.expected" not in given
    assert not any("worst" in name or name == "test" for name in given)


def test_every_figure_of_a_result_is_a_property():
    def leaves(value, path=()):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from leaves(item, (*path, key))
        elif isinstance(value, (int, float)) and value is not None:
            yield path

    one = result().to_json()
    (first,) = one.pop("outputs")
    named = figures(ASKED, {**one, "outputs": [first]})
    for path in [*leaves(one), *(("outputs", "y", *path) for path in leaves(first))]:
        assert ".".join(path) in named, path


def test_a_latency_has_its_median_and_interval_and_those_of_every_process():
    given = figures(ASKED, latency=latencies.measured(latencies.session((1.0, 1.02, 0.99), gpu=True)).to_json())
    assert [float(given[f"latency_ms{name}"]) for name in ("", "_low", "_high")] == [1.0, 0.99, 1.02]
    assert float(given["session.runs.1.gpu_ms.median"]) == 1.02
    assert {"session.runs.0.gpu_ms.low", "session.runs.0.gpu_ms.high", "comparison.verdict"} <= given.keys()
