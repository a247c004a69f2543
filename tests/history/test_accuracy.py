"""Accuracies in the history: what goes in, what of it counts, and what comes out of several runs."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accuracy_records import KEY, accuracy, add_series, outputs
from history_records import session

import harness
from harness.errors import UsageError
from harness.history import WINDOW, accept_rises, accuracy_runs, accuracy_trends, open_history, record_accuracy
from harness.history.history import History
from harness.records import AccuracyTrend, EngineInfo, OutputResult, Provenance, Result, VersionChange, run_id

ENVIRONMENT = {
    "cpu": "AMD EPYC", "driver": "580.1", "cuda": "13.0", "commit": "ffff",
    "packages": {"torch": "2.9.0", "onnx": None, "trt-parity": "0.1.0"},
    "backends": {"rtx": {"version": "1.6"}, "ort-cpu": {"version": "1.31"}},
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def result(device: str = "NVIDIA H200", **changes: Any) -> dict[str, Any]:
    """Return the JSON of a result with one output, whose figures are ``error``, ``floor`` and ``limit``."""
    error, floor, limit = changes.pop("figures", (1.1e-3, 1e-3, 3e-3))
    source = Provenance(
        weights="trained", weights_source="hub", weights_sha256=changes.pop("weights_sha256", "w"), inputs="real",
        inputs_sha256=changes.pop("inputs_sha256", "i"), program_sha256="p", commit="abcd", reference="", device=device,
    )  # fmt: skip
    given = {
        "subject": "clip", "case": "short", "backend": "rtx", "precision": "fp16", "verdict": "pass", "reason": "fine",
        "engine": EngineInfo(sha256="e" * 64, path="", cached=True, build_s=1.0, bytes=1), "provenance": source,
        "outputs": (OutputResult(name="logits", verdict="pass", reason=""),),
    }  # fmt: skip
    data = Result(**{**given, **changes}).to_json()
    for output in data["outputs"]:
        output |= {"relative_l2": error, "floor": {"relative_l2": floor}, "allowed": {"relative_l2": limit}}
    return data


def trend(history: History) -> AccuracyTrend:
    (found,) = accuracy_trends(history)
    return found


def test_a_record_has_who_what_where_and_with_which_versions():
    (found,) = accuracy_runs([result()], ENVIRONMENT)
    assert (found.run, found.device, found.commit, found.engine_sha256) == (run_id(), "NVIDIA H200", "abcd", "e" * 64)
    assert found.versions.pop("trt-parity").startswith("0.1.0 (code ")
    assert found.versions == {"TensorRT for RTX": "1.6", "driver": "580.1", "CUDA": "13.0", "torch": "2.9.0"}
    (output,) = found.outputs
    assert output.ratio == pytest.approx(1.1)
    assert (output.error, output.floor, output.limit) == (1.1e-3, 1e-3, 3e-3)
    assert found.benchmark.startswith("clip/short/rtx-fp16/accuracy/")


@pytest.mark.parametrize(("alone", "recorded"), [("fail", "fail"), ("not_judged", "not_judged"), ("", "not_judged")])
def test_a_known_failure_is_recorded_as_what_it_is_without_the_ledger(alone: str, recorded: str, path: Path):
    entry = {"file": "known.toml", "entry": 1, "kind": "wrong answer", "verdict": alone}
    known = {**result(), "verdict": "known", "reason": "known until 2027-03-01", "known": entry}
    record_accuracy([known, result(case="long")], ENVIRONMENT, url=str(path), folder=path.parent)
    with open_history(str(path)) as history:
        assert {one.case: one.verdict for one in history.accuracies(9)} == {"short": recorded, "long": "pass"}


def test_on_the_cpu_the_device_is_its_name_and_no_driver_matters():
    (found,) = accuracy_runs([result(device="CPU", backend="ort-cpu")], ENVIRONMENT)
    assert found.device == "AMD EPYC"
    assert {"ONNX Runtime", "torch"} < set(found.versions)
    assert not {"driver", "CUDA"} & set(found.versions)


def test_the_floor_itself_is_not_recorded():
    assert accuracy_runs([result(backend="torch")], ENVIRONMENT) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"weights_sha256": "other"}, {"inputs_sha256": "other"}, {"source": "suites/b.py"}, {"precision": "bf16"},
        {"plan_source": "plans/mixed.toml@1a2b3c4d"}, {"backend": "trt"}, {"case": "long"}, {"device": "NVIDIA L4"},
    ],
)  # fmt: skip
def test_another_model_plan_precision_or_kind_of_device_is_another_series(changes: dict[str, Any]):
    one, other = accuracy_runs([result(), result(**changes)], ENVIRONMENT)
    assert (one.benchmark, one.machine_key) != (other.benchmark, other.machine_key)


def test_other_versions_are_the_same_series():
    newer = {**ENVIRONMENT, "driver": "590", "backends": {"rtx": {"version": "1.7"}}}
    (one,), (other,) = accuracy_runs([result()], ENVIRONMENT), accuracy_runs([result()], newer)
    assert (one.benchmark, one.machine_key) == (other.benchmark, other.machine_key)


@pytest.mark.parametrize("figures", [(None, 1e-3, 3e-3), (1e-3, None, None), (1e-3, 0.0, 1e-6)])
def test_what_has_no_ratio_has_none(figures: tuple[Any, ...]):
    (found,) = accuracy_runs([result(figures=figures)], ENVIRONMENT)
    assert found.outputs[0].ratio is None


def test_what_did_not_run_is_recorded_as_not_judged(path: Path):
    lost = result(verdict="not_judged", reason="no GPU", provenance=None, engine=None, outputs=())
    found, notes = record_accuracy([lost], ENVIRONMENT, url=str(path), folder=path.parent)
    assert notes == ()
    assert [(one.output, one.device, one.not_judged, one.median) for one in found] == [("", "unknown", 1, None)]


def test_a_run_is_one_transaction_and_comes_back(path: Path):
    found, _ = record_accuracy([result(), result(case="long")], ENVIRONMENT, url=str(path), folder=path.parent)
    assert [(one.case, one.last) for one in found] == [("long", pytest.approx(1.1)), ("short", pytest.approx(1.1))]
    with open_history(str(path)) as history, pytest.raises(UsageError, match="cannot be recorded"):
        history.add_all([accuracy(1), accuracy(2, run="")])
    with open_history(str(path)) as history:
        assert len(history.accuracies(WINDOW)) == 2, "none of the two"


def test_a_creep_is_named_with_what_changed_where_it_began(path: Path):
    old, new = {"TensorRT for RTX": "1.4", "torch": "2.9"}, {"TensorRT for RTX": "1.6", "torch": "2.9"}
    with open_history(str(path)) as history:
        for number in range(40):
            ratio = 1.1 if number < 20 else 1.1 + 0.09 * (number - 19)
            history.add(accuracy(number, ratio, versions=old if number < 20 else new))
        found = trend(history)
    (change,) = found.change_points
    assert (change.index, change.run, change.runs_away, found.creeps) == (20, "run-20", 0, True)
    assert change.after == pytest.approx(2.9)
    assert change.changed[0] == VersionChange(name="TensorRT for RTX", before="1.4", after="1.6")
    assert [one.name for one in change.changed] == ["TensorRT for RTX", "commit"]


def test_versions_that_changed_nearby_are_named_with_how_far(path: Path):
    with open_history(str(path)) as history:
        for number in range(24):
            versions = {"torch": "2.9" if number < 18 else "2.10"}
            history.add(accuracy(number, 1.1 if number < 20 else 1.6, versions=versions))
        (change,) = trend(history).change_points
    assert (change.index, change.runs_away) == (20, -2)
    assert change.changed == (VersionChange(name="torch", before="2.9", after="2.10"),)


def test_what_failed_or_was_not_judged_is_no_part_of_the_level(path: Path):
    """Five good runs, then only failures: neither 9 floors nor their absence may look like a level that passed."""
    with open_history(str(path)) as history:
        add_series(history, [1.1] * 10)
        for number in range(10, 16):
            history.add(accuracy(number, 9.0, verdict="fail"))
        history.add(accuracy(16, outputs=(), verdict="not_judged"))
        found = trend(history)
    assert (found.failed, found.not_judged, len(found.points)) == (6, 1, 17)
    assert (found.first, found.median, found.last) == (pytest.approx(1.1),) * 3
    assert found.change_points == ()
    assert [point.verdict for point in found.points][-2:] == ["fail", "not_judged"]


def test_a_rerun_counts_once_and_the_worse_of_two_verdicts(path: Path):
    with open_history(str(path)) as history:
        add_series(history, [1.1, 1.1, 1.1])
        again = {"run": "run-1", "commit": accuracy(1).commit}
        history.add(accuracy(3, 1.2, **again))
        assert [point.ratio for point in trend(history).points] == pytest.approx([1.1, 1.1, 1.2])
        history.add(accuracy(4, outputs=(), verdict="not_judged", **again))
        assert trend(history).not_judged == 0, "it was judged once"
        history.add(accuracy(5, 9.0, verdict="fail", **again))
        history.add(accuracy(6, 1.1, **again))
        found = trend(history)
    assert (len(found.points), found.failed) == (3, 1), "no try makes a wrong answer right"


def test_one_id_for_all_runs_is_not_one_run(path: Path):
    with open_history(str(path)) as history:
        add_series(history, [1.1] * 4, run="ci")
        assert len(trend(history).points) == 4, "of other commits"


def test_an_accepted_rise_begins_anew(path: Path):
    with open_history(str(path)) as history:
        add_series(history, [1.1] * 10 + [1.6] * 4)
        rising = [one for one in accuracy_trends(history) if one.creeps]
        with pytest.raises(UsageError, match="needs a reason"):
            accept_rises(history, rising, "  ")
        accept_rises(history, rising, "the new kernel is known")
        found = trend(history)
        assert (found.creeps, len(found.points), found.accepted) == (False, 1, "the new kernel is known")
        history.add_all(accuracy(number, 1.6) for number in range(14, 30))
        history.add_all(accuracy(number, 2.4) for number in range(30, 34))
        assert trend(history).change_points[-1].before == pytest.approx(1.6)


def test_only_the_newest_runs_are_looked_at(path: Path):
    with open_history(str(path)) as history:
        history.add_all(
            accuracy(0, 1.1, id=f"{n:04}", run=f"r{n}", recorded_at=f"2026-01-01T{n // 60:02}:{n % 60:02}:00+00:00")
            for n in range(WINDOW + 7)
        )
        found = trend(history)
    assert (len(found.points), found.points[0].run) == (WINDOW, "r7")


def test_outputs_and_machines_have_trends_of_their_own(path: Path):
    with open_history(str(path)) as history:
        for number in range(3):
            history.add(accuracy(number, outputs=outputs(logits=1.1, pooled=2.0)))
            history.add(accuracy(number, 1.4, id=f"b{number}", machine_key="gpu-b", device="NVIDIA L4"))
        history.add(accuracy(3, outputs=outputs(logits=1.1)))
        found = {(one.device, one.output): one for one in accuracy_trends(history)}
    assert {key: len(one.points) for key, one in found.items()} == {
        ("NVIDIA H200", "logits"): 4, ("NVIDIA H200", "pooled"): 3, ("NVIDIA L4", "logits"): 3,
    }  # fmt: skip
    assert found["NVIDIA H200", "pooled"].limit == pytest.approx(3.0)
    assert found["NVIDIA H200", "pooled"].points[0].ratio == pytest.approx(2.0)


def test_latencies_stay_what_they_are_beside_accuracies(path: Path):
    with open_history(str(path)) as history:
        history.add(session(1))
        add_series(history, [1.1, 1.2])
        assert [one.sessions for one in history.benchmarks()] == [1]
        assert len(history.accuracies(WINDOW)) == 2


def test_a_program_that_does_not_know_accuracies_refuses(path: Path):
    with open_history(str(path)) as history:
        history.add(session(1))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT max(schema) FROM parity_history").fetchone() == (1,), "it can read this one"
    connection.close()
    with open_history(str(path)) as history:
        add_series(history, [1.1])
    with sqlite3.connect(path) as connection:
        assert dict(connection.execute("SELECT kind, schema FROM parity_history")) == {"session": 1, "accuracy": 2}
    connection.close()


def test_records_move_and_are_merged(path: Path, tmp_path: Path):
    with open_history(str(path)) as history, open_history(str(tmp_path / "other.db")) as other:
        add_series(history, [1.1, 1.2])
        add_series(other, [1.1, 1.2, 1.3])
        history.add(session(1))
        assert history.export("parity", tmp_path / "a.jsonl") == 3
        assert other.import_("parity", tmp_path / "a.jsonl") == 1
        assert other.export("parity", tmp_path / "b.jsonl", machine_key=KEY) == 3, "those of one kind of device"
        assert history.import_("parity", tmp_path / "b.jsonl") == 1
        assert accuracy_trends(history) == accuracy_trends(other)


def test_export_of_a_machine_has_the_accuracies_of_its_device(path: Path, tmp_path: Path):
    with open_history(str(path)) as history:
        history.add(session(1))
        add_series(history, [1.1, 1.2], device=session(1).device)
        add_series(history, [1.1], device="another", machine_key="gpu-b", prefix="b")
        assert history.export("parity", tmp_path / "a.jsonl", machine_key=session(1).machine.key) == 3


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("verdict", "fine", "its verdict is 'fine'"),
        ("outputs", [{"name": "y", "verdict": "pass", "error": -1.0}], "a figure of the output 'y'"),
        ("outputs", [{"name": "y", "verdict": "good"}], "good"), ("run", " ", "its run is empty"),
        ("outputs", None, "not a accuracy"), ("recorded_at", "today", "today"),
    ],
)  # fmt: skip
def test_lines_that_are_no_record_are_refused(path: Path, tmp_path: Path, key: str, value: Any, why: str):
    line = {"schema": 2, "kind": "accuracy", "data": {**accuracy(1).to_json(), key: value}}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    with open_history(str(path)) as history, pytest.raises(UsageError, match=f"line 1: .*{why}"):
        history.import_("parity", tmp_path / "a.jsonl")


def test_fields_of_a_later_version_are_left_out(path: Path, tmp_path: Path):
    data = accuracy(1).to_json()
    data["outputs"][0]["later"] = data["later"] = 1
    (tmp_path / "a.jsonl").write_text(json.dumps({"schema": 2, "kind": "accuracy", "data": data}))
    with open_history(str(path)) as history:
        assert history.import_("parity", tmp_path / "a.jsonl") == 1
        assert history.accuracies(WINDOW) == [accuracy(1)]


def test_what_a_damaged_file_still_holds_lives_on(path: Path):
    with open_history(str(path)) as history:
        add_series(history, [1.1] * 40)
    with path.open("r+b") as file:
        file.write(b"garbage, not a header" * 4)
    with open_history(str(path)) as history:
        assert "was damaged" in history.notes[0]
        assert len(history.accuracies(WINDOW)) == 40


def test_a_changed_figure_is_found(path: Path):
    with open_history(str(path)) as history:
        add_series(history, [1.1] * 3)
    path.write_bytes(path.read_bytes().replace(b'"subject":"clip"', b'"subject":"clap"', 1))
    with open_history(str(path)) as history:
        assert len(history.accuracies(WINDOW)) == 2
        assert "its checksum does not match" in history.notes[0]


WRITER = """
import sys
from accuracy_records import accuracy
from harness.history import open_history
path, name = sys.argv[1:]
for number in range(15):
    with open_history(path) as history:
        history.add_all(accuracy(number, id=f"{name}-{number}-{n}", run=f"{name}-{number}") for n in range(20))
    print(number, flush=True)
"""


def test_writers_at_once_lose_nothing_and_leave_no_half_of_a_run(path: Path):
    root = Path(harness.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name], env=environment, stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "killed")
    ]
    killed = writers[-1]
    assert killed.stdout is not None
    committed = [killed.stdout.readline() for _ in range(3)]
    killed.kill()
    committed += killed.stdout.readlines()
    killed.wait(timeout=60)
    assert [writer.wait(timeout=60) for writer in writers[:2]] == [0, 0]
    with open_history(str(path)) as history:
        found = history.accuracies(10_000)
        assert history.notes == ()
    runs = {run: sum(one.run == run for one in found) for run in {one.run for one in found}}
    assert set(runs.values()) == {20}
    assert {f"{name}-{number}" for name in "ab" for number in range(15)} < set(runs)
    assert {f"killed-{number.strip()}" for number in committed} <= set(runs)
