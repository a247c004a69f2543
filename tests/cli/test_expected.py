"""What a command is to judge is in its record from the start, and a manifest is held against what it judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness import cli, records
from harness.errors import NotJudged
from harness.records import DIED
from harness.report import badge

RUNS = {"bench": "harness.latency.bench", "noise": "harness.latency.measure_noise", "bisect": "harness.bisect.bisect"}
"""What each command calls, and what a signal that nobody can heed ends."""


def started(command: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    """Run a command that finds nothing; return the record that a kill would have left. The last one is record.json."""

    def run(*_: Any, **__: Any) -> Any:
        shutil.copy("record.json", "killed.json")
        raise NotJudged("the engine was refused")

    monkeypatch.setattr(RUNS[command], run)
    arguments = ["mymodel", "-b", "ort-cpu", "-p", "fp16", "--case", "one", "--device", "cpu", "--json", "record.json"]
    assert cli.main([command, *arguments, *options]) == 3
    return json.loads(Path("killed.json").read_text())


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository with the suite of the examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARITY_HISTORY", str(tmp_path / "history.sqlite"))
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "suites").mkdir()
    shutil.copy(Path(__file__).parents[2] / "examples" / "test_mymodel.py", tmp_path / "suites")


@pytest.mark.parametrize("command", RUNS)
def test_what_a_killed_run_was_to_judge_is_named(command, suite, monkeypatch):
    data = started(command, monkeypatch)
    name = {"subject": "mymodel", "case": "one", "backend": "ort-cpu", "precision": "fp16"}
    (expected,) = data["expected"]
    assert {key: expected[key] for key in name} == name
    assert (expected["source"], expected["arrived"]) == ("suites/test_mymodel.py", False)
    found = records.load([Path("killed.json")])
    rows = [entry.data for entry in (found.results if command == "bisect" else found.not_measured)]
    assert [{key: row[key] for key in name} for row in rows] == [name]
    assert (rows[0]["reason"], badge(found)["color"]) == (DIED, "lightgrey")
    ended = json.loads(Path("record.json").read_text())
    assert (ended["error"], ended["expected"]) == ("not judged: the engine was refused", data["expected"])


def test_every_size_that_is_to_be_timed_is_expected(suite, monkeypatch):
    data = started("bench", monkeypatch, "--batch", "2,4")
    assert [one["sizes"] for one in data["expected"]] == [{"batch": 2}, {"batch": 4}]
    rows = records.load([Path("killed.json")]).not_measured
    assert [entry.data["sizes"] for entry in rows] == [{"batch": 2}, {"batch": 4}]


@pytest.fixture
def manifest(suite) -> Any:
    """The manifest of the suites."""
    assert cli.main(["list", "--json", "manifest.json"]) == 0
    return json.loads(Path("manifest.json").read_text())


def verify(*options: str) -> tuple[int, Any]:
    command = ["verify", "mymodel", "-b", "ort-cpu", "--device", "cpu", "--json", "record.json"]
    return cli.main([*command, *options]), json.loads(Path("record.json").read_text())


def test_verify_is_held_against_what_the_manifest_expects_of_its_subject(manifest, capsys):
    of_others = {"subject": "other", "case": "one", "backend": "rtx", "precision": "fp16"}
    ours = [one for one in manifest["expected"] if one["backend"] == "ort-cpu"]
    Path("manifest.json").write_text(json.dumps({**manifest, "expected": [*ours, of_others]}))
    status, data = verify("--expect", "manifest.json")
    assert (status, data["complete"], data["error"]) == (0, True, "")
    status, data = verify("--expect", "manifest.json", "-p", "fp16")
    assert (status, data["complete"]) == (3, False)
    assert "expects 1 that were not judged: mymodel/one [ort-cpu-fp32]" in data["error"]
    assert data["error"] in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", '{"expected": []}', '{"expected": [{"subject": "mymodel"}]}'])
def test_a_manifest_that_expects_nothing_of_the_subject_passes_nothing(text, suite):
    Path("manifest.json").write_text(text)
    status, data = verify("--expect", "manifest.json", "-p", "fp16")
    assert (status, data["complete"]) == (2, False)
    assert "manifest.json" in data["error"]
