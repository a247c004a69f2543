"""What a run records of its accuracy, and what becomes of it where that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accuracy_records import accuracy, add_series

from harness import history, watching
from harness.errors import UsageError
from harness.history import open_history
from harness.records import OutputResult, Result


def result(**changes: Any) -> dict[str, Any]:
    given = {"subject": "clip", "case": "short", "backend": "rtx", "precision": "fp16", "verdict": "pass", "reason": ""}
    return Result(outputs=(OutputResult(name="y", verdict="pass", reason=""),), **{**given, **changes}).to_json()


def record(*results: dict[str, Any]) -> dict[str, Any]:
    return {"results": list(results), "expected": [{**one, "arrived": True, "seconds": 2.5} for one in results]}


def test_a_run_is_recorded_once_for_each_engine(tmp_path: Path):
    watched = watching.watch(record(result(), result(case="long")), dict, folder=tmp_path / ".parity")
    assert [one["case"] for one in watched.trends] == ["long", "short"]
    assert (watched.said, watched.notes) == ([], ())
    with open_history(folder=tmp_path / ".parity") as store:
        assert [one.seconds for one in store.accuracies(9)] == [2.5, 2.5]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    watched = watching.watch(record(result()), dict, folder=tmp_path / "file")
    (sentence,) = watched.said
    assert sentence.startswith("accuracy was not recorded: ")
    assert "\n" not in sentence


def test_while_the_database_is_down_no_trend_is_seen_which_is_no_pass(tmp_path: Path, monkeypatch):
    pytest.importorskip("psycopg", reason="psycopg is not installed: the extra 'postgres'")
    monkeypatch.setenv("PARITY_HISTORY", "postgresql://nobody@127.0.0.1:1/none")
    watched = watching.watch(record(result()), dict, folder=tmp_path)
    assert (watched.trends, watched.creeps, bool(watched.problem)) == ((), (), True)
    assert list(tmp_path.glob("unsent-*.sqlite")), "it waits for the database"


def test_without_results_nothing_is_opened(tmp_path: Path):
    assert watching.watch(record(), dict, folder=tmp_path / "none") == watching.Watched()
    assert not (tmp_path / "none").exists()


def test_a_rise_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with open_history(folder=tmp_path) as store:
        add_series(store, [1.1] * 10 + [2.9] * 2)
    monkeypatch.setattr(history.accuracy, "accuracy_runs", lambda *_: [accuracy(12, 2.9)])
    watched = watching.watch(record(result()), dict, folder=tmp_path)
    (sentence,) = watched.said
    assert sentence.startswith(
        "warning: clip/short [rtx-fp16]: ratio to the floor of logits rose from 1.1 to 2.9 since"
    )
    assert sentence.endswith("commit 000000000009 to 00000000000a then")


@pytest.mark.parametrize(("value", "recorded"), [("", True), ("0", True), ("1", False)])
def test_a_variable_keeps_runs_out(monkeypatch: pytest.MonkeyPatch, value: str, recorded: bool):
    monkeypatch.setenv(watching.VARIABLE, value)
    assert watching.is_recorded(off=False, fail_on_creep=False) is recorded
    assert not watching.is_recorded(off=True, fail_on_creep=False)


def test_a_rise_cannot_fail_where_none_can_be_seen():
    with pytest.raises(UsageError, match="--fail-on-creep needs the history"):
        watching.is_recorded(off=True, fail_on_creep=True)
