"""Workflow files are valid; their steps do what they say on a runner that keeps its workspace and on a fresh one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fake
import pipelines
import pytest
import yaml
from forked import Forks
from pipelines import ROOT, Runner, github, gitlab, jenkins, shell_of

EXAMPLES = ROOT / "examples"
WORKFLOWS = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), EXAMPLES / "parity.yml", EXAMPLES / "fleet.yml"]
TOOLS = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
SUITE = """
import os

import latencies
import pytest

from harness import Subject, targets
from harness.checks import test_outputs

SUBJECT = Subject(
    name="net", build=object, cases={"one": dict, "two": dict}, weights="random",
    targets=targets("rtx", "ort-cpu", precisions=("fp16",)), options=VERDICTS,
)


@pytest.mark.latency
def test_time(parity, parity_case, parity_target, request):
    one = latencies.session(
        subject="net", case=parity_case, backend=parity_target.backend, precision="fp16", id=request.node.name
    )
    request.node.user_properties.append(("parity-latency", latencies.measured(one, "equivalent").to_json()))
"""
CONTEXT = {"github.run_id": "7", "github.run_attempt": "1", "matrix.name": "rtx", "matrix.backend": "rtx"}
STALE = {
    "schema": "parity/1", "command": "pytest suites", "complete": True, "error": "", "run": "of last week",
    "environment": {}, "expected": [], "results": [],
}  # fmt: skip


@pytest.fixture
def runner(tmp_path: Path, forks: Forks) -> Runner:
    """Return a runner whose workspace is a repository with a suite; its engines are pretended."""
    workspace = tmp_path / "workspace"
    (workspace / "suites").mkdir(parents=True)
    (workspace / "tests").mkdir()
    (workspace / "tests" / "test_something.py").write_text("def test_it():\n    pass\n")
    (workspace / "conftest.py").write_text(fake.CONFTEST + fake.NO_MACHINE)
    (workspace / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly --import-mode=importlib\n")
    runner = Runner(folder=tmp_path, workspace=workspace, forks=forks)
    write_suite(runner)
    return runner


def write_suite(runner: Runner, verdicts: dict[str, tuple[str, str]] | None = None, code: str = "") -> None:
    text = SUITE.replace("VERDICTS", repr(verdicts or {})) + code
    (runner.workspace / "suites" / "test_net.py").write_text(text)


def leave_stale(runner: Runner) -> None:
    """Leave what a run of last week left: a green record, its badge, a JUnit file, a shard."""
    for folder in ("reports", "shards"):
        (runner.workspace / folder).mkdir(exist_ok=True)
        (runner.workspace / folder / "parity.json").write_text(json.dumps(STALE))
    (runner.workspace / "reports" / "junit.xml").write_text("<testsuites/>")
    (runner.workspace / "badge.json").write_text('{"color": "brightgreen"}')


def colour(runner: Runner) -> str:
    return str(json.loads((runner.workspace / "badge.json").read_text())["color"])


def run_github(runner: Runner, path: Path, *, backend: str = "rtx") -> dict[str, int]:
    steps, given = github(path, "parity", {**CONTEXT, "matrix.backend": backend})
    return dict(runner.job(steps, **given))


def run_jenkins(runner: Runner) -> dict[str, int]:
    steps = jenkins(EXAMPLES / "Jenkinsfile")
    found = runner.job(steps, PARITY_RUN="build-7", TENSORRT="tensorrt-rtx-cu13-libs==1.6.1.120")
    names = {"sh 1": "install", "sh 2": "judge", "sh 3": "summary, report, badge"}
    return {names[name]: status for name, status in found}


RUNS = {
    "parity.yml": lambda runner: run_github(runner, EXAMPLES / "parity.yml"),
    "gpu.yml": lambda runner: run_github(runner, ROOT / ".github" / "workflows" / "gpu.yml"),
    "Jenkinsfile": run_jenkins,
}
JUDGES = {"gpu.yml": "suites"}
"""The step that judges, where it is not called ``judge``."""


def test_a_fresh_workspace_that_passes_is_green_and_keeps_what_is_kept_elsewhere(runner):
    found = RUNS["gpu.yml"](runner)
    assert set(found.values()) == {0}, runner.said
    assert colour(runner) == "brightgreen"
    assert {"parity.json", "junit.xml", "report.html"} <= {one.name for one in (runner.workspace / "reports").iterdir()}
    assert "8 passed" in runner.summary
    kept = runner.home / ".cache" / "parity"
    assert str(kept / "engines") in (runner.workspace / "log.txt").read_text(), "the engines are outside the checkout"
    assert kept.is_dir()
    assert len((runner.folder / "installed.txt").read_text().splitlines()) == 1, "PyTorch is installed once"


@pytest.mark.parametrize("name", RUNS)
def test_a_kept_workspace_whose_suite_fails_is_red_with_summary_report_and_badge(name, runner):
    leave_stale(runner)
    write_suite(runner, {"rtx-fp16-one": ("fail", "it is wrong")})
    found = RUNS[name](runner)
    judge = JUDGES.get(name, "judge")
    assert found[judge] == 1, runner.said
    assert found["summary, report, badge"] == 0, runner.said
    assert colour(runner) == "red"
    assert "it is wrong" in (runner.workspace / "reports" / "report.html").read_text()
    assert "it is wrong" in (runner.summary if name.endswith(".yml") else runner.said)
    assert "failures" in (runner.workspace / "reports" / "junit.xml").read_text()
    assert "of last week" not in (runner.workspace / "reports" / "report.html").read_text()


def test_a_kept_workspace_whose_run_dies_is_not_green(runner):
    leave_stale(runner)
    write_suite(runner, code="if 'PYTEST_VERSION' in os.environ:\n    os.kill(os.getpid(), 9)\n")  # not in the list
    found = RUNS["parity.yml"](runner)
    assert found["judge"] != 0, runner.said
    assert colour(runner) == "lightgrey"
    assert "started and did not end" in (runner.workspace / "reports" / "report.html").read_text()


def test_a_run_that_does_not_reach_its_steps_leaves_no_badge_of_another(runner):
    leave_stale(runner)
    steps, given = github(EXAMPLES / "parity.yml", "parity", CONTEXT)
    for step in steps:
        if step.name == "install":
            step.run = "exit 1"
    found = dict(runner.job(steps, **given))
    assert (found["install"], found["summary, report, badge"] != 0) == (1, True), runner.said
    assert not (runner.workspace / "badge.json").exists()


def test_real_engines_of_onnx_runtime_pass_through_the_workflow(runner):
    (runner.workspace / "conftest.py").write_text('pytest_plugins = ["harness.plugin"]\n')
    suite = (EXAMPLES / "test_mymodel.py").read_text().replace('targets("rtx", "ort-cpu"', 'targets("ort-cpu"')
    (runner.workspace / "suites" / "test_net.py").write_text(suite.replace('("fp32", "fp16")', '("fp16",)'))
    found = run_github(runner, EXAMPLES / "parity.yml", backend="ort-cpu")
    assert set(found.values()) == {0}, runner.said
    assert colour(runner) == "brightgreen"
    assert list((runner.home / ".cache" / "parity" / "engines").glob("*.engine"))
    assert not (runner.workspace / "engines").exists()


def fleet(runner: Runner) -> dict[str, int]:
    """Run the jobs of fleet.yml; artifacts go to folders of their names, as the server downloads them."""
    artifacts = runner.folder / "artifacts"
    found = {}
    for shard in "123":
        steps, given = github(EXAMPLES / "fleet.yml", "judge", {**CONTEXT, "matrix.shard": shard})
        found[f"shard {shard}"] = max(status for _, status in runner.job(steps, **given))
        shutil.copytree(runner.workspace / "reports", artifacts / f"shard-{shard}")
    steps, given = github(EXAMPLES / "fleet.yml", "latency", CONTEXT)
    before = [step.name for step in steps].index("merge")
    steps.insert(before, pipelines.Step(run=f"cp -r {artifacts}/* shards", shell=("sh", "-c"), always=True))
    return found | dict(runner.job(steps, **given))


def pipeline(runner: Runner) -> dict[str, int]:
    """Run the jobs of gitlab-ci.yml; its artifacts keep their paths."""
    artifacts = runner.folder / "artifacts"
    found = {}
    for shard in "123":
        steps, given = gitlab(EXAMPLES / "gitlab-ci.yml", "judge")
        of = {**given, "PARITY_RUN": "7", "CI_NODE_INDEX": shard, "CI_NODE_TOTAL": "3"}
        found[f"shard {shard}"] = dict(runner.job(steps, **of))["judge"]
        shutil.copytree(runner.workspace / "shards", artifacts, dirs_exist_ok=True)
    steps, given = gitlab(EXAMPLES / "gitlab-ci.yml", "latency")
    shutil.copytree(artifacts, runner.workspace / "shards", dirs_exist_ok=True)
    return found | dict(runner.job(steps, **{**given, "PARITY_RUN": "7"}))


FLEETS = {"fleet.yml": fleet, "gitlab-ci.yml": pipeline}


@pytest.mark.parametrize(("name", "fails"), [("fleet.yml", False), ("gitlab-ci.yml", True)])
def test_shards_and_latencies_become_one_record(name, fails, runner):
    if fails:
        leave_stale(runner)
        write_suite(runner, {"rtx-fp16-one": ("fail", "it is wrong")})
    found = FLEETS[name](runner)
    assert (colour(runner), any(found.values())) == (("red", True) if fails else ("brightgreen", False)), runner.said
    merged = json.loads((runner.workspace / "reports" / "parity.json").read_text())
    assert len(merged["results"]) == 4
    assert (merged["complete"], len(merged["shards"])) == (True, 4), merged["error"]
    assert (runner.workspace / "reports" / "report.html").is_file()
    if fails:
        assert max(found[f"shard {shard}"] for shard in "123") == 1
        assert found.get("merge", found.get("latency")) == 1


# What linters say


def test_workflows_are_linted():
    ended = subprocess.run(
        ["actionlint", "-oneline", *map(str, WORKFLOWS)], cwd=ROOT, env=TOOLS, capture_output=True, text=True
    )
    assert (ended.stdout + ended.stderr, ended.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", WORKFLOWS), ("gitlab-ci --data-transform gitlab-ci", [EXAMPLES / "gitlab-ci.yml"])],
)
def test_files_have_the_keys_that_their_servers_know(schema, files):
    command = ["check-jsonschema", "--builtin-schema", *f"vendor.{schema}".split(), *map(str, files)]
    ended = subprocess.run(command, env=TOOLS, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(("name", "shell"), [("gitlab-ci.yml", "bash"), ("Jenkinsfile", "sh")])
def test_shell_of_other_servers_is_linted(name, shell):
    scripts = list(shell_of(EXAMPLES / name))
    assert len(scripts) >= 2
    for script in scripts:
        command = ["shellcheck", "-s", shell, "-e", "SC1091", "-"]  # SC1091: a file that a step before writes
        ended = subprocess.run(command, input=script, env=TOOLS, capture_output=True, text=True)
        assert (ended.stdout, ended.returncode) == ("", 0)


def test_a_jenkinsfile_closes_what_it_opens():
    text = (EXAMPLES / "Jenkinsfile").read_text()
    assert text.startswith("//")
    bare = re.sub(r"'''.*?'''|'[^'\n]*'|\"[^\"\n]*\"|//[^\n]*", "", text, flags=re.DOTALL)
    assert [bare.count(one) for one in "{(["] == [bare.count(one) for one in "})]"]
    assert set(re.findall(r"^\s*(\w+) \{", bare, re.MULTILINE)) <= {
        "pipeline", "triggers", "options", "stages", "stage", "matrix", "agent", "axes", "axis", "environment", "steps",
        "post", "always",
    }  # fmt: skip


def test_every_workflow_has_a_limit_a_group_and_least_rights():
    for path in WORKFLOWS:
        data = yaml.safe_load(path.read_text())
        assert data["permissions"] == {"contents": "read"}, path
        assert "concurrency" in data, path
        for name, job in data["jobs"].items():
            assert 0 < job["timeout-minutes"] <= 360, (path, name)
            python = [step for step in job["steps"] if "setup-python" in step.get("uses", "")]
            assert python, (path, name)
            assert python[0]["with"]["python-version"], (path, name)
            artifacts = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
            assert [step["if"] for step in artifacts] == ["always()"], (path, name)
