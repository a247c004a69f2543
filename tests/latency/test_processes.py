"""A measuring process seen from outside: dead, slow, silent. The process is a script of a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import EngineFailed, EngineRefused, NotJudged, ParityError
from harness.latency import processes as latency_processes
from harness.latency.processes import Worker


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that starts a process with this code in the worker's place."""
    started = []

    def start(code: str) -> Worker:
        (tmp_path / "stand_in.py").write_text(
            f"import os, sys, time, pathlib\nresult = {str(tmp_path / 'r.json')!r}\n{code}"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(latency_processes, "MODULE", "stand_in")
        request = {"runner": "engine", "backend": "rtx", "precision": "fp16", "result": str(tmp_path / "r.json")}
        started.append(Worker(request))
        return started[-1]

    yield start
    for one in started:
        one.close()


READY = "print('ready', flush=True); sys.stdin.readline()\n"


def test_death_before_it_is_ready(worker: Any) -> None:
    with pytest.raises(
        EngineFailed, match=r"the process that timed rtx-fp16 \(engine\) ended with status 1: ImportError: libnvinfer"
    ):
        worker("raise ImportError('libnvinfer')").ready()


def test_death_by_a_signal(worker: Any) -> None:
    one = worker(READY + "os.kill(os.getpid(), 11)")
    one.ready()
    one.go()
    with pytest.raises(EngineFailed, match=r"died with signal 11 \(SIGSEGV\): it gave no reason"):
        one.result()


def test_death_between_ready_and_go(worker: Any) -> None:
    one = worker("print('ready', flush=True); os.close(0); sys.exit('gone')")
    one.ready()
    one._process.wait()
    with pytest.raises(EngineFailed, match="ended with status 1: gone"):
        one.go()


def test_it_is_not_ready_in_time(worker: Any) -> None:
    with pytest.raises(NotJudged, match=r"should time rtx-fp16 \(engine\) was not ready within 0 s"):
        worker("time.sleep(60)").ready(timeout_s=0.05)


def test_it_does_not_end_in_time(worker: Any) -> None:
    one = worker(READY + "time.sleep(60)")
    one.ready()
    one.go()
    with pytest.raises(NotJudged, match=r"timing rtx-fp16 \(engine\) did not end within 0 s"):
        one.result(timeout_s=0.05)


def test_closing_ends_it(worker: Any) -> None:
    one = worker("time.sleep(60)")
    one.close()
    one.close()
    assert one._process.returncode == -9


def test_it_is_told_one_word(worker: Any, tmp_path: Path) -> None:
    one = worker(
        f"print('ready', flush=True)\npathlib.Path({str(tmp_path / 'told')!r}).write_text(sys.stdin.readline())\n"
    )
    one.ready()
    one.go()
    one._process.wait()
    assert (tmp_path / "told").read_text() == "go\n"


@pytest.mark.parametrize(
    ("kind", "wanted"), [("EngineRefused", EngineRefused), ("NotJudged", NotJudged), ("NewKind", ParityError)]
)
def test_an_error_that_was_written_is_raised(worker: Any, kind: str, wanted: type[ParityError]) -> None:
    told = f'{{"error": "the file is empty", "kind": "{kind}"}}'
    one = worker(READY + f"pathlib.Path(result).write_text({told!r}); sys.exit(3)")
    one.ready()
    one.go()
    with pytest.raises(ParityError, match=r"^the file is empty$") as error:
        one.result()
    assert error.type is wanted
