"""Locks between processes: who holds one is said, a dead process holds none, and no file is left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import locks
from harness.backends.base import BuildReport
from harness.backends.cache import EngineCache
from harness.history.store import open_embedded
from harness.locks import Held, locked, patience

HOLD = """
import pathlib, sys
from harness.locks import locked
with locked(pathlib.Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path):
    """Return a lock that another process holds, and that process."""
    path = tmp_path / "engine-0.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()


def test_who_holds_a_lock_is_said_while_waiting_and_at_the_end(held):
    path, process = held
    said: list[str] = []
    with pytest.raises(Held) as raised, locked(path, "engine clip", most_s=0.2, waiting=said.append):
        pass
    holder = rf"held by process {process.pid} on {re.escape(os.uname().nodename)} since \d\d:\d\d:\d\d \(for \d+ s\)"
    assert re.fullmatch(f"waiting for engine clip, {holder}", said[0])
    assert re.match(rf"engine clip is {holder}; waited 0\.2 s \(--lock-timeout\)", str(raised.value))
    assert len(said) == 1
    assert path.exists()


def test_a_lock_is_taken_when_it_is_let_go_and_leaves_no_file(held):
    path, process = held
    threading.Timer(0.2, process.communicate).start()
    with locked(path, "engine clip"):
        assert path.exists()
    assert list(path.parent.iterdir()) == []


def test_a_dead_process_holds_nothing(held):
    path, process = held
    process.kill()
    process.wait()
    assert path.exists()
    with locked(path, "engine clip", most_s=0):
        pass
    assert not path.exists()


def test_the_innermost_patience_counts_and_asking_at_once_stays_that(held):
    path, _ = held
    with patience(0.1), patience(None), pytest.raises(Held, match=r"waited 0\.1 s"), locked(path, "it", most_s=60.0):
        pass
    with patience(60.0), pytest.raises(Held, match="waited 0 s"), locked(path, "it", most_s=0):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "null"])
def test_a_file_that_says_nothing(held, text):
    path, _ = held
    path.write_text(text)
    with pytest.raises(Held, match="it is held by another process; waited"), locked(path, "it", most_s=0):
        pass


def test_two_never_hold_it_at_once(tmp_path):
    inside, most, path = 0, 0, tmp_path / "x.lock"

    def work():
        nonlocal inside, most
        for _ in range(30):
            with locked(path, "it"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)
    assert not path.exists()


def test_an_engine_of_another_process_is_waited_for_so_long(tmp_path, monkeypatch):
    cache = EngineCache(tmp_path / "e", limit_bytes=2**20)

    def build(path: Path) -> BuildReport:
        path.write_bytes(b"engine")
        return BuildReport()

    engine = cache.get({"k": 1}, build, progress=lambda words: None, name="clip")
    assert not list((tmp_path / "e").glob("*.lock"))
    lock = engine.path.with_suffix(".lock")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    said: list[str] = []
    try:
        with patience(0.1), pytest.raises(Held, match=rf"engine {engine.path.stem} is held by process {process.pid}"):
            cache.get({"k": 1}, build, progress=said.append, name="clip")
    finally:
        process.communicate("")
    assert [f"held by process {process.pid}" in words for words in said] == [True]
    assert cache.get({"k": 1}, build, progress=said.append, name="clip").cached


def test_a_history_leaves_no_lock(tmp_path):
    open_embedded(tmp_path / "history.sqlite")[0].close()
    assert not list(tmp_path.glob("*.lock"))


def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with locked(tmp_path / "x.lock", "it"):
        pass
    assert list(tmp_path.iterdir()) == []
