"""What a killed run left behind is removed by the next one; what another run still uses is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import temporary
from harness.files import write_text
from harness.temporary import Temporary, temporary_folder

HOLD = """
import sys, time
from pathlib import Path
from harness.temporary import Temporary
for is_folder in (True, False):
    made = Temporary(Path(sys.argv[1]), is_folder=is_folder)
    (made.path / "graph.onnx" if is_folder else made.path).write_bytes(bytes(1000))
print("made", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def forget() -> None:
    """Let each test be a process that has looked at no folder."""
    temporary.remove_leftovers.cache_clear()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that holds a temporary file and a folder in ``tmp_path``."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        yield process
        process.kill()


def test_what_a_running_process_has_stays_and_what_a_killed_one_had_goes(
    tmp_path: Path, holder: subprocess.Popen[bytes]
):
    write_text("", tmp_path / "x")
    assert len(list(tmp_path.iterdir())) == 3
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    write_text("", tmp_path / "x")
    assert len(list(tmp_path.iterdir())) == 3, "one look per process and folder is enough"
    temporary.remove_leftovers.cache_clear()
    with temporary_folder(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {"x", folder.name}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_files_of_other_names_and_links_stay(tmp_path: Path):
    inside = tmp_path / "inside"
    inside.mkdir()
    kept = [inside / "parity-x.tmp", inside / "mine.tmp", inside / ".parity-0-0.tmp"]
    for path in kept:
        path.touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    link = inside / f"parity-{temporary._boot()}-00000000.tmp"
    link.symlink_to(tmp_path / "elsewhere")
    write_text("", inside / "y")
    assert all(path.exists() for path in kept)
    assert (tmp_path / "elsewhere" / "file").exists()


def test_one_of_another_machine_goes_when_it_is_old(tmp_path: Path):
    old, new = (tmp_path / f".parity-{number}0000000-00000000.tmp" for number in "12")
    for path in (old, new):
        path.touch()
    long_ago = time.time() - 2 * temporary.OTHER_S
    os.utime(old, (long_ago, long_ago))
    write_text("", tmp_path / "x")
    assert {path.name for path in tmp_path.iterdir()} == {"x", new.name}


def test_what_was_moved_away_stays_when_it_is_let_go(tmp_path: Path):
    made = Temporary(tmp_path)
    made.path.write_text("content")
    made.path.replace(tmp_path / "final")
    made.close()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("final", "content")]


def test_a_folder_is_for_its_owner_alone(tmp_path: Path):
    with temporary_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_another_process_took_for_a_leftover_is_made_again(tmp_path: Path, monkeypatch):
    opened, taken = os.open, []

    def late(path, *given):
        if not taken:
            taken.append(Path(path))
            Path(path).rmdir()
        return opened(path, *given)

    made = Temporary(tmp_path, is_folder=True)  # the look for leftovers is over
    monkeypatch.setattr(temporary.os, "open", late)
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
        assert taken
        assert folder not in taken
    made.close()


def test_a_forked_child_does_not_delete_what_its_parent_has(tmp_path: Path):
    with temporary_folder(tmp_path) as folder:
        if not (child := os.fork()):
            temporary.delete_all()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert folder.is_dir()
    held = Temporary(tmp_path, is_folder=True)
    if not (child := os.fork()):
        held.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert held.path.is_dir()
    held.close()
    assert not held.path.exists()
