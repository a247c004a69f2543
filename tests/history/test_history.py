"""The embedded history: order, baselines, two writers, killed writers, damaged and foreign files."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from history_records import BENCHMARK, KEY, ids, run, session, summary

import harness
from harness.errors import NotJudged, UsageError
from harness.history.history import History, open_history
from harness.history.rows import Series
from harness.records.latency import Acceptance

ROOT = Path(harness.__file__).parents[1]
WRITER = """
import sys
from history_records import session
from harness.history import open_history
path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open_history(path) as history:
    for number in range(first, first + count):
        history.add(session(number % 1000, id=f"s{number}"))
        print(f"s{number}", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def filled(path: Path, count: int = 40) -> History:
    """Return an open history of ``count`` sessions, of which the first is accepted."""
    history = open_history(str(path))
    for number in range(count):
        history.add(session(number))
    history.accept(BENCHMARK, KEY, ["s0"], "first build")
    return history


def start_writer(path: Path, first: int, count: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(count)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_what_was_added_comes_back_oldest_first(path: Path) -> None:
    late, early = session(9, notes=("a note",), sizes={"batch": 4}), session(3, sizes={"batch": 4})
    other = session(5)
    with open_history(str(path)) as history:
        for one in (late, early, other):
            history.add(one)
        assert history.sessions(late.benchmark, KEY) == [early, late]
        assert history.sessions(late.benchmark, KEY, limit=1) == [late]
        assert history.sessions(late.benchmark, "machine-b") == []
        assert history.notes == ()
    with open_history(str(path)) as history:
        assert history.benchmarks() == [
            Series(benchmark=other.benchmark, machine_key=KEY, sessions=1, newest="2026-01-01T00:05:00.000000+00:00"),
            Series(benchmark=late.benchmark, machine_key=KEY, sessions=2, newest="2026-01-01T00:09:00.000000+00:00"),
        ]


def test_times_are_ordered_across_zones_and_spellings(path: Path) -> None:
    times = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-01-01T02:00:01+02:00", "2026-01-01T00:00:02"]
    with open_history(str(path)) as history:
        for number in (2, 0, 3, 1):
            history.add(session(number, recorded_at=times[number]))
        assert ids(history) == ["s0", "s1", "s2", "s3"]


def test_adding_a_record_twice_is_harmless(path: Path) -> None:
    with open_history(str(path)) as history:
        history.add(session(1))
        history.add(session(1))
        assert ids(history) == ["s1"]


def test_an_id_is_never_overwritten(path: Path) -> None:
    with open_history(str(path)) as history:
        history.add(session(1))
        with pytest.raises(UsageError, match="another session with the id s1; nothing was recorded"):
            history.add(session(1, median=3.0))
        assert history.sessions(BENCHMARK, KEY) == [session(1)]


NO_TIME = replace(run(1.0), gpu_ms=summary(float("nan")))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (session(1, runs=(NO_TIME,)), "a median time is not a positive number"),
        (session(1, runs=(replace(run(1.0), end_to_end_ms=summary(0.0)),)), "a median time is not a positive number"),
        (session(1, runs=()), "it holds no process"),
        (session(1, recorded_at="yesterday"), "Invalid isoformat string: 'yesterday'"),
        (session(1, id=""), "its id is empty"),
        (session(1, key=""), "its machine key is empty"),
        (
            Acceptance(id="a", accepted_at="2026-01-01", benchmark=BENCHMARK, machine_key=KEY, sessions=(), why="x"),
            "it names no sessions",
        ),
    ],
)
def test_a_record_that_says_nothing_is_refused(path: Path, bad: Acceptance, why: str) -> None:
    with open_history(str(path)) as history:
        with pytest.raises(UsageError, match=rf"cannot be recorded: .*{why}"):
            history.add(bad)
        assert history.benchmarks() == []


def test_the_newest_acceptance_is_the_baseline(path: Path) -> None:
    with filled(path, 4) as history:
        accepted = history.accept(BENCHMARK, KEY, ["s3", "s2", "s3"], " new engine ", who="kim", commit="ffff")
        assert history.baseline(BENCHMARK, KEY) == [session(2), session(3)]
        assert (accepted.why, accepted.who, accepted.commit, accepted.sessions) == (
            "new engine",
            "kim",
            "ffff",
            ("s3", "s2"),
        )
        assert history.acceptances(BENCHMARK, KEY)[-1] == accepted
        assert [one.why for one in history.acceptances(BENCHMARK, KEY)] == ["first build", "new engine"]


def test_the_newest_acceptance_is_the_baseline_whatever_the_clock(path: Path) -> None:
    with filled(path, 4) as history:
        ahead = replace(history.acceptances(BENCHMARK, KEY)[0], id="ahead", accepted_at="2999-01-01T00:00:00")
        history.add(ahead)
        accepted = history.accept(BENCHMARK, KEY, ["s3"], "after the clock was set right")
        assert history.baseline(BENCHMARK, KEY) == [session(3)]
        assert accepted.accepted_at == "2999-01-01T00:00:00.000001+00:00"
        assert "a clock jumped" in history.notes[0]


def test_no_acceptance_is_no_baseline(path: Path) -> None:
    with open_history(str(path)) as history:
        history.add(session(1))
        assert history.baseline(BENCHMARK, KEY) == []


@pytest.mark.parametrize(
    ("wanted", "why", "said"),
    [
        (["s1"], "  ", "needs a reason: --why 'TEXT'"),
        ([], "x", "run parity bench first"),
        (["s1", "s99"], "x", "session s99 cannot be accepted: it is not in .*history.sqlite"),
        (["s1", "other"], "x", "it is of another benchmark, clip/one.*rtx-fp32"),
        (["far"], "x", "it is of another machine, machine-b"),
        (["bad"], "x", "it was measured in an invalid environment: a foreign process"),
    ],
)
def test_what_cannot_be_a_baseline_is_refused(path: Path, wanted: list[str], why: str, said: str) -> None:
    with filled(path, 2) as history:
        history.add(session(3, id="other", precision="fp32"))
        history.add(session(4, id="far", key="machine-b"))
        history.add(session(5, id="bad", invalid=("a foreign process", "throttled")))
        before = history.acceptances(BENCHMARK, KEY)
        with pytest.raises(UsageError, match=said):
            history.accept(BENCHMARK, KEY, wanted, why)
        assert history.acceptances(BENCHMARK, KEY) == before


def test_a_baseline_that_lacks_a_session_says_so(path: Path) -> None:
    with open_history(str(path)) as history:
        history.add(session(1))
        history.add(session(2, id="other", precision="fp32"))
        history.add(
            Acceptance(
                id="a",
                accepted_at="2026-01-02T00:00:00Z",
                benchmark=BENCHMARK,
                machine_key=KEY,
                sessions=("s1", "gone", "other"),
                why="imported",
            )
        )
        assert history.baseline(BENCHMARK, KEY) == [session(1)]
        assert history.notes == (f"2 of the 3 sessions of the baseline of {BENCHMARK} cannot be used: gone, other",)


def test_two_writers_lose_nothing(path: Path) -> None:
    writers = [start_writer(path, first, 60) for first in (1000, 2000)]
    printed = [writer.communicate(timeout=60)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    with open_history(str(path)) as history:
        assert sorted(ids(history)) == sorted(printed[0] + printed[1])
        assert len(ids(history)) == 120
        assert history.notes == ()


def test_a_killed_writer_leaves_whole_records(path: Path) -> None:
    committed: list[str] = []
    for turn in range(3):
        writer = start_writer(path, 1000 * turn + 1000, 1000)
        assert writer.stdout is not None
        for _ in range(4 + 5 * turn):
            committed.append(writer.stdout.readline().strip())
        os.kill(writer.pid, signal.SIGKILL)
        committed += writer.stdout.read().split()
        assert writer.wait(timeout=30) == -signal.SIGKILL
    with open_history(str(path)) as history:
        stored = ids(history)
        assert history.notes == ()
    assert set(committed) <= set(stored)
    assert len(stored) - len(committed) <= 3  # a record may be committed and its name not printed yet


def overwritten(start: int, data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(data)

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize(
    ("damage", "at_least"),
    [
        pytest.param(overwritten(0, b"garbage, not a header" * 4), 41, id="header"),
        pytest.param(overwritten(0, bytes(range(256)) * 16), 41, id="first page"),
        pytest.param(overwritten(5 * 4096, bytes(4096)), 30, id="zeroed page"),
        pytest.param(cut, 20, id="cut short"),
        pytest.param(lambda path: path.write_bytes(b"garbage" * 1000), 0, id="all of it"),
    ],
)
def test_a_damaged_file_is_kept_aside_and_what_can_be_read_lives_on(
    path: Path, damage: Callable[[Path], None], at_least: int
) -> None:
    filled(path).close()
    damage(path)
    data = path.read_bytes()
    with open_history(str(path)) as history:
        (note,) = history.notes
        (aside,) = [
            one for one in path.parent.glob("history.sqlite.damaged-*") if not one.name.endswith(("-wal", "-shm"))
        ]
        found = history.sessions(BENCHMARK, KEY)
        records = len(found) + len(history.acceptances(BENCHMARK, KEY))
        assert all(one == session(int(one.id[1:])) for one in found)
        assert at_least <= records <= 41
        assert note.startswith(f"the history {path} was damaged (")
        assert note.endswith(
            f"it is kept as {aside}, and a new one was started; records read from the damaged one: {records}"
        )
        assert aside.read_bytes() == data
        history.add(session(50))
    with open_history(str(path)) as history:
        assert "s50" in ids(history)
        assert history.notes == ()


def test_a_file_that_is_damaged_while_it_is_open_is_kept_aside_too(path: Path) -> None:
    with filled(path, 5) as history:
        path.write_bytes(b"garbage" * 1000)
        history.add(session(7))
        assert ids(history) == ["s7"]
        assert "was damaged" in history.notes[0]


def test_a_flipped_digit_is_found(path: Path) -> None:
    filled(path, 3).close()
    changed = path.read_bytes().replace(b'"median":2.01,', b'"median":1.01,', 1)
    path.write_bytes(changed)
    with open_history(str(path)) as history:
        found = ids(history)
        assert len(found) == 2
        (lost,) = {"s0", "s1", "s2"} - set(found)
        assert history.notes == (f"session {lost} in {path} is damaged and was left out: its checksum does not match",)


def test_a_column_of_another_type_is_found(path: Path) -> None:
    filled(path, 3).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE parity_history SET schema = 'x' WHERE id = 's0'")
        connection.execute("UPDATE parity_history SET data = CAST(data AS BLOB) WHERE id = 's1'")
    connection.close()
    with open_history(str(path)) as history:
        assert ids(history) == ["s1", "s2"]
        assert "a record has the schema 'x'" in history.notes[0]


def test_a_damaged_key_is_found(path: Path) -> None:
    filled(path, 3).close()
    column = f"session{BENCHMARK}machine-a2026".encode()
    changed = path.read_bytes().replace(column, column.replace(b"machine-a", b"machine-b"), 1)
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with open_history(str(path)) as history:
        assert ids(history) == ["s0", "s1", "s2"]
        assert "was damaged" in history.notes[0]


def test_a_newer_history_is_not_read(path: Path) -> None:
    filled(path, 1).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE parity_history SET schema = 9 WHERE id = 's0'")
    connection.close()
    with pytest.raises(
        UsageError, match=r"written by another version of trt-parity \(schema 9; this one knows up to 2"
    ):
        open_history(str(path))
    assert not list(path.parent.glob("*damaged*"))


def test_a_table_of_other_columns_is_not_read(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE parity_history (id TEXT, benchmark TEXT, machine_key TEXT, recorded_at TEXT)")
    connection.close()
    with pytest.raises(UsageError, match=r"written by another version of trt-parity \(schema unknown"):
        open_history(str(path))


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    with pytest.raises(UsageError, match="is the database of another program"):
        open_history(str(path))
    with sqlite3.connect(path) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["customers"]
    connection.close()


@pytest.mark.parametrize("name", ["README.md", "history", "mysql://host/db", "postgresql://u:p@h:port/db"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    text = name if "://" in name else str(tmp_path / name)
    with pytest.raises(UsageError, match="postgresql://") as caught:
        open_history(text)
    assert "u:p@" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"the history .*x\.sqlite cannot be written: .*set PARITY_HISTORY"):
        open_history(str(tmp_path / "file" / "x.sqlite"))
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(UsageError, match="no place for a history"):
        open_history(str(tmp_path / "folder.sqlite"))


def test_a_lock_that_is_never_released_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.history.store.LOCK_S", 0.1)
    monkeypatch.setattr("harness.history.store._RETRIES_S", (0.01,))
    with filled(path, 1) as history:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotJudged, match="is locked by another process"):
            history.add(session(2))
        other.execute("ROLLBACK")
        other.close()
        history.add(session(2))
        assert ids(history) == ["s0", "s2"]


def test_the_default_place_is_out_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARITY_HISTORY", raising=False)
    with open_history() as history:
        history.add(session(1))
        assert history.where == ".parity/history.sqlite"
    assert (tmp_path / ".parity" / ".gitignore").read_text() == "*\n"


def test_the_environment_names_the_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITY_HISTORY", str(path))
    with open_history() as history:
        history.add(session(1))
    assert path.is_file()
    assert not (path.parent / ".gitignore").exists()
