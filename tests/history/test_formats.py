"""Records as lines, checked on the way in, and the files that other tools read."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from history_records import BENCHMARK, KEY, run, session

from harness.errors import UsageError
from harness.history.formats import FORMATS
from harness.history.history import History, open_history
from harness.history.rows import SCHEMA
from harness.records.latency import Session


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with open_history(str(tmp_path / "history.sqlite")) as one:
        yield one


def lines_of(history: History, path: Path) -> list[dict[str, Any]]:
    history.export("parity", path)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_move_every_record_and_move_it_once(history: History, tmp_path: Path) -> None:
    for number in (2, 1):
        history.add(session(number, notes=("µs", "two\nlines\u2028or three")))
    history.add(session(3, key="machine-b", invalid=("throttled",)))
    history.accept(BENCHMARK, KEY, ["s1"], "first")
    path = tmp_path / "records.jsonl"
    assert history.export("parity", path) == 4
    assert [line["kind"] for line in lines_of(history, path)] == ["session"] * 3 + ["acceptance"]
    with open_history(str(tmp_path / "other.sqlite")) as other:
        assert other.import_("parity", path) == 4
        assert other.import_("parity", path) == 0
        for key in (KEY, "machine-b"):
            assert other.sessions(BENCHMARK, key) == history.sessions(BENCHMARK, key)
        assert other.baseline(BENCHMARK, KEY) == history.baseline(BENCHMARK, KEY) == [session(1, notes=session_notes())]
        other.export("parity", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()


def session_notes() -> tuple[str, ...]:
    return ("µs", "two\nlines\u2028or three")


def test_one_machine_can_be_chosen(history: History, tmp_path: Path) -> None:
    history.add(session(1))
    history.add(session(2, key="machine-b"))
    assert history.export("parity", tmp_path / "b.jsonl", machine_key="machine-b") == 1
    with pytest.raises(
        UsageError, match=r"'machine-c' is not in the history; choose one of: machine-a \(NVIDIA H200, "
    ):
        history.export("otava", tmp_path / "c", machine_key="machine-c")
    with pytest.raises(UsageError, match="'machine' belongs to 2 machines; choose"):
        history.export("parity", tmp_path / "c", machine_key="machine")


def on_system(number: int, backend: str, system: str, **fields: Any) -> Session:
    one = session(number, backend=backend, key=f"{system}-{backend}", **fields)
    return replace(one, machine=replace(one.machine, system_key=system))


@pytest.mark.parametrize("format", ["pytest-benchmark", "github-action-benchmark"])
def test_the_backends_of_one_system_go_into_one_file(history: History, tmp_path: Path, format: str) -> None:
    """The machine's key holds the backend: without the system's key nearly every history would be of several."""
    history.add(on_system(1, "rtx", "sys-a"))
    history.add(on_system(2, "torch", "sys-a"))
    assert history.export(format, tmp_path / "x.json") == 2
    history.add(on_system(3, "rtx", "sys-b"))
    with pytest.raises(UsageError, match=r"choose it with --machine: sys-a \(.* 2026-01-01\), sys-b \("):
        history.export(format, tmp_path / "x.json")
    assert history.export(format, tmp_path / "x.json", here={"sys-a", "sys-other"}) == 2
    with pytest.raises(UsageError, match="choose it with --machine"):
        history.export(format, tmp_path / "x.json", here={"sys-a", "sys-b"})
    assert history.export(format, tmp_path / "x.json", machine_key="sys-b") == 1
    assert history.export(format, tmp_path / "x.json", machine_key="sys-a-r") == 1
    assert history.export("parity", tmp_path / "x.jsonl", machine_key="sys-a") == 2


def test_records_of_a_machine_bring_its_acceptances(history: History, tmp_path: Path) -> None:
    history.add(session(1))
    history.accept(BENCHMARK, KEY, ["s1"], "x")
    history.add(session(2, key="another"))
    assert history.export("parity", tmp_path / "x.jsonl", machine_key=KEY[:8]) == 2


def test_an_empty_history_moves_too(history: History, tmp_path: Path) -> None:
    assert history.export("parity", tmp_path / "none.jsonl") == 0
    assert history.import_("parity", tmp_path / "none.jsonl") == 0


def test_every_bad_line_is_named_and_nothing_is_imported(history: History, tmp_path: Path) -> None:
    for number in range(1, 7):
        history.add(session(number))
    path = tmp_path / "records.jsonl"
    good = [json.dumps(line) for line in lines_of(history, path)]
    newer, changed, half, unknown = (json.loads(good[n]) for n in range(4))
    newer["schema"] = 7
    changed["data"]["runs"][0]["gpu_ms"]["median"] = 1.0
    del half["data"]["machine"]
    unknown["kind"] = "guess"
    other = json.loads(good[4])
    del other["sha256"]
    other["data"]["device"] = "another"
    texts = [
        *(good[5], json.dumps(newer), json.dumps(changed), "", json.dumps(half), json.dumps(unknown), good[4]),
        *(json.dumps(other), good[3][:-40], "[]", '{"schema": 1, "kind": "session", "data": {"id": NaN}}', "[" * 20000),
    ]
    path.write_text("\n".join(texts))
    with open_history(str(tmp_path / "other.sqlite")) as empty:
        with pytest.raises(UsageError) as caught:
            empty.import_("parity", path)
        assert empty.benchmarks() == []
    said = str(caught.value)
    assert said.startswith(f"{path}: nothing was imported: line 2: schema 7 is newer than {SCHEMA}")
    for part in (
        "line 3: its checksum does not match",
        "line 5: not a session (KeyError: 'machine')",
        "line 6: unknown kind 'guess'; known: session, acceptance",
        "line 8: line 7 has another record with the id s5",
        "line 9: not JSON in UTF-8",
        "line 10: not a record: 'schema', 'kind' or 'data' is missing",
        "line 11: not a session",
        "line 12: ",
    ):
        assert f"; {part}" in said
    assert not any(f"line {number}:" in said.replace("; line 7 has", "") for number in (1, 4, 7))


def test_many_bad_lines_are_counted(history: History, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"\xff\xfe\n" * 25)
    with pytest.raises(UsageError, match=r"line 10: .*; and 15 more$"):
        history.import_("parity", path)


def test_a_line_without_a_checksum_is_a_record_too(history: History, tmp_path: Path) -> None:
    history.add(session(1))
    path = tmp_path / "records.jsonl"
    (line,) = lines_of(history, path)
    line["data"].update(id="s2", a_later_field=1)
    path.write_text(json.dumps({name: line[name] for name in ("schema", "kind", "data")}))
    assert history.import_("parity", path) == 1
    assert history.sessions(BENCHMARK, KEY)[1] == session(1, id="s2")
    assert lines_of(history, path)[1]["data"]["a_later_field"] == 1


def test_an_import_that_contradicts_the_history_adds_nothing(history: History, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with open_history(str(tmp_path / "other.sqlite")) as other:
        other.add(session(1))
        other.add(session(2))
        other.export("parity", path)
    history.add(session(2, median=9.0))
    with pytest.raises(UsageError, match="another session with the id s2; nothing was recorded"):
        history.import_("parity", path)
    assert history.sessions(BENCHMARK, KEY) == [session(2, median=9.0)]


@pytest.mark.parametrize("format", FORMATS[1:])
def test_what_would_have_to_be_guessed_is_not_imported(history: History, tmp_path: Path, format: str) -> None:
    with pytest.raises(UsageError, match=rf"the format {format} cannot be imported: .*does not record the device"):
        history.import_(format, tmp_path / "x.json")


def test_unknown_formats_and_missing_files_are_sentences(history: History, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown history format 'pytest'; did you mean pytest-benchmark"):
        history.export("pytest", tmp_path / "x.json")
    with pytest.raises(UsageError, match=r"cannot read .*x\.jsonl: No such file"):
        history.import_("parity", tmp_path / "x.jsonl")
    with pytest.raises(UsageError, match="cannot write"):
        history.export("parity", tmp_path)


def filled(history: History) -> None:
    """Add two sessions of one benchmark, one of another, and one that does not count."""
    history.add(session(1, median=1.0))
    history.add(session(2, median=2.0, processes=5))
    history.add(session(3, median=3.0, processes=1, precision="fp32", sizes={"batch": 4}, commit="beef+changes"))
    history.add(session(4, precision="bf16", invalid=("throttled",)))


def test_pytest_benchmark_gets_seconds(history: History, tmp_path: Path) -> None:
    filled(history)
    path = tmp_path / "0001_parity.json"
    assert history.export("pytest-benchmark", path) == 2
    assert history.notes == ("not exported, measured in an invalid environment: 1",)
    document = json.loads(path.read_text())
    assert document["machine_info"] == {
        "gpu": "NVIDIA H200",
        "driver": "580.1",
        "machine_key": KEY,
        "device": "NVIDIA H200",
    }
    assert document["commit_info"] == {"id": "beef", "dirty": True}
    first, second = document["benchmarks"]
    assert (first["name"], first["extra_info"]["session"]) == (BENCHMARK, "s2")
    assert first["stats"]["data"] == pytest.approx([0.00200, 0.00201, 0.00202, 0.00203, 0.00204])
    assert first["stats"]["median"] == pytest.approx(0.00202)
    assert first["stats"]["ops"] == pytest.approx(1 / 0.00202)
    assert first["stats"]["iqr"] == pytest.approx(0.00002)
    assert first["stats"]["outliers"] == "2;0"
    assert (second["params"], second["stats"]["stddev"], second["stats"]["rounds"]) == ({"batch": 4}, 0.0, 1)


def test_pytest_benchmark_agrees_with_its_own_figures(history: History, tmp_path: Path) -> None:
    stats = pytest.importorskip("pytest_benchmark.stats", reason="pytest-benchmark is not installed")
    history.add(session(1, runs=tuple(run(ms) for ms in (1.0, 1.2, 1.3, 1.35, 9.0))))
    path = tmp_path / "0001_parity.json"
    history.export("pytest-benchmark", path)
    (benchmark,) = json.loads(path.read_text())["benchmarks"]
    theirs = stats.Stats()
    for second in benchmark["stats"]["data"]:
        theirs.update(second)
    assert set(theirs.fields) <= set(benchmark["stats"])
    quartiles = {"q1", "q3", "iqr"}  # theirs are hinges, ours the inclusive quartiles
    for name in set(theirs.fields) - quartiles - {"outliers"}:
        assert benchmark["stats"][name] == pytest.approx(getattr(theirs, name)), name
    assert benchmark["stats"]["outliers"] == theirs.outliers


def test_pytest_benchmark_compares_the_file(history: History, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    filled(history)
    path = tmp_path / "0001_parity.json"
    history.export("pytest-benchmark", path)
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert BENCHMARK in done.stdout


def test_github_action_benchmark_gets_milliseconds(history: History, tmp_path: Path) -> None:
    filled(history)
    path = tmp_path / "benchmark.json"
    assert history.export("github-action-benchmark", path) == 2
    first, second = json.loads(path.read_text())
    assert first == {
        "name": BENCHMARK,
        "unit": "ms",
        "value": pytest.approx(2.02),
        "range": "2 to 2.04",
        "extra": "gpu_ms, 5 processes\nNVIDIA H200\n2026-01-01T00:02:00+00:00\n0123abcd",
    }
    assert second["value"] == pytest.approx(3.0)


@pytest.mark.parametrize("format", ["pytest-benchmark", "github-action-benchmark"])
def test_a_file_about_one_machine_asks_which(history: History, tmp_path: Path, format: str) -> None:
    history.add(session(1))
    history.add(session(2, key="machine-b"))
    with pytest.raises(UsageError, match=r"is about one machine; choose it with --machine: machine-a \(.*machine-b"):
        history.export(format, tmp_path / "x.json")
    assert history.export(format, tmp_path / "x.json", machine_key="machine-b") == 1


def test_the_newest_session_is_never_replaced_by_an_older_one(history: History, tmp_path: Path) -> None:
    history.add(session(1))
    history.add(session(2, invalid=("throttled",)))
    with pytest.raises(UsageError, match="no session to export"):
        history.export("github-action-benchmark", tmp_path / "x.json")


def test_otava_gets_a_series_a_file(history: History, tmp_path: Path) -> None:
    filled(history)
    history.add(session(5, key="machine-b", runs=(run(2.0, p99=2.5), run(2.2, p99=2.7))))
    folder = tmp_path / "otava"
    assert history.export("otava", folder) == 4
    config = (folder / "otava.yaml").read_text()
    files = sorted(folder.glob("*.csv"))
    assert len(files) == 3
    assert all(f"  {file.stem}:\n    type: csv\n    file: {file.name}\n" in config for file in files)
    tables = {file.name: list(csv.DictReader(file.open())) for file in files}
    (series,) = [table for table in tables.values() if len(table) == 2]
    assert [(row["time"], row["commit"], row["session"]) for row in series] == [
        ("2026-01-01T00:01:00.000000+00:00", "0123abcd", "s1"),
        ("2026-01-01T00:02:00.000000+00:00", "0123abcd", "s2"),
    ]
    assert [float(row["median_ms"]) for row in series] == pytest.approx([1.01, 2.02])
    assert "p99_ms" not in series[0]
    (tail,) = [table for table in tables.values() if table[0]["session"] == "s5"]
    assert (float(tail[0]["p99_ms"]), float(tail[0]["sm_mhz"])) == (pytest.approx(2.6), 1980.0)
    assert config.count("median_ms: {direction: -1,") == 3
    assert config.count("p99_ms: {direction: -1,") == 1
