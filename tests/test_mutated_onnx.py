"""ONNX files with something changed in them: no traceback, no hang, no crash, no file elsewhere.

``MUTATIONS=2000 python -m pytest tests/test_mutated_onnx.py`` tries that many, others each time; without it a few, the
same each time.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutated.models import all_models
from mutated.mutations import Step, mutate_bytes, mutate_fields

MODELS = all_models()
MANY = int(os.environ.get("MUTATIONS", "0"))
HANGS_S = 20.0
STARTS_S = 120.0


class Worker:
    """The process that meets the files; another one takes its place when it crashes or hangs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, data: bytes) -> dict[str, Any] | str:
        """Return what ``parity`` did with a file, or how the process ended; a hang is one that comes three times."""
        for _ in range(3):  # a machine with other work to do stood still for 40 s
            found = self._ask(data)
            if not isinstance(found, str) or not found.startswith("no answer"):
                break
        return found

    def _ask(self, data: bytes) -> dict[str, Any] | str:
        work = Path(tempfile.mkdtemp(dir=self.folder))
        (work / "m.onnx").write_bytes(data)
        process = self.process = self.process or self._start()
        assert process.stdin is not None
        process.stdin.write(f"{work}\n".encode())
        process.stdin.flush()
        answer = self._line(HANGS_S)
        said = (self.folder / "log").read_text(errors="replace")[-2000:]
        if isinstance(answer, str):
            self.close()
            return f"{answer}: {said}"
        shutil.rmtree(work)
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> subprocess.Popen[bytes]:
        tests = str(Path(__file__).parent)
        path = os.pathsep.join([tests, str(Path(tests).parent), os.environ.get("PYTHONPATH", "")])
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mutated.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(self.folder / "tmp")},
            )  # fmt: skip
        started = self._line(STARTS_S)
        assert started == b"ready\n", started
        return self.process

    def _line(self, limit_s: float) -> bytes | str:
        assert self.process is not None
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], limit_s)[0]:
            return f"no answer in {limit_s:.0f} s"
        return self.process.stdout.readline() or f"ended with status {self.process.wait()}"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("mutated")
    (folder / "tmp").mkdir()
    worker = Worker(folder)
    yield worker
    worker.close()


def check(found: dict[str, Any] | str) -> int:
    """Assert that a run ended as one should, and return its status."""
    assert isinstance(found, dict), found
    assert not found["trace"], found["trace"]
    assert found["outside"] == []
    assert [line for line in found["err"].splitlines() if not line.startswith("parity: ")] == []
    assert "Traceback" not in found["out"] + found["err"]
    assert found["status"] in (0, 1, 2, 3)
    if found["status"] == 2:
        assert found["out"] == ""
    status: int = found["status"]
    return status


def steps(most: int) -> st.SearchStrategy[list[Step]]:
    number = st.integers(0, 2**16 - 1)
    return st.lists(st.tuples(number, number, number), min_size=1, max_size=most)


tried = settings(
    max_examples=MANY or 15, derandomize=not MANY, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_models_themselves_are_judged(worker: Worker, name: str):
    assert check(worker.ask(MODELS[name].SerializeToString())) == 0


@tried
@given(name=st.sampled_from(sorted(MODELS)), steps=steps(4))
def test_other_bytes(worker: Worker, name: str, steps: list[Step]):
    check(worker.ask(mutate_bytes(MODELS[name].SerializeToString(), steps)))


@tried
@given(name=st.sampled_from(sorted(MODELS)), steps=steps(3))
def test_other_fields(worker: Worker, name: str, steps: list[Step]):
    check(worker.ask(mutate_fields(MODELS[name], steps)))
