"""A command that is stopped loses nothing and leaves nothing behind, in every phase, by every signal.

``PYTHONPATH=tests python -m stopped.table`` prints all of it as a table; here each phase is stopped twice.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stopped.phases import BISECT, PHASES, Phase
from stopped.scene import SIGNALS, Scene, left_of


def in_groups(phases: list[tuple[int, Phase]]) -> list[object]:
    """Return parameters for two processes of xdist: each has one warm process."""
    return [
        pytest.param(phase, SIGNALS[number % 3], id=str(phase), marks=pytest.mark.xdist_group(f"stopped-{number % 2}"))
        for number, phase in phases
    ]


@pytest.mark.parametrize(("phase", "number"), in_groups(list(enumerate(PHASES))))
def test_a_command_that_is_stopped_loses_nothing(whole: Scene, tmp_path: Path, phase: Phase, number: signal.Signals):
    if phase.command[0] == "build" and importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("needs TensorRT for RTX")
    scene = whole.copy(tmp_path / "scene")
    assert scene.stop(phase, number)[1] == []
    assert scene.stop(phase, signal.SIGKILL, group=False)[1] == []
    assert scene.next_run(phase) == []


BESIDE = [(number, phase) for number, phase in enumerate(PHASES) if phase.locked or phase.command != BISECT]


@pytest.mark.parametrize(("phase", "number"), in_groups(BESIDE))
def test_two_at_a_time_wait_for_each_other_or_do_not_meet(
    whole: Scene, tmp_path: Path, phase: Phase, number: signal.Signals
):
    if phase.command[0] == "build" and importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("needs TensorRT for RTX")
    assert whole.copy(tmp_path / "scene").beside(phase, wait_s=0.5) == []


SLEEPS = """
import os, pathlib, time


def test_a():
    pathlib.Path(f"here-{os.getpid()}").touch()
    time.sleep(60)


test_b = test_a
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_of_xdist_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["harness.plugin"]\n')
    (tmp_path / "test_sleeps.py").write_text(SLEEPS)
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "--junitxml", "junit.xml"]
    path = str(Path(__file__).parents[1])
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--parity-json", "out.json"], cwd=tmp_path, stdout=said, stderr=said, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    ends = time.monotonic() + 60
    while len(list(tmp_path.glob("here-*"))) < 2 and time.monotonic() < ends:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(50) == (143 if number == signal.SIGTERM else -9), (tmp_path / "said").read_text()
    assert left_of(process.pid) == []
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM" in (tmp_path / "out.json").read_text()
        assert (tmp_path / "junit.xml").exists()


def test_a_command_of_its_own_ends_at_any_moment_without_a_traceback(tmp_path: Path):
    for moment in (0.03, 0.08, 0.13, 0.3, 1.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        time.sleep(moment)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode in (143, -signal.SIGTERM), errors
        assert "Traceback" not in errors
