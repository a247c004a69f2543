"""How long tests take is read from the history, the same by all shards of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from accuracy_records import accuracy

from harness.errors import UsageError
from harness.history import durations_from, open_history
from harness.history.durations import HISTORY
from harness.records import AccuracyRun

RTX = ("clip", "short", "rtx", "fp16")


def durations(folder: Path, *runs: AccuracyRun):
    with open_history(folder=folder) as history:
        history.add_all(runs)
    return durations_from(HISTORY, folder=folder)


def test_the_newest_run_of_each_engine_counts_on_any_machine(tmp_path: Path):
    found = durations(
        tmp_path,
        accuracy(1, seconds=9.0), accuracy(2, seconds=5.0, machine_key="other"), accuracy(3),
        accuracy(1, seconds=7.0, id="b", case="long", verdict="fail"),
    )  # fmt: skip
    assert found.seconds == {RTX: 5.0, ("clip", "long", "rtx", "fp16"): 7.0}
    assert len(found.sha256) == 64


def test_what_a_shard_of_this_run_recorded_changes_nothing_for_the_next(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("harness.history.durations.run_id", lambda: "pipeline-7")
    first = durations(tmp_path, accuracy(1, seconds=9.0))
    again = durations(tmp_path, accuracy(2, seconds=1.0, run="pipeline-7"), accuracy(3, seconds=2.0, run="pipeline-8"))
    assert first == again


def test_without_durations_tests_are_counted(tmp_path: Path):
    found = durations(tmp_path, accuracy(1))
    assert (found.seconds, found.sha256) == ({}, "")


def test_while_the_database_is_down_tests_are_counted(tmp_path: Path, monkeypatch):
    pytest.importorskip("psycopg", reason="psycopg is not installed: the extra 'postgres'")
    monkeypatch.setenv("PARITY_HISTORY", "postgresql://nobody@127.0.0.1:1/none")
    down = durations_from(HISTORY, folder=tmp_path)
    assert (down.seconds, down.sha256) == ({}, "")
    assert "cannot be read" in down.words


def test_a_place_that_is_no_history_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PARITY_HISTORY", str(tmp_path / "history.txt"))
    with pytest.raises(UsageError, match="PARITY_HISTORY"):
        durations_from(HISTORY, folder=tmp_path)
