"""What the system refuses to write is a sentence, and the old file stays: in every phase, for every such error."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stopped.phases import PHASES, REFERENCE, REPORT, VERIFY, Phase
from stopped.scene import Scene

from harness.errors import CannotWrite, is_disk_full
from harness.files import replacing, write_bytes, write_text

ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.ENAMETOOLONG, errno.EMFILE,
)  # fmt: skip
WRITING = [phase for phase in PHASES if phase.name.endswith("write") or phase.name == "build"]
pytestmark = pytest.mark.xdist_group("stopped-0")


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
@pytest.mark.parametrize("at", [0, 7], ids=["at once", "half way"])
def test_the_one_writer_names_the_folder_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: int
):
    path = tmp_path / "x.json"
    write_text("old", path)

    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    if at:  # some errors show only when the bytes reach the disk
        monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CannotWrite) as caught, replacing(path, needed=3 * 2**20) as file:  # noqa: PT012
        file.write(b"x" * at)
        if not at:
            raise OSError(number, os.strerror(number))
    text = str(caught.value)
    assert str(path) in text
    assert os.strerror(number) in text
    assert text.count("\n") == 0
    if is_disk_full(caught.value):
        assert str(tmp_path) in text.replace(str(path), "")
        assert "3 MiB needed, " in text
        assert "iB free" in text
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(("place", "phase"), list(enumerate(WRITING)), ids=list(map(str, WRITING)))
def test_no_phase_loses_anything(whole: Scene, tmp_path: Path, place: int, phase: Phase):
    scene = whole.copy(tmp_path / "scene")
    for number in (errno.ENOSPC, ERRORS[1 + place % (len(ERRORS) - 1)]):
        assert scene.refuse(phase, number)[1] == [], errno.errorcode[number]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB that is full but for a block."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False).returncode:
        pytest.skip("cannot mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    """Take all the space that is left."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


@pytest.mark.parametrize(
    ("command", "full", "status"),
    [
        (VERIFY, "out.json", 2),
        (VERIFY, "engines", 3),
        (REFERENCE, "reference_outputs", 2),
        (REPORT, "reports", 2),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_a_file_system_that_is_full(
    whole: Scene, tmp_path: Path, small: Path, command: tuple[str, ...], full: str, status: int
):
    scene = whole.copy(tmp_path / "scene")
    target = scene.folder / full
    moved = small / full
    shutil.move(target, moved)
    target.symlink_to(moved)
    for engine in scene.folder.glob("engines/*.engine") if full == "engines" else ():
        engine.unlink()
    fill(small)
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert scene.run(command) == status, scene.said()
    said = " ".join(scene.said().split())
    assert "Traceback" not in said
    assert "No space left" in said or "no space left" in said or "disk is full" in said
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in small.rglob("*") if "parity-" in path.name]


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path):
    full = OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    assert is_disk_full(CannotWrite(tmp_path / "x", full))
    write_bytes(b"", tmp_path / "x")
