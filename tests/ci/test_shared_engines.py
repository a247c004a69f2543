"""Two repositories, each with an engine cache of its own, and one folder that both share: real pytest processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from forked import Forks

ROOT = Path(__file__).parents[2]
SUITE = """
from pathlib import Path

import torch

from harness import Subject, targets
from harness.checks import test_outputs

SUBJECT = Subject(
    name="net", onnx=Path(__file__).parent / "net.onnx", targets=targets("ort-cpu", precisions=("fp32", "fp16")),
    cases={"one": lambda: {"image": torch.linspace(-1, 1, 3072).reshape(1, 3, 32, 32)}}, weights="random",
)
"""
DIES_WHILE_UPLOADING = """
import os
import signal
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

pytest_plugins = ["harness.plugin"]


def half(self, local, place, **options):
    Path(place).write_bytes(Path(local).read_bytes()[:100])
    os.kill(os.getpid(), signal.SIGKILL)


LocalFileSystem.put_file = half
"""


def repository(folder: Path, conftest: str = 'pytest_plugins = ["harness.plugin"]\n') -> Path:
    (folder / "suites").mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(conftest)
    (folder / "suites" / "test_net.py").write_text(SUITE)
    (folder / "suites" / "net.onnx").write_bytes((ROOT / "examples" / "net.onnx").read_bytes())
    return folder


def start(forks: Forks, folder: Path, shared: Path, mode: str) -> subprocess.Popen[str]:
    command = [*forks.command, "-m", "pytest", "-q", "suites", "-p", "no:randomly", "--parity-json", "out.json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PARITY_", "PYTEST_"))}
    environment |= {
        "PYTHONPATH": str(ROOT), "PARITY_ENGINES_REMOTE": str(shared), "PARITY_ENGINES_REMOTE_MODE": mode,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def origins(folder: Path, process: subprocess.Popen[str]) -> dict[str, str]:
    """Return where each engine came from, by target, once the run has ended and passed."""
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    results: list[dict[str, Any]] = json.loads((folder / "out.json").read_text())["results"]
    assert {result["verdict"] for result in results} == {"pass"}
    return {result["precision"]: result["engine"]["origin"] for result in results}


def test_two_repositories_build_each_engine_once(forks: Forks, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    folders = [repository(tmp_path / name) for name in ("one", "two")]
    runs = [start(forks, folder, shared, "read-write") for folder in folders]
    both = [origins(folder, run) for folder, run in zip(folders, runs, strict=True)]
    for precision in ("fp32", "fp16"):
        assert sorted(found[precision] for found in both) == ["built", "remote"]
    assert len(list(shared.glob("engines/*.json"))) == 2
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*")}
    third = repository(tmp_path / "three")
    assert set(origins(third, start(forks, third, shared, "read")).values()) == {"remote"}
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*")} == before


def test_a_run_that_is_killed_while_it_uploads_leaves_nothing_that_is_served(forks: Forks, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    dying = start(forks, repository(tmp_path / "one", DIES_WHILE_UPLOADING), shared, "read-write")
    dying.communicate(timeout=500)
    assert dying.returncode == -signal.SIGKILL
    assert list(shared.glob("engines/*")) == list(shared.glob("objects/*")) == []
    second = repository(tmp_path / "two")
    assert set(origins(second, start(forks, second, shared, "read-write")).values()) == {"built"}
