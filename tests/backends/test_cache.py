"""The engine cache: keys, verification, one build for two processes, killed builds, clean-up, full disks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.backends import cache as engines
from harness.backends import engine_file
from harness.backends.base import BuildReport
from harness.backends.cache import EngineCache
from harness.backends.engine_file import key_hash
from harness.errors import CannotWrite, EngineRefused, NotJudged, UsageError
from harness.files import file_name
from harness.locks import locked
from harness.temporary import OTHER_S

ROOT = Path(engines.__file__).parents[2]
KEY = {"graph": "aa", "plan": {"dtype": "fp16"}, "backend": "rtx", "backend_key": {"version": "1"}, "shapes": [[1, 4]]}
REPORT = BuildReport(layers=3, notes=("a note",), options={"tf32": False})


class Builder:
    """Writes ``data`` and counts."""

    def __init__(self, data: bytes = b"engine") -> None:
        self.data, self.count = data, 0

    def __call__(self, path: Path) -> BuildReport:
        self.count += 1
        path.write_bytes(self.data)
        return REPORT


def get(
    folder: Path, build: Any, key: Any = KEY, *, limit: int = 2**20, said: list[str] | None = None, **options: Any
) -> Any:
    cache = EngineCache(folder, limit_bytes=limit)
    return cache.get(key, build, progress=(said if said is not None else []).append, name="clip rtx/fp16", **options)


def test_an_engine_is_built_once(tmp_path: Path) -> None:
    build, said = Builder(), []
    first, second = get(tmp_path, build, said=said), get(tmp_path, build, said=said)
    assert build.count == 1
    assert (first.cached, second.cached) == (False, True)
    assert first.path == second.path == tmp_path / f"{file_name('clip rtx/fp16')}-{key_hash(KEY)[:16]}.engine"
    assert first.sha256 == second.sha256
    assert second.report == REPORT
    assert second.build_s == first.build_s
    assert second.key == KEY
    assert len(said) == 1
    assert said[0].startswith("built clip-rtx-fp16-")


def test_results_get_what_they_show(tmp_path: Path) -> None:
    get(tmp_path, Builder())
    info = get(tmp_path, Builder()).info()
    assert (info.cached, info.bytes, info.layers, info.notes) == (True, 6, 3, ("a note",))
    assert info.path.endswith(".engine")


@pytest.mark.parametrize("ingredient", sorted(KEY))
def test_the_key_changes_with_every_ingredient(ingredient: str) -> None:
    assert key_hash({**KEY, ingredient: "other"}) != key_hash(KEY)
    assert key_hash({name: value for name, value in KEY.items() if name != ingredient}) != key_hash(KEY)


def test_the_key_does_not_depend_on_order_or_kind_of_sequence() -> None:
    assert key_hash(dict(reversed(KEY.items()))) == key_hash(KEY)
    assert key_hash({**KEY, "shapes": ((1, 4),)}) == key_hash(KEY)


def test_a_key_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        get(tmp_path, Builder(), key={"path": tmp_path})


def damage_bytes(path: Path) -> None:
    path.write_bytes(b"Engine")


def truncate(path: Path) -> None:
    path.write_bytes(b"eng")


def remove_sidecar(path: Path) -> None:
    path.with_suffix(".json").unlink()


def garble_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_bytes(b"\xff{")


def empty_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text("{}")


def list_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


def foreign_sidecar(path: Path) -> None:
    data = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**data, "key": {**KEY, "graph": "another"}}))


def older_schema(path: Path) -> None:
    data = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**data, "schema": "parity-engine/0"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_bytes, "does not match its checksum"),
        (truncate, "does not match its checksum"),
        (remove_sidecar, "has no description beside it"),
        (garble_sidecar, "cannot be read"),
        (empty_sidecar, "cannot be read"),
        (list_sidecar, "cannot be read"),
        (foreign_sidecar, "was built from something else"),
        (older_schema, "was built from something else"),
    ],
)
def test_an_engine_that_is_not_what_it_should_be_is_built_again(tmp_path: Path, damage: Any, message: str) -> None:
    build, said = Builder(), []
    damage(get(tmp_path, build).path)
    engine = get(tmp_path, build, said=said)
    assert build.count == 2
    assert not engine.cached
    assert engine.path.read_bytes() == b"engine"
    assert message in said[0]
    assert said[0].endswith("; building it again")
    assert message in engine.report.notes[-1]
    assert get(tmp_path, build).report.notes == ("a note",)


def run_build(folder: Path, body: str) -> subprocess.Popen[str]:
    """Start a process that wants the engine and builds it with this body."""
    code = (
        "import json, os, pathlib, signal, sys, time\n"
        "from harness.backends.base import BuildReport\n"
        "from harness.backends import EngineCache\n"
        f"def build(path):\n{body}\n"
        "cache = EngineCache(pathlib.Path(sys.argv[1]), limit_bytes=2**20)\n"
        "engine = cache.get(json.loads(sys.argv[2]), build, progress=lambda line: None, name='clip rtx/fp16')\n"
        "print(engine.cached)\n"
    )
    command = [sys.executable, "-c", code, str(folder), json.dumps(KEY)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_build_once(tmp_path: Path) -> None:
    body = (
        "    with open(path.parent / 'builds.txt', 'a') as file: file.write('x')\n"
        "    time.sleep(1)\n"
        "    path.write_bytes(b'engine')\n"
        "    return BuildReport()"
    )
    said = [process.communicate(timeout=60) for process in [run_build(tmp_path, body) for _ in range(2)]]
    assert sorted(output for output, _ in said) == ["False\n", "True\n"]
    assert (tmp_path / "builds.txt").read_text() == "x"


def test_a_build_that_was_killed_leaves_nothing_that_matters(tmp_path: Path) -> None:
    process = run_build(tmp_path, "    path.write_bytes(b'half an eng')\n    os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert len(list(tmp_path.glob("*.tmp"))) == 1
    build, said = Builder(), []
    assert get(tmp_path, build, said=said).path.read_bytes() == b"engine"
    assert build.count == 1
    assert list(tmp_path.glob("*.tmp")) == []
    assert not any("again" in line for line in said)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> BuildReport:
        path.write_bytes(b"half")
        raise EngineRefused("op 'Foo' is unknown")

    with pytest.raises(EngineRefused, match="Foo"):
        get(tmp_path, fail)
    assert [*tmp_path.glob("*.tmp"), *tmp_path.glob("*.engine"), *tmp_path.glob("clip*.json")] == []
    assert get(tmp_path, Builder()).path.exists()


@pytest.mark.parametrize("data", [None, b""])
def test_a_build_that_writes_nothing_is_refused(tmp_path: Path, data: bytes | None) -> None:
    def build(path: Path) -> BuildReport:
        if data is not None:
            path.write_bytes(data)
        return REPORT

    with pytest.raises(EngineRefused, match="wrote no engine"):
        get(tmp_path, build)


def numbered(number: int) -> dict[str, Any]:
    return {**KEY, "graph": str(number)}


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_the_least_recently_used_engines_go_first(tmp_path: Path) -> None:
    paths = [get(tmp_path, Builder(b"x" * 100), numbered(number)).path for number in range(3)]
    for path, seconds in zip(paths, (3000, 2000, 1000), strict=True):
        age(path, seconds)
    assert get(tmp_path, Builder(), numbered(0)).cached  # used, so it is no longer the oldest
    newest = get(tmp_path, Builder(b"x" * 100), numbered(3), limit=250).path
    assert [path.exists() for path in [*paths, newest]] == [True, False, False, True]
    assert not paths[1].with_suffix(".json").exists()
    assert [entry.path for entry in EngineCache(tmp_path, limit_bytes=0).entries()] == [paths[0], newest]


def test_the_engine_just_built_stays_even_over_the_limit(tmp_path: Path) -> None:
    assert get(tmp_path, Builder(b"x" * 100), limit=1).path.exists()


def test_engines_in_use_by_others_stay(tmp_path: Path) -> None:
    path = get(tmp_path, Builder(b"x" * 100), numbered(0)).path
    age(path, 3000)
    with locked(path.with_suffix(".lock"), "the engine"):
        get(tmp_path, Builder(b"x" * 100), numbered(1), limit=150)
        assert path.exists()
    get(tmp_path, Builder(b"x" * 100), numbered(2), limit=150)
    assert not path.exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    foreign = [tmp_path / "mine.engine", tmp_path / "mine.tmp"]
    for path in foreign:
        path.write_bytes(b"x" * 100)
        age(path, 2 * OTHER_S)
    get(tmp_path, Builder(), limit=1)
    EngineCache(tmp_path, limit_bytes=0).clear()
    assert all(path.exists() for path in foreign)
    assert not (tmp_path / ".gitignore").exists()  # it would hide their files from git


def test_clear_removes_every_engine_and_says_how_much(tmp_path: Path) -> None:
    for number in range(2):
        get(tmp_path, Builder(b"x" * 100), numbered(number))
    cache = EngineCache(tmp_path, limit_bytes=0)
    assert cache.clear() == 200
    assert cache.entries() == []
    assert list(tmp_path.glob("clip*.json")) == []
    assert (tmp_path / "README.md").exists()


def test_clearing_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert EngineCache(tmp_path / "none", limit_bytes=0).clear() == 0


def test_without_the_cache_an_engine_is_for_this_run_only(tmp_path: Path) -> None:
    kept = get(tmp_path, Builder())
    build = Builder(b"another")
    engine = get(tmp_path, build, use_cache=False)
    assert engine.path.read_bytes() == b"another"
    assert not engine.cached
    assert engine.path != kept.path
    engine.discard()
    assert not engine.path.exists()
    assert get(tmp_path, build).cached
    assert build.count == 1


def test_discarding_a_cached_engine_keeps_it(tmp_path: Path) -> None:
    engine = get(tmp_path, Builder())
    engine.discard()
    assert engine.path.exists()


def test_a_full_disk_is_not_judged(tmp_path: Path) -> None:
    def full(path: Path) -> BuildReport:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NotJudged, match=f"no space left for engines in {tmp_path} .*free.*set PARITY_ENGINES"):
        get(tmp_path, full)


def test_a_disk_that_fills_up_after_the_build_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get(tmp_path, Builder(), numbered(0))

    def full(text: str, path: Path) -> None:
        raise CannotWrite(path, OSError(errno.ENOSPC, "No space left on device"))

    with monkeypatch.context() as patch:
        patch.setattr(engine_file, "write_text", full)
        with pytest.raises(NotJudged, match="no space left"):
            get(tmp_path, Builder())
    assert not get(tmp_path, Builder()).cached


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "engines"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="cannot be written; set PARITY_ENGINES"):
        get(tmp_path / "engines", Builder())


def test_the_folder_explains_itself_and_stays_out_of_git_and_backups(tmp_path: Path) -> None:
    get(tmp_path, Builder())
    assert (tmp_path / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    for name in ("README.md", ".gitignore"):
        assert (tmp_path / name).read_text() == (ROOT / "engines" / name).read_text()


@pytest.mark.parametrize("folder", ["file", "file/engines", "file/new/engines", "/proc/engines", "/proc/new/engines"])
def test_a_folder_that_cannot_be_made_is_a_usage_error(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match="cannot be written; set PARITY_ENGINES"):
        get(tmp_path / folder, Builder())


def test_a_permission_error_of_the_build_itself_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    def build(path: Path) -> BuildReport:
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/model.onnx")

    with pytest.raises(PermissionError, match=r"model\.onnx"):
        get(tmp_path, build)


def test_an_engine_is_found_by_its_hash_while_it_is_whole(tmp_path: Path) -> None:
    """It is the control of one that was built later, and so not the next one to be removed."""
    cache = EngineCache(tmp_path, limit_bytes=2**20)
    assert cache.with_sha256("a" * 64) is None
    old, new = get(tmp_path, Builder(b"old")), get(tmp_path, Builder(b"new"), {**KEY, "graph": "bb"})
    os.utime(old.path, (1.0, 1.0))
    found = cache.with_sha256(old.sha256)
    assert found is not None
    assert (found.path, found.sha256) == (old.path, old.sha256)
    assert cache.entries()[0].path == new.path
    (tmp_path / f"other-{'0' * 16}.engine").write_bytes(b"no description")
    old.path.write_bytes(b"OLD")
    assert cache.with_sha256(old.sha256) is None
    old.path.with_suffix(".json").write_text("{")
    assert cache.with_sha256(old.sha256) is None
    assert cache.with_sha256(new.sha256) is not None


def test_an_engine_of_another_name_is_found_among_many(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path, limit_bytes=2**20), Builder()
    for number in range(50):
        cache.get(numbered(number), build, progress=lambda line: None, name="old")
    cache = EngineCache(tmp_path, limit_bytes=2**20)
    for number in range(50):
        assert cache.get(numbered(number), build, progress=lambda line: None, name="renamed").cached
    assert build.count == 50


def names_read(count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many names are read from the folder while it is filled with so many engines and emptied."""
    read, files = 0, EngineCache._files

    def counting(cache: EngineCache) -> Any:
        nonlocal read
        for file in files(cache):
            read += 1
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(EngineCache, "_files", counting)
        patch.setattr(engines, "READ_AGAIN", 10**9)
        cache = EngineCache(folder, limit_bytes=2**30)
        for number in range(count):
            cache.get(numbered(number), Builder(), progress=lambda line: None)
        cache.clear()
    return read


def test_filling_and_emptying_reads_each_name_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_read(60, tmp_path / "few", monkeypatch) <= 10 * 60
    assert names_read(240, tmp_path / "many", monkeypatch) <= 10 * 240
