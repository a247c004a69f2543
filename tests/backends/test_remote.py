"""The shared engine cache: whole engines or none, whatever the place holds or does; said once, and never an error."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from harness.backends import EngineCache, check_remote, remote, runtime_file
from harness.backends.base import BuildReport
from harness.backends.remote import Remote, open_remote, shown
from harness.errors import EngineRefused, NotJudged, UsageError
from harness.settings import Settings

KEY = {"graph": "aa", "machine": {"gpu": "H200", "version": "1"}}
CONTENT = b"an engine" * 1000
FORK = multiprocessing.get_context("fork")


class Runner:
    """A runner with a cache of its own, which counts its builds and keeps what is said."""

    def __init__(self, folder: Path, url: str, mode: str = "read-write") -> None:
        self.remote, self.folder = Remote(url, mode), folder
        self.cache = EngineCache(folder, limit_bytes=2**30, remote=self.remote)
        self.said: list[str] = []

    def get(self, key: Any = KEY, content: bytes = CONTENT, **options: Any) -> Any:
        def build(path: Path) -> BuildReport:
            path.write_bytes(content)
            return BuildReport(layers=3, notes=("a note",), options={"tf32": False})

        return self.cache.get(key, build, progress=self.said.append, name="clip", **options)

    @property
    def built(self) -> int:
        return self.cache.built


@pytest.fixture(params=["folder", "file://", "memory://"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    MemoryFileSystem.store.clear()
    yield {
        "folder": str(tmp_path / "shared"), "file://": f"file://{tmp_path}/shared", "memory://": "memory://shared",
    }[request.param]  # fmt: skip
    MemoryFileSystem.store.clear()


def files_of(url: str) -> dict[str, bytes]:
    """Return what lies at a place, by its path below."""
    files, root = fsspec.url_to_fs(url)
    return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}


def write(url: str, name: str, content: bytes) -> None:
    files, root = fsspec.url_to_fs(url)
    files.pipe_file(f"{root}/{name}", content)


def test_the_second_runner_gets_what_the_first_built(url: str, tmp_path: Path) -> None:
    first, second = Runner(tmp_path / "a", url), Runner(tmp_path / "b", url, "read")
    one, two = first.get(), second.get()
    assert (first.built, second.built) == (1, 0)
    assert two.path.read_bytes() == CONTENT
    assert (two.sha256, two.report, two.build_s, two.key) == (one.sha256, one.report, one.build_s, one.key)
    infos = [one.info(), two.info(), second.get().info()]
    assert [(info.origin, info.cached, info.fetched_from) for info in infos] == [
        ("built", False, ""), ("remote", True, first.remote.name), ("cached", True, first.remote.name),
    ]  # fmt: skip
    assert sorted(name.split("/")[0] for name in files_of(url)) == ["engines", "objects"]


def test_one_that_only_reads_leaves_nothing(url: str, tmp_path: Path) -> None:
    Runner(tmp_path / "a", url).get()  # so that the place is there
    before = files_of(url)
    reader = Runner(tmp_path / "b", url, "read")
    assert reader.get({**KEY, "graph": "bb"}).info().origin == "built"
    assert files_of(url) == before
    assert reader.remote.problem == ""
    with pytest.raises(UsageError, match="read only"):
        reader.remote.clear()


def test_what_lies_here_already_is_uploaded(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    Runner(folder, url, "read").get()
    Runner(folder, url).get()
    other = Runner(tmp_path / "b", url)
    other.get()
    assert other.built == 0


def test_another_key_is_another_engine(url: str, tmp_path: Path) -> None:
    """The GPU, its version and the like are in the key, so an engine of another machine is not found."""
    Runner(tmp_path / "a", url).get()
    other = Runner(tmp_path / "b", url)
    other.get({**KEY, "machine": {"gpu": "RTX 4090", "version": "1"}})
    assert other.built == 1


def test_without_the_cache_the_shared_one_is_left_alone(url: str, tmp_path: Path) -> None:
    Runner(tmp_path / "a", url).get()
    before = files_of(url)
    other = Runner(tmp_path / "b", url)
    other.get(use_cache=False, content=b"another")
    assert (other.built, files_of(url)) == (1, before)


def of(folder: str, url: str) -> str:
    return next(name for name in files_of(url) if name.startswith(folder))


def changed(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


DAMAGES = {
    "object flipped": ("objects", lambda content: content[:-1] + b"?"),
    "object truncated": ("objects", lambda content: content[:-5]),
    "object empty": ("objects", lambda content: b""),
    "object longer": ("objects", lambda content: content + b"more"),
    "description truncated": ("engines", lambda content: content[:-5]),
    "description empty": ("engines", lambda content: b""),
    "description is a list": ("engines", lambda content: b"[]"),
    "description of brackets": ("engines", lambda content: b"[" * 10**5),
    "description of another key": ("engines", changed(key={**KEY, "graph": "bb"})),
    "description of another schema": ("engines", changed(schema="parity-engine/0")),
    "description of another size": ("engines", changed(bytes=1)),
    "description of a petabyte": ("engines", changed(bytes=2**50)),
    "description leads elsewhere": ("engines", changed(sha256="../../../etc/passwd")),
    "description without a report": ("engines", changed(report=None)),
    "report with strange keys": ("engines", changed(report={"notes": [], "run": "rm"})),
}


@pytest.mark.parametrize("mode", ["read", "read-write"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_never_served(tmp_path: Path, damage: str, mode: str) -> None:
    url = str(tmp_path / "shared")
    Runner(tmp_path / "a", url).get()
    folder, change = DAMAGES[damage]
    write(url, of(folder, url), change(files_of(url)[of(folder, url)]))
    runner = Runner(tmp_path / "b", url, mode)
    engine = runner.get()
    assert engine.path.read_bytes() == CONTENT
    assert (runner.built, engine.cached, runner.remote.problem) == (1, False, "")
    (words,) = [line for line in runner.said if "built here" in line]
    assert ("thrown away" in words) == (mode == "read-write")
    assert not list((tmp_path / "b").glob("*.tmp"))
    if mode == "read-write":  # it was replaced by what was built
        third = Runner(tmp_path / "c", url)
        third.get()
        assert third.built == 0


def test_an_object_that_is_gone_is_built(tmp_path: Path) -> None:
    url = str(tmp_path / "shared")
    Runner(tmp_path / "a", url).get()
    (tmp_path / "shared" / of("objects", url)).unlink()
    runner = Runner(tmp_path / "b", url)
    assert runner.get().info().origin == "built"
    assert Runner(tmp_path / "c", url).get().info().origin == "remote"


def test_a_build_that_fails_uploads_nothing(url: str, tmp_path: Path) -> None:
    def fail(path: Path) -> BuildReport:
        raise EngineRefused("op 'Foo' is unknown")

    runner = Runner(tmp_path / "a", url)
    with pytest.raises(EngineRefused):
        runner.cache.get(KEY, fail, progress=runner.said.append)
    assert not [name for name in files_of(url) if not name.startswith("locks")]


# Places that are not there


def test_a_folder_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "a", str(tmp_path / "none"), "read")
    runner.get()
    runner.get({**KEY, "graph": "bb"})
    assert runner.built == 2
    assert [line for line in runner.said if "not used from here on" in line] == [
        f"shared engine cache {tmp_path}/none is not used from here on: there is no {tmp_path}/none"
    ]
    assert not (tmp_path / "none").exists()


def test_a_place_that_may_not_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    runner = Runner(tmp_path / "a", str(tmp_path / "file" / "shared"))
    runner.get()
    runner.get({**KEY, "graph": "bb"})
    assert runner.built == 2
    assert sum("not used from here on" in line for line in runner.said) == 1


class StuckFiles(MemoryFileSystem):
    """A place that gives no answer."""

    protocol = "stuck"
    released = threading.Event()

    def cat_file(self, *args: Any, **options: Any) -> bytes:
        self.released.wait(60)
        raise FileNotFoundError


class RaisingFiles(MemoryFileSystem):
    """A place whose library raises what it likes, with the URL in it."""

    protocol = "raising"

    def cat_file(self, *args: Any, **options: Any) -> bytes:
        raise RuntimeError("403 Forbidden for raising://user:secret@bucket/x")


def test_a_place_that_gives_no_answer_costs_its_time_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("stuck", StuckFiles, clobber=True)
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.2)
    StuckFiles.released.clear()
    runner = Runner(tmp_path / "a", "stuck://bucket/x")
    started = time.monotonic()
    try:
        for graph in "abcd":
            runner.get({**KEY, "graph": graph})
    finally:
        StuckFiles.released.set()
    assert time.monotonic() - started < 5
    assert runner.built == 4
    assert sum("no answer within" in line for line in runner.said) == 1


def test_no_secret_of_a_url_is_said(tmp_path: Path) -> None:
    fsspec.register_implementation("raising", RaisingFiles, clobber=True)
    runner = Runner(tmp_path / "a", "raising://user:secret@bucket/x")
    runner.get()
    assert runner.built == 1
    assert any("403 Forbidden for raising://bucket/x" in line for line in runner.said)
    assert not any("secret" in line for line in [*runner.said, runner.remote.status(), runner.remote.name])
    assert shown("s3://key:secret@bucket/x?sig=secret") == "s3://bucket/x"
    assert shown("/folder/x") == "/folder/x"
    assert "secret" not in repr(Settings(engines_remote="s3://key:secret@bucket/x"))


def test_a_package_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no-such-place:// is no kind of place"):
        check_remote(Settings(engines_remote="no-such-place://u:secret@x"))

    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UsageError, match=r"s3://bucket cannot be opened: Install s3fs"):
        check_remote(Settings(engines_remote="s3://key:secret@bucket"))
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"fsspec is not installed; .*pip install '\.\[remote\]'"):
        Remote("memory://x", "read")


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="read or read-write, not 'write'"):
        open_remote("memory://x", "write")
    assert open_remote("", "read") is None


# Several processes


def test_runners_at_the_same_time_build_once(tmp_path: Path) -> None:
    """A folder that all may write has locks; each runner has a cache of its own."""
    go, counts = FORK.Event(), FORK.Queue()

    def run(name: str) -> None:
        runner = Runner(tmp_path / name, str(tmp_path / "shared"))
        go.wait(60)
        content = runner.get().path.read_bytes()
        counts.put((runner.built, content == CONTENT))

    runners = [FORK.Process(target=run, args=(name,)) for name in "abcd"]
    for runner in runners:
        runner.start()
    go.set()
    found = [counts.get(timeout=60) for _ in runners]
    for runner in runners:
        runner.join(60)
    assert sum(built for built, _ in found) == 1
    assert all(whole for _, whole in found)


def killed_at(call: int, folder: Path, url: str) -> bool:
    """Build and upload in a process that dies at its n-th call of the place; return whether it got to the end."""

    def run() -> None:
        runner, calls, ask = Runner(folder, url), 0, Remote._ask

        def counted(self: Remote, *arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return ask(self, *arguments, **options)

        Remote._ask = counted  # type: ignore[method-assign, assignment]
        runner.get()

    process = FORK.Process(target=run)
    process.start()
    process.join(60)
    return process.exitcode == 0


def test_an_uploader_that_is_killed_at_any_moment_leaves_nothing_half(tmp_path: Path) -> None:
    ended, call = False, 0
    while not ended:
        call += 1
        url = str(tmp_path / f"shared{call}")
        ended = killed_at(call, tmp_path / f"a{call}", url)
        reader = Runner(tmp_path / f"b{call}", url, "read")
        assert reader.get().path.read_bytes() == CONTENT
        assert not any("checksum" in line or "cannot be read" in line for line in reader.said), (call, reader.said)
        again = Runner(tmp_path / f"c{call}", url)  # the lock of the one that died is free
        assert again.get().path.read_bytes() == CONTENT
        assert Runner(tmp_path / f"d{call}", url).get().info().origin == "remote"
    assert call > 8


def test_an_upload_that_was_killed_in_the_middle_of_a_file_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(self: LocalFileSystem, local: str, place: str, **options: Any) -> None:
        Path(place).write_bytes(Path(local).read_bytes()[:100])
        os.kill(os.getpid(), signal.SIGKILL)

    url = str(tmp_path / "shared")
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", half)
        process = FORK.Process(target=lambda: Runner(tmp_path / "a", url).get())
        process.start()
        process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [name.split("/")[0] for name in files_of(url)] in (
        ["incoming"],
        ["incoming", "locks"],
        ["locks", "incoming"],
    )
    runner = Runner(tmp_path / "b", url)
    assert runner.get().info().origin == "built"
    assert Runner(tmp_path / "c", url).get().info().origin == "remote"
    monkeypatch.setattr(remote, "LEFT_S", -1.0)  # a day later
    Runner(tmp_path / "d", url).get({**KEY, "graph": "bb"})
    assert not [name for name in files_of(url) if name.startswith("incoming")]


# Emptying


def test_the_shared_cache_is_emptied(url: str, tmp_path: Path) -> None:
    runner = Runner(tmp_path / "a", url)
    runner.get()
    runner.get({**KEY, "graph": "bb"}, b"another")
    assert runner.remote.status() == "2 engines"
    assert runner.remote.clear(older_s=3600) == (0, 0)
    assert runner.remote.clear() == (2, len(CONTENT) + len(b"another"))
    assert [name for name in files_of(url) if not name.startswith("locks")] == []


def test_what_is_new_stays_with_what_it_names(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "a", str(tmp_path / "shared"))
    runner.get()
    for path in (tmp_path / "shared").rglob("*"):
        os.utime(path, (1e9, 1e9))
    runner.get({**KEY, "graph": "bb"})  # the same content: the old object is that of a new engine
    assert runner.remote.clear(older_s=3600) == (1, 0)
    assert Runner(tmp_path / "b", str(tmp_path / "shared")).get({**KEY, "graph": "bb"}).info().origin == "remote"


def test_a_place_that_is_not_there_cannot_be_emptied(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotJudged, match="cannot be emptied"):
        Remote(str(tmp_path / "file" / "x"), "read-write").clear()
    assert Remote(str(tmp_path / "none"), "read").status().startswith("not used: there is no")


# Runtime caches


def test_a_runtime_cache_goes_to_a_runner_of_the_same_machine_alone(url: str, tmp_path: Path) -> None:
    gpu, other = {"gpu": "H200", "driver": "570"}, {"gpu": "H200", "driver": "580"}
    first, second = Runner(tmp_path / "a", url), Runner(tmp_path / "b", url, "read")
    engine = first.get().path
    first.cache.offer_runtime(engine, gpu, first.said.append)  # there is none yet
    file = runtime_file.runtime_file(engine, gpu)
    assert file is not None
    file.write(b"main")
    first.cache.offer_runtime(engine, gpu, first.said.append)
    file.write(b"main and more")
    first.cache.offer_runtime(engine, gpu, first.said.append)
    fetched = second.get().path
    second.cache.fetch_runtime(fetched, other, second.said.append)
    assert list(fetched.parent.glob("*.runtime")) == []
    second.cache.fetch_runtime(fetched, gpu, second.said.append)
    theirs = runtime_file.runtime_file(fetched, gpu)
    assert theirs is not None
    assert theirs.read() == b"main and more"
    second.cache.fetch_runtime(fetched, {}, second.said.append)


def test_a_damaged_runtime_cache_is_not_taken(tmp_path: Path) -> None:
    url, gpu = str(tmp_path / "shared"), {"gpu": "H200"}
    first, second = Runner(tmp_path / "a", url), Runner(tmp_path / "b", url)
    file = runtime_file.runtime_file(first.get().path, gpu)
    assert file is not None
    file.write(b"main")
    first.cache.offer_runtime(file.engine, gpu, first.said.append)
    name = of("runtimes", url)
    write(url, name, files_of(url)[name][:-1] + b"?")
    engine = second.get().path
    second.cache.fetch_runtime(engine, gpu, second.said.append)
    assert list(engine.parent.glob("*.runtime")) == []
    assert any("does not match its checksum; not used" in line for line in second.said)


def test_a_shared_cache_that_goes_away_between_two_engines_is_no_error(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "a", str(tmp_path / "shared"))
    runner.get()
    shutil.rmtree(tmp_path / "shared")
    (tmp_path / "shared").write_text("another thing")
    assert runner.get({**KEY, "graph": "bb"}).info().origin == "built"
    assert runner.remote.problem
