"""The runtime cache beside an engine: read by the next process, written when it grew, never an error."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.backends import BACKENDS, EngineCache, runtime_file
from harness.backends.base import BuildReport
from harness.backends.runtime_file import RuntimeFile
from harness.backends.tensorrt.context import Contexts
from harness.errors import CannotWrite
from harness.locks import locked
from tests.backends.test_tensorrt import needs_rtx, quiet, relu, request_for

GPU = {"gpu": "H200", "driver": "570.1", "version": "1.6"}


def engine_in(folder: Path, content: bytes = b"engine", **options: Any) -> Path:
    """Return the path of an engine in a cache."""

    def build(path: Path) -> BuildReport:
        path.write_bytes(content)
        return BuildReport()

    cache = EngineCache(folder, limit_bytes=2**20)
    return cache.get({"k": 1}, build, progress=lambda line: None, name="clip", **options).path


def beside(engine: Path, **changes: str) -> RuntimeFile:
    file = runtime_file.runtime_file(engine, {**GPU, **changes})
    assert file is not None
    return file


class FakeRtx:
    """A TensorRT for RTX whose contexts compile a kernel for the engine and one for each size that runs."""

    BuilderFlag = SimpleNamespace()
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="EAGER")

    def __init__(self, *, accepts: bool = True) -> None:
        self.kernels: list[bytes] = []
        self.compiled: list[bytes] = []
        self.accepts, self.log = accepts, SimpleNamespace(errors=[])

    # The engine
    def create_runtime_config(self) -> FakeRtx:
        return self

    def create_execution_context(self, config: object) -> FakeRtx:
        self.compile(b"main")
        return self

    # The configuration
    def create_runtime_cache(self) -> FakeRtx:
        return self

    def set_runtime_cache(self, cache: object) -> bool:
        return True

    # The runtime cache
    def deserialize(self, blob: bytes) -> bool:
        if self.accepts:
            self.kernels = blob.split(b",")
        else:
            self.log.errors.append("made by another driver")
        return self.accepts

    def serialize(self) -> bytes:
        return b",".join(self.kernels)

    def compile(self, kernel: bytes) -> None:
        if kernel not in self.kernels:
            self.kernels.append(kernel)
            self.compiled.append(kernel)

    def load(self, file: RuntimeFile | None) -> Contexts:
        contexts = Contexts(self, self, self.log, file)
        contexts.make()
        contexts.save()
        return contexts


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    first, second = FakeRtx(), FakeRtx()
    engine = engine_in(tmp_path)
    first.load(beside(engine))
    contexts = second.load(beside(engine))
    assert (first.compiled, second.compiled) == ([b"main"], [])
    written = beside(engine).path.stat().st_mtime_ns
    contexts.save()
    assert beside(engine).path.stat().st_mtime_ns == written  # it has not grown


def test_what_a_run_compiles_besides_is_kept_too(tmp_path: Path) -> None:
    rtx, engine = FakeRtx(), engine_in(tmp_path)
    contexts = rtx.load(beside(engine))
    rtx.compile(b"batch 4")
    contexts.save()
    contexts.free()
    assert beside(engine).read() == b"main,batch 4"


def test_a_smaller_cache_does_not_replace_a_larger_one(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    assert beside(engine).write(b"main,batch 4")
    assert not beside(engine).write(b"main")
    assert beside(engine).read() == b"main,batch 4"


def test_a_cache_that_the_library_refuses_is_thrown_away_and_made_anew(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    beside(engine).write(b"of another driver, and larger")
    rtx = FakeRtx(accepts=False)
    rtx.load(beside(engine))
    assert rtx.compiled == [b"main"]
    assert rtx.log.errors == []  # they would be taken for those of the engine
    assert beside(engine).read() == b"main"


def test_a_library_that_raises_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_in(tmp_path)
    beside(engine).write(b"something else")

    def fail(self: FakeRtx, blob: bytes) -> bool:
        raise TypeError("no buffer")

    monkeypatch.setattr(FakeRtx, "deserialize", fail)
    FakeRtx().load(beside(engine))
    assert beside(engine).read() == b"main"


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda content: content[:-2],
        lambda content: b"",
        lambda content: b"{" * 10**5,
        lambda content: b"[]\nmain",
    ],
    ids=["a bit", "truncated", "empty", "brackets", "no description"],
)
def test_a_damaged_cache_is_thrown_away(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = beside(engine_in(tmp_path))
    file.write(b"main")
    file.path.write_bytes(damage(file.path.read_bytes()))
    assert file.read() == b""
    assert not file.path.exists()


@pytest.mark.parametrize("name", sorted(GPU))
def test_the_machine_is_in_its_key(tmp_path: Path, name: str) -> None:
    engine = engine_in(tmp_path)
    own, other = beside(engine), beside(engine, **{name: "another"})
    own.write(b"main")
    assert own.path != other.path
    assert other.read() == b""
    other.path.write_bytes(own.path.read_bytes())  # whoever renames it
    assert other.read() == b""
    assert not other.path.exists()
    assert own.read() == b"main"


def test_an_engine_that_was_built_again_has_another(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    beside(engine).write(b"main")
    engine.write_bytes(b"damage")
    assert engine_in(tmp_path, b"other kernels") == engine
    assert beside(engine).read() == b""


def test_an_engine_for_this_run_only_has_none(tmp_path: Path) -> None:
    assert runtime_file.runtime_file(engine_in(tmp_path, use_cache=False), GPU) is None
    assert runtime_file.runtime_file(engine_in(tmp_path), {}) is None
    rtx = FakeRtx()
    rtx.load(None)
    assert rtx.compiled == [b"main"]


def test_nothing_is_written_beside_an_engine_that_is_gone_or_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_in(tmp_path)
    file = beside(engine)
    monkeypatch.setattr(runtime_file, "MOST_WAIT_S", 0)
    with locked(engine.with_suffix(".lock"), "the engine"):
        assert not file.write(b"main")
    EngineCache(tmp_path, limit_bytes=0).clear()
    assert not file.write(b"main")
    assert not file.path.exists()


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: bytes, path: Path) -> None:
        raise CannotWrite(path, OSError(errno.ENOSPC, "No space left on device"))

    file = beside(engine_in(tmp_path))
    monkeypatch.setattr(runtime_file, "write_bytes", full)
    FakeRtx().load(file)
    assert file.read() == b""


def test_a_folder_in_its_place_is_no_error(tmp_path: Path) -> None:
    file = beside(engine_in(tmp_path))
    file.path.mkdir()
    FakeRtx().load(file)
    assert file.read() == b""


def test_it_counts_as_part_of_its_engine_and_goes_with_it(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    beside(engine).write(b"x" * 100)
    stray = tmp_path / f"gone-{'0' * 16}.{'1' * 16}.runtime"
    stray.write_bytes(b"its engine is gone")
    cache = EngineCache(tmp_path, limit_bytes=2**20)
    (entry,) = cache.entries()
    assert entry.bytes == engine.stat().st_size + beside(engine).path.stat().st_size
    assert cache.clear() == entry.bytes
    assert list(tmp_path.glob("*.runtime")) == []


def test_it_goes_when_its_engine_is_the_least_recently_used(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    beside(engine).write(b"x" * 100)
    os.utime(engine, (time.time() - 3000,) * 2)
    EngineCache(tmp_path, limit_bytes=150).get(
        {"k": 2}, lambda path: BuildReport(layers=path.write_bytes(b"new")), progress=lambda line: None
    )
    assert not engine.exists()
    assert list(tmp_path.glob("*.runtime")) == []


def write_many(engine: str, letter: str) -> None:
    file = beside(Path(engine))
    for size in range(1, 40):
        file.write(letter.encode() * size)
        assert len(set(file.read())) == 1


def test_many_processes_write_at_once_and_each_file_is_whole(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(str(engine), letter)) for letter in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(beside(engine).read()) == 39
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".tmp", ".lock")] == []


@needs_rtx
def test_the_installed_tensorrt_for_rtx_has_a_runtime_cache() -> None:
    rtx = importlib.import_module("tensorrt_rtx_bindings")
    assert {"create_runtime_cache", "set_runtime_cache"} <= set(dir(rtx.IRuntimeConfig))
    assert {"serialize", "deserialize"} <= set(dir(rtx.IRuntimeCache))
    assert "create_runtime_config" in dir(rtx.ICudaEngine)


@needs_rtx
def test_without_a_gpu_nothing_is_compiled_and_kept() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert BACKENDS["rtx"].runtime_key() == {}  # type: ignore[attr-defined]


# On a GPU


@pytest.mark.gpu
@needs_rtx
def test_a_second_session_reads_what_the_first_compiled(tmp_path: Path) -> None:
    backend = BACKENDS["rtx"]
    request = request_for(relu(tmp_path / "m.onnx"), x=(2, 4))
    engine = (
        EngineCache(tmp_path / "e", limit_bytes=2**30)
        .get({"k": 1}, lambda path: backend.build(request, path, quiet()), progress=lambda line: None)
        .path
    )
    inputs = {"x": torch.randn(8, 4, device="cuda")}
    with backend.load(engine) as session:
        expected = session.run(inputs)["y"]
    (file,) = engine.parent.glob("*.runtime")
    head = json.loads(file.read_bytes().partition(b"\n")[0])
    assert head["bytes"] > 0
    assert head["key"]["driver"] not in ("", "None")
    before = file.read_bytes()
    with backend.load(engine) as session:
        assert session._contexts._known == head["bytes"]  # type: ignore[attr-defined]
        assert torch.equal(session.run(inputs)["y"], expected)
    assert file.read_bytes() == before
    file.write_bytes(before[:-1] + (b"?" if before[-1:] != b"?" else b"!"))
    with backend.load(engine) as session:
        assert torch.equal(session.run(inputs)["y"], expected)
    assert json.loads(file.read_bytes().partition(b"\n")[0])["bytes"] > 0
