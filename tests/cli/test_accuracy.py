"""``parity history --accuracy``, ``parity accept --accuracy``, and what ``parity verify`` records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from accuracy_records import accuracy, add_series

from harness import cli
from harness.history import accuracy_trends, open_history
from harness.records import load

RISE = [1.1] * 10 + [2.9] * 3


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARITY_HISTORY", str(tmp_path / "h.sqlite"))
    return tmp_path


def fill(**changes: Any) -> None:
    with open_history() as history:
        add_series(history, RISE)
        add_series(history, [1.1] * 4, precision="bf16", prefix="b", **changes)


def test_every_series_is_shown_with_its_figures(capsys: pytest.CaptureFixture[str]):
    fill()
    assert cli.main(["history", "--accuracy"]) == 0
    shown = capsys.readouterr().out
    row = next(line.split() for line in shown.splitlines() if "rtx-fp16" in line)
    assert row[:4] == ["clip", "short", "rtx-fp16", "logits"]
    assert row[-6:] == ["13", "1.1", "1.1", "2.9", "3", "__________###"]
    assert "ratio to the floor of logits rose from 1.1 to 2.9 since 2026-10-11, run run-10" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "targets"),
    [
        (["clip"], {"rtx-fp16", "rtx-bf16"}), (["cl*"], {"rtx-fp16", "rtx-bf16"}), (["-p", "bf16"], {"rtx-bf16"}),
        (["clip", "-b", "rtx", "-p", "fp16", "--case", "short", "--output", "logits"], {"rtx-fp16"}),
    ],
)  # fmt: skip
def test_names_and_patterns_choose(place: Path, arguments: list[str], targets: set[str]):
    fill()
    assert cli.main(["history", "--accuracy", *arguments, "--json", "out.json"]) == 0
    data = json.loads((place / "out.json").read_text())
    assert {f"{one['backend']}-{one['precision']}" for one in data["accuracy_history"]} == targets
    assert data["complete"]


def test_the_json_is_read_by_reports(place: Path):
    fill()
    assert cli.main(["history", "--accuracy", "--json", "out.json"]) == 0
    records = load([place / "out.json"])
    assert [one["creeps"] for one in records.trends] == [False, True]
    assert records.broken == ()


@pytest.mark.parametrize("arguments", [["x"], ["-b", "trt"], ["--output", "none"]])
def test_nothing_that_was_asked_for_is_recorded(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    fill()
    assert cli.main(["history", "--accuracy", *arguments]) == 3
    assert "recorded are: clip" in capsys.readouterr().err


def test_series_of_earlier_weights_are_counted(capsys: pytest.CaptureFixture[str]):
    with open_history() as history:
        add_series(history, [1.1] * 3)
        history.add(accuracy(9, 1.3, model="other"))
    assert cli.main(["history", "--accuracy"]) == 0
    shown = capsys.readouterr().out
    assert sum("rtx-fp16" in line for line in shown.splitlines()) == 1
    assert "not shown, of earlier weights, inputs or plans: 1" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["history"], "history needs a SUBJECT"), (["history", "clip", "--output", "y"], "--output is for --accuracy"),
        (["history", "clip", "--accuracy", "--batch", "2"], "leave out --sweep"),
        (["history", "--accuracy", "--machine", "k"], "leave out --machine"),
        (["history", "export", "parity", "f", "--accuracy"], "leave out --accuracy"),
        (["accept", "clip", "--accuracy", "--last", "2", "--why", "x"], "leave out --last"),
        (["accept", "clip", "--output", "y", "--why", "x"], "--output is for --accuracy"),
    ],
)  # fmt: skip
def test_wrong_requests_are_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_an_accepted_rise_warns_no_more(capsys: pytest.CaptureFixture[str]):
    fill()
    assert cli.main(["accept", "clip", "--accuracy", "--why", "a known kernel"]) == 0
    assert "clip/short [rtx-fp16] logits: accepted, 2.9 floors" in capsys.readouterr().out
    assert cli.main(["accept", "clip", "--accuracy", "--why", "again"]) == 3, "nothing rises any more"
    with open_history() as history:
        assert [one.creeps for one in accuracy_trends(history)] == [False, False]
    assert cli.main(["history", "--accuracy"]) == 0
    assert "its level was accepted: a known kernel" in capsys.readouterr().out
