"""The history in a real PostgreSQL server, started here on loopback: writers, refusals, and a server that goes away."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accuracy_records import accuracy, add_series
from history_records import BENCHMARK, KEY, ids, session

import harness
from harness.errors import UsageError
from harness.history import accept_rises, accuracy_trends
from harness.history.durations import recorded_seconds
from harness.history.history import History, open_history

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: the extra 'postgres'")
ROOT = Path(harness.__file__).parents[1]
PASSWORD = "s3cret/p@ss"
QUOTED = "s3cret%2Fp%40ss"
WRITER = """
import sys
from history_records import session
from harness.history import open_history
with open_history(sys.argv[1]) as history:
    for number in range(int(sys.argv[2]), int(sys.argv[2]) + 30):
        history.add(session(number % 1000, id=f"s{number}"))
    assert history.notes == (), history.notes
"""


def program(name: str) -> Path:
    """Return one of PostgreSQL's programs, or skip the test."""
    found = shutil.which(name)
    places = [Path(found)] if found else sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    if not places:
        pytest.skip(f"needs a PostgreSQL server: {name} is neither in PATH nor in /usr/lib/postgresql")
    return places[0].resolve()


class Server:
    """Owns one PostgreSQL server in a temporary folder, on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.account = unprivileged()
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "password").write_text(PASSWORD)
        if self.account:
            for path in (folder, folder / "password"):
                shutil.chown(path, self.account["user"], self.account["group"])
        options = ["--auth=scram-sha-256", "--username=parity", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [program("initdb"), "-D", folder / "data", f"--pwfile={folder / 'password'}", *options]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60, **self.account)

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        command = [program("postgres"), "-D", self.folder / "data"]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **self.account)
        end = time.monotonic() + 60
        while True:
            try:
                return self.connect("postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > end or self.process.poll() is not None:
                    pytest.fail((self.folder / "log").read_text())
                time.sleep(0.02)

    def crash(self) -> None:
        """Stop it at once, as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=60)
            self.process = None

    def connect(self, database: str) -> Any:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="parity", password=PASSWORD, dbname=database, autocommit=True
        )

    def url(self, database: str, *, user: str = "parity", password: str = QUOTED) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"


def unprivileged() -> dict[str, Any]:
    """Return whom the server runs as: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names.get("nobody")
    if entry is None:
        pytest.skip("needs a user other than root to run a PostgreSQL server")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="parity-postgres-"))  # not pytest's: its folders are for root alone
    try:
        one = Server(folder)
        one.start()
        try:
            yield one
        finally:
            one.crash()  # its data is deleted, so there is nothing to put in order
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def database(server: Server) -> str:
    """Return the name of a new database."""
    if server.process is None:
        server.start()
    name = f"history_{uuid.uuid4().hex}"
    with server.connect("postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return name


@pytest.fixture
def opened(server: Server, database: str, tmp_path: Path) -> Callable[..., History]:
    """Return a function that opens the history of this test."""
    return lambda **options: open_history(server.url(database, **options), folder=tmp_path / ".parity")


def test_the_same_records_as_in_a_file(opened: Callable[..., History], tmp_path: Path) -> None:
    with opened() as database, open_history(str(tmp_path / "x.sqlite")) as file:
        for history in (database, file):
            for number in (3, 1, 2):
                history.add(session(number, notes=("a \x00 note", "µs")))
            history.add(session(1, notes=("a \x00 note", "µs")))
            with pytest.raises(UsageError, match="another session with the id s1"):
                history.add(session(1, median=9.0))
            history.accept(BENCHMARK, KEY, ["s2", "s1"], "first")
            assert history.notes == ()
        assert database.sessions(BENCHMARK, KEY) == file.sessions(BENCHMARK, KEY)
        assert database.baseline(BENCHMARK, KEY) == file.baseline(BENCHMARK, KEY)
        assert database.benchmarks() == file.benchmarks()
        assert [one.id for one in database.sessions(BENCHMARK, KEY, limit=2)] == ["s2", "s3"]
        assert file.export("parity", tmp_path / "file.jsonl") == 4
        assert database.import_("parity", tmp_path / "file.jsonl") == 1, "the other acceptance"
        assert database.export("parity", tmp_path / "database.jsonl") == 5
        assert file.import_("parity", tmp_path / "database.jsonl") == 1
        assert file.import_("parity", tmp_path / "database.jsonl") == 0


def test_accuracies_are_those_of_a_file_and_wait_for_a_server_that_is_down(
    server: Server, opened: Callable[..., History], tmp_path: Path
) -> None:
    with opened() as database, open_history(str(tmp_path / "x.sqlite")) as file:
        for history in (database, file):
            add_series(history, [1.1] * 10 + [2.9] * 2, seconds=2.5)
        assert database.accuracies(9) == file.accuracies(9)
        assert accuracy_trends(database) == accuracy_trends(file)
        assert recorded_seconds(database) == recorded_seconds(file) == {("clip", "short", "rtx", "fp16"): 2.5}
        accept_rises(database, accuracy_trends(database), "a kernel that is known")
        assert [one.creeps for one in accuracy_trends(database)] == [False]
        server.crash()
        database.add_all([accuracy(12, 2.9), accuracy(13, 2.9)])
        assert [one.id for one in database.accuracies(9)] == ["a12", "a13"], "what is local"
    server.start()
    with opened() as history:
        assert "were sent to" in history.notes[0]
        assert [one.id for one in history.accuracies(3)] == ["a11", "a12", "a13"]


def test_two_writers_that_start_with_no_table_lose_nothing(server: Server, database: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, server.url(database), str(first)], env=environment, cwd=tmp_path
        )
        for first in (1000, 2000)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    with open_history(server.url(database), folder=tmp_path) as history:
        assert sorted(ids(history)) == sorted(f"s{first + n}" for first in (1000, 2000) for n in range(30))


def test_a_server_that_is_killed_and_comes_back(server: Server, opened: Callable[..., History], tmp_path: Path) -> None:
    folder = tmp_path / ".parity"
    with opened() as history:
        history.add(session(1))
        where = history.where
        server.crash()
        history.add(session(2))
        (note,) = history.notes
        assert note.startswith(f"the history {where} cannot be used now (")
        (spool,) = folder.glob("unsent-*.sqlite")
        assert str(spool) in note
        assert ids(history) == ["s2"], "what is local"
        assert history.accept(BENCHMARK, KEY, ["s2"], "while it is down").sessions == ("s2",)
        with pytest.raises(UsageError, match=r"s1 cannot be accepted: it is not in .*unsent.*cannot be used now"):
            history.accept(BENCHMARK, KEY, ["s1"], "x")
    with opened() as history:
        assert "Connection refused" in history.notes[0]
        assert PASSWORD not in history.notes[0]
        history.add(session(3))
        history.add(session(2))
        assert ids(history) == ["s2", "s3"]
    server.start()
    with opened() as history:
        assert history.notes == (f"records that waited in {spool} and were sent to {where}: 3",)
        assert ids(history) == ["s1", "s2", "s3"]
        assert [one.id for one in history.baseline(BENCHMARK, KEY)] == ["s2"]
    with opened() as history:
        assert history.notes == ()
    assert (folder / ".gitignore").read_text() == "*\n"


def test_a_record_that_the_database_contradicts_stays_local(
    server: Server, opened: Callable[..., History], tmp_path: Path
) -> None:
    with opened() as history:
        history.add(session(1))
        server.crash()
        history.add(session(1, median=9.0))
        history.add(session(2))
    server.start()
    for _ in range(2):
        with opened() as history:
            assert history.sessions(BENCHMARK, KEY) == [session(1), session(2)]
            assert "session s1 stays in" in history.notes[0]
            assert "another session with the id s1" in history.notes[0]


def test_a_server_that_does_not_answer_is_down(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://u:{QUOTED}@127.0.0.1:{silent.getsockname()[1]}/db?connect_timeout=2"
        with open_history(url, folder=tmp_path) as history:
            history.add(session(1))
            assert "timeout" in history.notes[0]
            assert ids(history) == ["s1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"password": "wr0ng"}, r"refuses: password authentication failed for user \"parity\"; check PARITY_HISTORY"),
        ({"user": "nobody"}, "refuses: password authentication failed"),
        ({"database": "nowhere"}, 'refuses: database "nowhere" does not exist; check PARITY_HISTORY'),
    ],
)
def test_a_refusal_is_one_sentence_without_the_password(
    server: Server, database: str, tmp_path: Path, options: dict[str, str], said: str
) -> None:
    url = server.url(**{"database": database, **options})
    with pytest.raises(UsageError, match=said) as caught:
        open_history(url, folder=tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    assert not any(secret in text for secret in (PASSWORD, QUOTED, "wr0ng"))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not list(tmp_path.glob("unsent-*"))


def test_a_password_in_the_query_is_not_printed(server: Server, tmp_path: Path) -> None:
    url = f"postgresql://127.0.0.1:{server.port}/nowhere?user=parity&password={QUOTED}"
    with pytest.raises(UsageError, match="nowhere") as caught:
        open_history(url, folder=tmp_path)
    assert QUOTED not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_user_who_may_not_create_the_table_is_told(server: Server, database: str, tmp_path: Path) -> None:
    with server.connect(database) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(UsageError, match="refuses: permission denied for schema public"):
        open_history(server.url(database, user="guest", password="guest"), folder=tmp_path)


def test_a_newer_table_is_not_read(server: Server, database: str, opened: Callable[..., History]) -> None:
    with opened() as history:
        history.add(session(1))
    with server.connect(database) as connection:
        connection.execute("UPDATE parity_history SET schema = 3")
    with pytest.raises(UsageError, match=r"schema 3; this one knows up to 2"):
        opened()


def test_other_tables_of_the_database_are_no_obstacle(
    server: Server, database: str, opened: Callable[..., History]
) -> None:
    with server.connect(database) as connection:
        connection.execute("CREATE TABLE customers (name text)")
    with opened() as history:
        history.add(session(1))
        assert ids(history) == ["s1"]


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"needs psycopg.*pip install '\.\[postgres\]'"):
        open_history("postgresql://127.0.0.1/db", folder=tmp_path)
