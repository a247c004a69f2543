"""A repository of its own per test, whose engines are pretended, driven through real pytest processes."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fake
import pytest
from forked import Forks

from harness import records
from harness.report import badge

Json = dict[str, Any]
SUITE = """
import os
import time
from pathlib import Path

from harness import Subject, targets
from harness.checks import test_outputs

SUBJECT = Subject(
    name={name!r}, owner={owner!r}, build=object, cases={{"short": dict, "long": dict}}, weights="random",
    targets=targets("rtx", precisions=("fp16", "bf16")), options={verdicts!r},
)


def attempt(name):
    with Path(f"attempts-{{name}}").open("a") as file:
        file.write("x")
    return len(Path(f"attempts-{{name}}").read_text())
"""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a pytest process left."""

    status: int
    said: str
    folder: Path
    json: str = "out.json"
    xml: str = "junit.xml"

    @property
    def ran(self) -> list[str]:
        """What JUnit says ran, by module and name."""
        cases = ElementTree.parse(self.folder / self.xml).getroot().iter("testcase")
        return [f"{case.get('classname')}::{case.get('name')}" for case in cases]

    @property
    def data(self) -> Json:
        """The JSON."""
        data: Json = json.loads((self.folder / self.json).read_text())
        return data

    @property
    def verdicts(self) -> dict[str, str]:
        """By ``clip/short rtx-fp16``."""
        return {
            f"{one['subject']}/{one['case']} {one['backend']}-{one['precision']}": one["verdict"]
            for one in self.data["results"]
        }

    @property
    def badge(self) -> str:
        """The colour of the badge."""
        return str(badge(records.load([self.folder / self.json]))["color"])

    @property
    def junit(self) -> dict[str, str]:
        """What JUnit says of each test: ``passed``, ``failure``, ``error``, ``skipped``."""
        return outcomes(self.folder / self.xml)


def outcomes(junit: Path) -> dict[str, str]:
    """Return what a JUnit file says of each test."""
    cases = ElementTree.parse(junit).getroot().iter("testcase")
    marks = ("failure", "error", "skipped")
    return {
        str(case.get("name")): next((mark for mark in marks if case.find(mark) is not None), "passed") for case in cases
    }


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of suites."""

    folder: Path
    forks: Forks
    environment: dict[str, str] = field(default_factory=dict)

    def suite(
        self, name: str, code: str = "", verdicts: Mapping[str, tuple[Any, ...]] | None = None, owner: str = ""
    ) -> None:
        """Write a suite with two targets and two cases; ``verdicts`` are those of :mod:`fake`."""
        text = SUITE.format(name=name, owner=owner, verdicts=dict(verdicts or {})) + code
        (self.folder / f"test_{name}.py").write_text(text)

    def pytest(self, *arguments: str, json: bool = True, stem: str = "", **environment: str) -> Ended:
        """Run pytest in a process of its own; ``stem`` names the files that it writes."""
        files = {"json": f"{stem}.json", "xml": f"{stem}.xml"} if stem else {"json": "out.json", "xml": "junit.xml"}
        outputs = ("--parity-json", files["json"], "--junitxml", files["xml"]) if json else ()
        given = {**os.environ, **self.environment, **environment}
        command = ["-m", "pytest", "-q", *outputs, *arguments]
        ended = self.forks.run(command, cwd=self.folder, env=given, timeout=120)
        return Ended(status=ended.returncode, said=ended.stdout + ended.stderr, folder=self.folder, **files)


@pytest.fixture
def repository(tmp_path: Path, forks: Forks) -> Repository:
    """Return an empty repository."""
    (tmp_path / "conftest.py").write_text(fake.CONFTEST + fake.NO_MACHINE)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:hypothesispytest -p no:benchmark\n")
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    return Repository(folder=tmp_path, forks=forks, environment=environment)
