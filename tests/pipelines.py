"""Runs the shell steps of workflow files as their servers do, with the installs replaced by this environment.

Emulated are the order of steps, what runs after a failure, the shell with its options, and the files with variables for
the next step. Python, pip, pytest and parity are stand-ins on the PATH: a venv holds the same ones, pip installs
nothing, and the others run forks of a Python like this one.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from forked import Forks

ROOT = Path(__file__).parents[1]
STAND_INS = {
    "python": """
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin"; cp "$STAND_INS"/* "$3/bin"; exit 0; fi
if [ "$1 $2" = "-m pip" ]; then echo "$@" >> "$STAND_INS/../installed.txt"; exit 0; fi
exec PYTHON "$@"
""",
    "pytest": 'exec PYTHON -m pytest "$@"\n',
    "parity": 'exec PYTHON -P -m harness "$@"\n',
}
ALWAYS = re.compile(r"always\(\)|!cancelled\(\)")


@dataclass
class Step:
    """One piece of shell."""

    run: str
    shell: tuple[str, ...]
    name: str = ""
    always: bool = False
    """Whether it runs after a failure, too."""
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Runner:
    """A machine that runs jobs; ``workspace`` and ``home`` are kept between them, ``temporary`` is not."""

    folder: Path
    workspace: Path
    forks: Forks
    environment: dict[str, str] = field(default_factory=dict)
    said: str = ""
    jobs: int = 0

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.home = self.folder / "home"
        self.home.mkdir()
        for name, text in {**STAND_INS, "python3.12": STAND_INS["python"]}.items():
            (self.bin / name).write_text("#!/bin/sh\n" + text.replace("PYTHON", shlex.join(self.forks.command)))
            (self.bin / name).chmod(0o755)

    def job(self, steps: Iterable[Step], **environment: str) -> list[tuple[str, int]]:
        """Run a job as a fresh process of the server; return the steps that ran, with their statuses."""
        self.jobs += 1
        temporary = self.folder / f"temporary-{self.jobs}"
        temporary.mkdir()
        files = {name: temporary / name.lower() for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.touch()
        kept = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
            "CI": "true", "HOME": str(self.home), "RUNNER_TEMP": str(temporary),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PATH": f"{self.bin}:/usr/bin:/bin", "STAND_INS": str(self.bin), "PYTHONDONTWRITEBYTECODE": "1",
            **{name: str(file) for name, file in files.items()}, **self.environment, **environment,
        }  # fmt: skip
        found: list[tuple[str, int]] = []
        for step in steps:
            if any(status for _, status in found) and not step.always:
                continue
            kept |= dict(line.split("=", 1) for line in files["GITHUB_ENV"].read_text().splitlines())
            path = ":".join([*reversed(files["GITHUB_PATH"].read_text().split()), kept["PATH"]])
            ended = subprocess.run(
                [*step.shell, step.run], cwd=self.workspace, env={**kept, "PATH": path, **step.env},
                capture_output=True, text=True, timeout=240,
            )  # fmt: skip
            self.said += f"## {step.name} ({ended.returncode})\n{ended.stdout}{ended.stderr}\n"
            found.append((step.name, ended.returncode))
        self.summary = files["GITHUB_STEP_SUMMARY"].read_text()
        return found


def github(path: Path, job: str, context: Mapping[str, str]) -> tuple[list[Step], dict[str, str]]:
    """Return the shell steps of a job and its environment, with the expressions of ``context`` filled in."""
    data = yaml.safe_load(path.read_text())

    def filled(text: Any) -> str:
        return re.sub(r"\$\{\{\s*(.+?)\s*\}\}", lambda found: context.get(found[1], ""), str(text))

    job_data = data["jobs"][job]
    given = {**data.get("env", {}), **job_data.get("env", {})}
    steps = [
        Step(
            run=filled(step["run"]), shell=("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"),
            name=step.get("name", ""), always=bool(ALWAYS.search(step.get("if", ""))),
            env={name: filled(value) for name, value in step.get("env", {}).items()},
        )
        for step in job_data["steps"]
        if "run" in step
    ]  # fmt: skip
    return steps, {name: filled(value) for name, value in given.items()}


def gitlab(path: Path, job: str) -> tuple[list[Step], dict[str, str]]:
    """Return the one shell script that a job is, and its variables."""
    data = yaml.safe_load(path.read_text())
    merged = {**data[".parity"], **data[job]}
    script = "\n".join([*merged["before_script"], *merged["script"]])
    step = Step(run=script, shell=("bash", "-eo", "pipefail", "-c"), name=job)
    return [step], {name: str(value) for name, value in data["variables"].items()}


def jenkins(path: Path) -> list[Step]:
    """Return the ``sh`` steps of a Jenkinsfile in their order; those of ``post`` run always."""
    text = path.read_text()
    post = text.index("post {")
    return [
        Step(run=found[1], shell=("sh", "-e", "-c"), name=f"sh {number}", always=found.start() > post)
        for number, found in enumerate(re.finditer(r"sh '''(.*?)'''", text, re.DOTALL), start=1)
    ]


def shell_of(path: Path) -> Iterator[str]:
    """Yield the scripts of a GitLab or Jenkins file, for a linter."""
    if path.name == "Jenkinsfile":
        yield from (step.run for step in jenkins(path))
        return
    data = yaml.safe_load(path.read_text())
    for job in ("judge", "latency"):
        yield "\n".join([*data[".parity"]["before_script"], *data[job]["script"]])
