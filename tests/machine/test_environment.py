"""What ``parity doctor`` knows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.backends import BACKENDS, environment
from harness.backends.registry import backend_status
from harness.machine import commit
from harness.report.text import machine as text
from harness.settings import Settings


class FakeBackend:
    name = "fake"

    def __init__(self, unavailable: str | None = None, cannot_run: str | None = None) -> None:
        self.reasons = unavailable, cannot_run

    def unavailable(self) -> str | None:
        return self.reasons[0]

    def cannot_run(self) -> str | None:
        return self.reasons[1]

    def version(self) -> str:
        assert self.reasons[0] is None, "a missing backend has no version to ask for"
        return "1.2"


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return environment(Settings(engines=tmp_path_factory.mktemp("engines")))


def test_gather_is_json_and_names_every_backend(gathered: dict[str, Any]):
    assert json.loads(json.dumps(gathered)) == gathered
    assert set(gathered["backends"]) == set(BACKENDS)
    assert all((row["version"] is None) != (row["unavailable"] is None) for row in gathered["backends"].values())
    assert gathered["packages"]["torch"]


def test_no_gpu_has_a_reason(gathered: dict[str, Any]):
    assert bool(gathered["gpus"]) != bool(gathered["no_gpu"])


def test_machine_text_shows_every_backend(gathered: dict[str, Any]):
    shown = text.machine_text(gathered)
    assert gathered["engines"] in shown
    for name, row in gathered["backends"].items():
        line = next(line for line in shown.splitlines() if line.startswith(f"  {name} "))
        assert (row["version"] or row["unavailable"]) in line


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (FakeBackend(), "fake  1.2"),
        (FakeBackend(unavailable="No module named 'fake'"), "fake  unavailable: No module named 'fake'"),
        (FakeBackend(cannot_run="no GPU"), "fake  1.2, builds but cannot run: no GPU"),
    ],
)
def test_backend_line(backend: Any, words: str):
    assert text.backend_lines({"backends": {"fake": backend_status(backend)}}) == [words]


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_commit_tells_clean_from_changed(tmp_path: Path):
    assert commit(tmp_path) == ""
    git(tmp_path, "init")
    (tmp_path / "a.txt").write_text("1")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-m", "a")
    clean = commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "a.txt").write_text("2")
    assert commit(tmp_path) == f"{clean}+changes"
