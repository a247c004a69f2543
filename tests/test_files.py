"""Files are the old ones or the whole new ones, and what cannot be written is one sentence."""

from __future__ import annotations

import ast
import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.errors import CannotWrite, UsageError, is_disk_full
from harness.files import check_writable, file_name, make_folder, replacing, write_bytes, write_text


def test_a_file_is_written_in_folders_that_are_made(tmp_path: Path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_text("één\n", path)
    assert path.read_bytes() == "één\n".encode()
    write_bytes(b"new", path)
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["c.txt"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), CannotWrite),
        (ValueError("x"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException, raised: type[BaseException]
):
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(raised), replacing(path) as file:  # noqa: PT012 - the error is one of the block
        file.write(b"half of the new")
        raise error
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path):
    path = tmp_path / "x.json"
    with replacing(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"


def test_permissions_and_links_stay(tmp_path: Path):
    path, link = tmp_path / "x.json", tmp_path / "latest.json"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_text("new", link)
    assert link.is_symlink()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)


def test_a_new_file_has_the_permissions_of_the_process(tmp_path: Path):
    (tmp_path / "plain").touch()
    write_text("", tmp_path / "x")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_pipe_is_written_to_and_stays(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    write_text("said", pipe)
    assert os.read(reader, 9) == b"said"
    os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["folder", "file/x", "file/new/x", "/proc/x", "/proc/new/x", "a" * 300])
def test_a_path_that_cannot_be_a_file_is_a_sentence(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match=f"cannot write .*{name}"):
        write_text("x", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("name", ["folder", "file/x", "/proc/new/x"])
def test_what_cannot_be_written_is_known_beforehand(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"cannot write .*{Path(name).parts[-2] if '/' in name else name}"):
        check_writable(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path):
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="file/a"):
        make_folder(tmp_path / "file" / "a")


def test_a_full_disk_is_told_from_other_errors():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(full)
    assert is_disk_full(CannotWrite(Path("x"), full))
    assert is_disk_full(OSError("Not enough free space to write 80 bytes"))
    assert not is_disk_full(CannotWrite(Path("x"), PermissionError(errno.EACCES, "Permission denied")))
    assert not is_disk_full(ValueError("Not enough free space to write"))


OTHER_WRITERS = {
    "files.py": "the one writer",
    "errors.py": "standard output again, where a suite closed it",
    "report/step_summary.py": "appends to the file that GitHub names",
    "bisect/reproducer/folder.py": "a draft folder that is moved into place as a whole",
    "bisect/reproducer/scripts/on_tensorrt.py": "a script that runs without the harness",
    "backends/engine_file.py": "what a shared cache sends, checked and then moved into place",
    "backends/onnxruntime/file.py": "a draft that the engine cache checks and moves into place",
    "backends/tensorrt/backend.py": "a build's output, read while it is written",
    "backends/tensorrt/build.py": "answers its parent, and writes the draft that the engine cache moves into place",
    "hackathon/entrant.py": "a log",
    "hackathon/entrant_process.py": "a line per picture, read when the process was killed",
    "isolated/worker.py": "answers its parent",
    "last_resort.py": "the record of a run that nothing else can end",
    "latency/processes.py": "asks a child process, in a temporary folder",
    "timing/worker.py": "answers its parent, in a temporary folder",
}


MODE = re.compile(r"[wxa][bt+]*")


def writes(tree: ast.AST) -> bool:
    """Return whether a module opens a file for writing, or writes one by a method of its path."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        is_method = isinstance(call.func, ast.Attribute)
        name = getattr(call.func, "attr" if is_method else "id", "")
        texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        opens = name in ("open", "fdopen") and any(MODE.fullmatch(str(text)) for text in texts)
        if opens or (is_method and name in ("write_text", "write_bytes")):
            return True
    return False


def test_all_else_writes_through_the_one_writer():
    package = Path(harness.__file__).parent
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    found = {name for name, path in files.items() if writes(ast.parse(path.read_text(encoding="utf-8")))}
    assert sorted(found) == sorted(OTHER_WRITERS)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../../up",
        "..",
        ".",
        "",
        "a/b",
        "a\\b",
        "a\nb",
        "\x1b[31mred",
        "\u202eab",
        "CON:",
        "a" * 300,
        "-rf",
        "é",
    ],
)
def test_any_name_becomes_one_file_in_the_folder(tmp_path, name):
    made = file_name(name, "rtx-fp16", "one")
    assert (tmp_path / made).resolve().parent == tmp_path.resolve()
    assert made.isascii()
    assert made.isprintable()
    assert made[0] not in ".-"
    write_text("", tmp_path / f"{made}.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == [f"{made}.safetensors"]


def test_plain_names_stay_as_they_are():
    assert file_name("clip", "rtx-fp16", "short", "layers") == "clip-rtx-fp16-short-layers"
    assert file_name("small-unet", "ort-cpu-fp32") == "small-unet-ort-cpu-fp32"


@given(
    st.lists(
        st.tuples(st.text(max_size=9), st.sampled_from(["rtx-fp16", "ort-cpu-fp32"]), st.text(max_size=9)),
        min_size=2,
        unique=True,
    )
)
def test_two_names_never_meet_in_one_file(names):
    assert len({file_name(*each) for each in names}) == len(names)


def test_names_that_look_alike_are_told_apart():
    pairs = [
        (("../a", "b"), ("..-a", "b")),
        (("a b",), ("a-b",)),
        (("a-rtx-fp16", "rtx-fp16", "x"), ("a", "rtx-fp16", "rtx-fp16-x")),
    ]
    assert all(file_name(*one) != file_name(*other) for one, other in pairs)
