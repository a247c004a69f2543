"""Models in a process of their own, as those who ask see them: loaded, run, and again when the process was lost."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import select
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import limits
from harness.errors import NotJudged
from harness.isolated import wire
from harness.memory import is_out_of_memory, out_of_memory
from harness.process import how_it_ended, python_child
from harness.stopping import child

PIPE_BYTES = 2**20


class Raised(Exception):
    """The library raised; the text is its own."""


class Crashed(Raised):
    """The process died while it loaded or ran the model; the text says how, and what it said last."""


class Model:
    """A model that ONNX Runtime or ``onnx.reference`` loads and runs on the CPU; :meth:`close` it.

    Every thread has a process of its own. What the library raises is a :class:`Raised`, a lost process a
    :class:`Crashed`; NotJudged says that memory ran out, TookTooLong that the time of the step did.
    """

    def __init__(
        self, *, library: str = "onnxruntime", optimise: bool = False, threads: int = 0, **source: Any
    ) -> None:
        """``source`` is that of a ``load`` in :mod:`harness.isolated.worker`. Loads the model."""
        self.name = "ONNX Runtime" if library == "onnxruntime" else library
        if "path" in source:  # a process may be older than the working folder of today
            source["path"] = str(Path(source["path"]).absolute())
        self._load = {"do": "load", "library": library, "optimise": optimise, "threads": threads, **source}
        self._id = next(_ids)
        self.ports: dict[str, Any] = {}
        """The model's ``inputs`` and ``outputs``: name, type and shape of each; empty for ``onnx.reference``."""
        self._process: _Process | None = None
        self._loaded()

    def run(
        self, feeds: Mapping[str, Any], names: Sequence[str] | None = None, *, times: int = 1, raw: bool = False
    ) -> Any:
        """Return the outputs of each run; see :mod:`harness.isolated.worker`."""
        process = self._loaded()
        request = {"do": "run", "feeds": feeds, "names": names, "times": times, "raw": raw}
        return process.ask({**request, "id": self._id}, f"{self.name} running the graph", self.name)["results"]

    def end_profiling(self) -> str:
        """End the profile that was begun when the model was loaded, and return the path of its file."""
        answer = self._loaded().ask({"do": "end_profiling", "id": self._id}, f"{self.name} profiling", self.name)
        return str(answer["path"])

    def close(self) -> None:
        """Free the model, where its process still has it."""
        if self._process is not None and self._process.is_alive():
            self._process.to_close.append(self._id)
        self._process = None

    def __del__(self) -> None:
        self.close()

    def _loaded(self) -> _Process:
        process = _process()
        if self._process is not process:
            self.close()
            self.ports = process.ask({**self._load, "id": self._id}, f"{self.name} loading the graph", self.name)
            self._process = process
        return process


def infer_shapes(model: bytes, *, values: bool, most_bytes: int) -> bytes:
    """Return a serialised model with the shapes that ONNX infers, from ``values`` as well.

    Raises what :class:`Model` raises; NoMemory where that takes more than ``most_bytes``.
    """
    request = {"do": "infer", "model": np.frombuffer(model, np.uint8), "values": values, "most_bytes": most_bytes}
    answer = _process().ask({**request, "id": -1}, "shape inference", "ONNX's shape inference")
    return bytes(answer["model"].tobytes())


def start_ahead() -> None:
    """Start the process of this thread, which imports ONNX Runtime while the caller goes on."""
    _process("onnxruntime")


class _Process:
    """One process of :mod:`harness.isolated.worker`."""

    def __init__(self, *libraries: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        command, environment = python_child("harness.isolated.worker", *libraries)
        self._stack = contextlib.ExitStack()
        self._process = self._stack.enter_context(
            child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment)
        )
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            with contextlib.suppress(OSError, AttributeError):  # Linux: sixteen times fewer switches between the two
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.to_close: list[int] = []
        """Models that nobody needs; freed with the next request, for a model may be dropped in the midst of one."""

    def is_alive(self) -> bool:
        """Return whether it can be asked."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], doing: str, name: str) -> Any:
        """Return the answer to a request, which is a step whose time may be limited."""
        while self.to_close:
            self._exchange({"do": "close", "id": self.to_close.pop()}, name)
        with limits.step(doing):
            answer = self._exchange(request, name)
        if "error" not in answer:
            return answer
        if answer["memory"]:
            raise out_of_memory(name, answer["error"])
        raise Raised(answer["error"])

    def _exchange(self, request: Mapping[str, Any], name: str) -> Any:
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # the answer then says how it died
                wire.send(self._process.stdin, request)
            return self._answer(name)
        except BaseException:  # of time, Ctrl-C: what it does now is nothing that anybody waits for
            self.kill()
            raise

    def _answer(self, name: str) -> Any:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], limits.remaining_s())[0]:
            raise limits.out_of_time()
        line = stdout.readline(wire.LARGEST_HEADER)
        if not line:
            raise self._died(name)

        def exactly(size: int) -> wire.Bytes:
            data = wire.buffer(size)
            if stdout.readinto(data.data) != size:  # type: ignore[attr-defined]
                raise self._died(name)
            return data

        return wire.receive(line, exactly)

    def _died(self, name: str) -> Exception:
        status = self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        if any(map(is_out_of_memory, said)):
            return out_of_memory(name, "")
        text = f"{name} {how_it_ended(status)}{f': {said[-1]}' if said else ''}"
        return NotJudged(text, failure="memory") if status == -9 else Crashed(text)

    def kill(self) -> None:
        """End it, and close its streams."""
        self._stack.close()
        self._stderr.close()


class _Thread(threading.local):
    process: _Process | None = None


_ids = itertools.count()
_thread = _Thread()
_started: list[_Process] = []


def _process(*libraries: str) -> _Process:
    """Return this thread's process, started where there is none or it was lost; it then imports ``libraries``."""
    if _thread.process is None or not _thread.process.is_alive():
        _thread.process = _Process(*libraries)
        _started[:] = [process for process in _started if process.is_alive()] + [_thread.process]
    return _thread.process


@atexit.register
def _end_all() -> None:
    for process in _started:
        process.kill()
