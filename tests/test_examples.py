"""Every file in examples/ stands in README.md as it is, and runs as README.md says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Forks

from harness.cli import main

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("  #")[0].strip()
    for line in README.splitlines()
    if line.startswith("    parity ") and "examples/" in line and not line.startswith("    parity bench")
]
"""The commands about examples, as README.md has them; bench is not among them: its fresh processes take 40 s."""
STATUS = {"bisect": (0, 3)}
"""Exit statuses of commands whose answer depends on whether there is a GPU; 0 for all others."""


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which the checkout is imported and everything is written into the folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PARITY_HISTORY": str(folder / "history.sqlite")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder: it holds the examples, and everything is written into it."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARITY_HISTORY", str(tmp_path / "history.sqlite"))
    return tmp_path


def test_readme_names_every_example_and_nothing_else():
    named = {name.rstrip(".,)`") for name in re.findall(r"examples/([\w.-]+)", README)}
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert named == files


def test_readme_shows_the_file_as_it_is():
    [block] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    text = (EXAMPLES / "test_mymodel.py").read_text(encoding="utf-8")
    assert text.endswith(block)
    head = text.removesuffix(block).strip()
    assert not head or (head.startswith('"""') and head.endswith('"""')), "only the docstring is left out"


def test_there_are_commands_to_run():
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    _, name, *arguments = shlex.split(command)
    status = main([name, *arguments])
    said = capsys.readouterr().err
    assert status in STATUS.get(name, (0,)), said[-2000:]
    assert "Traceback" not in said


def test_the_result_that_readme_shows_is_the_result(folder: Path):
    [command] = [command for command in COMMANDS if "net.onnx" in command]
    process = [sys.executable, "-P", "-m", "harness", *shlex.split(command)[1:]]
    done = subprocess.run(
        process, cwd=folder, capture_output=True, text=True, timeout=300, check=True, env=environment(folder)
    )
    lines = done.stdout.splitlines()
    shown = README.split("```")[1].strip().splitlines()
    assert shown[0].startswith("net |")
    row, readme = (next(line for line in text if line.startswith("ort-cpu-fp16")) for text in (lines, shown))
    assert row.split()[:4] == readme.split()[:4]
    errors = [float(line.split()[4]) for line in (row, readme)]
    assert errors[0] == pytest.approx(errors[1], rel=0.2), "another processor sums in another order"


PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.fixture
def suite(folder: Path) -> Path:
    """Return the working folder with the plugin in its conftest.py."""
    (folder / "conftest.py").write_text('pytest_plugins = ["harness.plugin"]\n')
    return folder


def test_the_suite_runs_under_pytest(suite: Path):
    """It does in a process as a user starts it, which has imported nothing."""
    done = subprocess.run(
        [sys.executable, *PYTEST, "examples/test_mymodel.py"], cwd=suite, capture_output=True, text=True, timeout=300,
        env=environment(suite),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    # Three cases in two precisions, on one or both backends.
    assert re.search(r"\b(6|12) passed", done.stdout)


def test_an_engine_under_pytest_benchmark_and_hypothesis(suite: Path, forks: Forks):
    options = {"cwd": suite, "env": environment(suite), "timeout": 300}
    done = forks.run(
        [*PYTEST, "examples/test_engine.py", "--benchmark-disable", "--parity-json", "run.json"], **options
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"\b(2 passed, 2 skipped|4 passed)", done.stdout)
    record = json.loads((suite / "run.json").read_text())
    assert record["results"] == record["expected"] == []
    required = forks.run([*PYTEST, "examples/test_engine.py", "--benchmark-disable", "--require", "rtx"], **options)
    assert required.returncode != 0


def test_a_loop_around_an_engine(suite: Path, forks: Forks):
    command = [*PYTEST, "examples/test_greedy.py", "--backend", "ort-cpu", "--precision", "fp16"]
    done = forks.run(command, cwd=suite, env=environment(suite), timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "5 passed" in done.stdout
