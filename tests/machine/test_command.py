"""The recorded command: typed in the repository's folder, it gives the same record."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.machine import command_line

SUITE = """
import torch

from harness import Subject, targets


def build():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 4).eval()


def inputs():
    return {"input": torch.ones(2, 4)}


SUBJECT = Subject(
    name="tiny", build=build, cases={"one": inputs}, targets=targets("ort-cpu", precisions=("fp32",)), weights="random",
)
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a" / ".git").mkdir(parents=True)
    (tmp_path / "a" / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "a" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/parity"])
    for name in [name for name in os.environ if name.startswith(("CUDA", "MKL", "OMP", "CUBLAS", "TORCH"))]:
        monkeypatch.delenv(name)
    return tmp_path / "a"


def test_paths_in_the_repository_are_relative_and_others_as_given(repository: Path):
    given = ["verify", "m:S", f"--json={repository}/out/a b.json", "-o", str(repository / "x"), "/elsewhere/y", "-q"]
    assert command_line("parity", given) == "parity verify m:S '--json=out/a b.json' -o x /elsewhere/y -q"
    assert command_line("parity", [f"{repository}2/a.json"]) == f"parity {repository}2/a.json"


def test_a_folder_below_the_repository_is_entered(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(repository / "sub")
    assert command_line("pytest", [str(repository / "suites")]) == "cd sub && pytest ../suites"


def test_variables_that_count_stand_before_it_and_passwords_do_not(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    monkeypatch.setenv("PARITY_ENGINES", str(repository / "my engines"))
    monkeypatch.setenv("PARITY_HISTORY", "postgresql://me:secret@host/db")
    monkeypatch.setenv("PARITY_RUN", "7")
    monkeypatch.setenv("HOME", "/root")
    assert command_line("parity", ["list"]) == (
        "CUDA_LAUNCH_BLOCKING=1 PARITY_ENGINES='my engines' PARITY_HISTORY=postgresql://me:***@host/db parity list"
    )


@pytest.mark.parametrize(("program", "module"), [("parity", "harness"), ("pytest", "pytest")])
def test_the_interpreter_is_named_where_it_was_asked_to_run_a_module(
    program: str, module: str, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", [f"/lib/{module}/__main__.py"])
    assert command_line(program, ["x"]) == f"python -m {module} x"


def test_typed_in_a_fresh_copy_the_recorded_command_gives_the_same_record(repository: Path, tmp_path: Path):
    (repository / "tiny.py").write_text(SUITE)
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    folder = Path(sys.executable).parent
    environment = {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    command = [sys.executable, "-m", "harness", "verify", "tiny:SUBJECT", "-b", "ort-cpu", "-p", "fp32"]
    given = [f"--json={repository}/out.json", "--runs", "3"]
    variables = {"PARITY_ENGINES": str(repository / "mine"), "CUDA_LAUNCH_BLOCKING": "1"}
    subprocess.run([*command, *given], cwd=repository, env={**environment, **variables}, check=True, timeout=300)
    first = json.loads((repository / "out.json").read_text())
    subprocess.run(first["command"], shell=True, cwd=copy, env=environment, check=True, timeout=300)
    second = json.loads((copy / "out.json").read_text())
    assert (copy / "mine").is_dir()
    assert second["command"] == first["command"]
    (one,), (other,) = first["results"], second["results"]
    assert one["verdict"] == "pass"
    for key in ("outputs", "verdict", "runs", "provenance"):
        assert one[key] == other[key]
    assert first["environment"]["variables"] == second["environment"]["variables"]
