"""Whatever is given to the command, one sentence says what is wrong with it: no traceback, no file elsewhere, no hang.

The table is in ``tests/bad_inputs``, one module per kind of input, one row per input.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime  # noqa: F401 - its first import leaves a file of its own where temporary files are
import pytest
from bad_inputs import all_rows
from bad_inputs.row import Row

from harness.cli.commands import main

ROWS = all_rows()
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
written: list[str] | None = None
"""What Python writes, makes, renames or removes, while it is asked for."""


def audit(event: str, arguments: tuple[object, ...]) -> None:
    if written is None:
        return
    if event == "open" and isinstance(arguments[2], int) and not arguments[2] & WRITES:
        return
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"):
        named = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        written.extend(os.fsdecode(path) for path in named if isinstance(path, str | bytes | os.PathLike))


sys.addaudithook(audit)


@pytest.fixture
def nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Make an empty folder the working folder and another that for temporary files; nothing is written elsewhere.

    Yields what is written.
    """
    global written
    for name in ("work", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))  # made by every trace
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = []
    try:
        yield written
        inside = (os.path.realpath(tmp_path), "/dev", "/proc")  # in the last nothing can be written
        found = [path for path in written if not any(Path(os.path.realpath(path)).is_relative_to(it) for it in inside)]
    finally:
        written = None
    assert not found, f"written elsewhere: {found}"
    left = [
        path for path in (tmp_path / "tmp").iterdir() if path.name.startswith(("parity", "tmp"))
    ]  # PyTorch's is not
    assert not left, "a temporary file is left"


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{kind}: {row.name}") for kind, row in ROWS])
def test_it_is_said_in_one_sentence(row: Row, nothing_outside: list[str], capfd: pytest.CaptureFixture[str]):
    row.make()
    nothing_outside.clear()
    capfd.readouterr()
    try:
        status = main(shlex.split(row.command))
    except SystemExit as end:  # of argparse
        status = end.code
    out, err = capfd.readouterr()
    print(out, err)
    assert "Traceback" not in out + err
    assert [line for line in err.splitlines() if not line.startswith("parity")] == []
    assert status == row.status
    said = [line for line in err.splitlines() if all(fact in line for fact in row.facts)]
    if status == 2:
        assert row.shows or out == "", "the request is wrong: there is no result"
        assert said == err.splitlines()[-1:], "the last line, and only that one, says it"
    else:
        assert [fact for fact in row.facts if fact not in " ".join((out + err).split())] == []


def test_there_are_many_inputs_and_no_two_of_a_name():
    names = [f"{kind}: {row.name}" for kind, row in ROWS]
    assert len(names) == len(set(names))
    assert len(names) >= 400
    assert all(row.facts for _, row in ROWS)
