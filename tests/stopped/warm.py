"""A process that has imported everything: commands are forks of it, each a process group of its own, ready at once.

It reads a line of JSON per request and answers with one: ``{"run": ARGUMENTS, "folder": ..., "said": NAME, "place":
..., "after": ...}`` starts a command and returns its pid, with a place once it waits there or has ended; ``{"wait":
PID}`` returns its status. A command that waits goes on when the file ``go`` appears in its folder.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from stopped.phases import wait_in

LONGEST_S = 60.0
"""After which a command hangs."""
SUITE = """
import torch
from harness import Subject, targets
from harness.checks import test_outputs


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.inner(x)


SUBJECT = Subject(
    name="tiny", build=lambda: Tiny().eval(), cases={"one": lambda: {"x": torch.linspace(0.5, 1, 8).reshape(2, 4)}},
    targets=targets("ort-cpu", precisions=("fp32", "fp16")), weights="random", inputs="random",
)
"""
SWAMPING = "import planted\n\nSUBJECT = planted.PLANTED['swamping'].subject\n"
"""Wrong in FP16 because of one module, which a bisection finds with few engines."""


def lay_out(folder: Path) -> None:
    """Make a folder with two suites."""
    (folder / "suites").mkdir(parents=True)
    (folder / "tmp").mkdir()
    (folder / "conftest.py").write_text('pytest_plugins = ["harness.plugin"]\n')
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "suites" / "test_tiny.py").write_text(SUITE)
    (folder / "suites" / "test_swamping.py").write_text(SWAMPING)


def warm_up() -> None:
    """Import and compute what any command may, once."""
    parts = ("verify", "latency", "bisect", "layers", "report.html", "report.plots", "hackathon", "history.store")
    drawing = ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg")
    for name in ("torch", "onnxruntime", "pytest", *drawing, *(f"harness.{part}" for part in parts)):
        importlib.import_module(name)
    import operator_table
    from planted import PLANTED, PlantedBackend

    from harness.backends import BACKENDS
    from harness.cli import main

    BACKENDS["planted"] = PlantedBackend(*PLANTED["swamping"].faults)
    operator_table.share()
    folder = Path(tempfile.mkdtemp())
    lay_out(folder)
    before = Path.cwd()
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = main(["verify", "tiny", "--json", "reports/out.json"]) or main(["report", "reports", "--html"])
    os.chdir(before)
    shutil.rmtree(folder)
    assert status == 0
    gc.collect()
    gc.freeze()  # the garbage collections of the forks need not look at all of this, which would copy it


def start(request: dict[str, Any]) -> int:
    """Fork a command and wait until it is where it should be stopped, or has ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _become(request, writing)
    os.close(writing)
    if request["place"]:
        os.read(reading, 1)
    os.close(reading)
    return pid


def _become(request: dict[str, Any], reached: int) -> None:
    """Be the command."""
    folder = Path(request["folder"])
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        said = os.open(request["said"], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), said, said)):
            os.dup2(file, number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        sys.path.insert(0, "")
        os.environ |= {"TMPDIR": str(folder / "tmp"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        tempfile.tempdir = None
        _made_up_times()

        def wait() -> None:
            os.close(reached)
            while not (folder / "go").exists():
                time.sleep(0.01)

        def refuse() -> None:
            raise OSError(request["error"], os.strerror(request["error"]))

        if request["place"]:
            refused = request["error"] != 0
            wait_in(request["place"], request["after"], refuse if refused else wait, always=refused)
        status = _command(request["run"])
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _command(arguments: list[str]) -> int:
    if arguments[0] == "pytest":
        import pytest

        return int(pytest.main(arguments[1:]))
    from harness.cli import script

    sys.argv = ["parity", *arguments]
    script()


def _made_up_times() -> None:
    """Let the processes that time say what they found at once: what they measure is not what is tested."""
    from latencies import process

    from harness.latency.processes import Worker
    from harness.timing import median

    def untimed(*_: Any) -> None:
        return None

    median.WARM_UP_S, median.MEASURE_S = 0.0, 0.01
    Worker.go = untimed  # type: ignore[method-assign]
    Worker.ready = untimed  # type: ignore[method-assign]
    Worker.result = lambda *_: process(1.0)  # type: ignore[method-assign]


def main() -> None:
    """Serve requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    warm_up()
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(start(request) if "run" in request else ended(request["wait"]), file=answers, flush=True)


def ended(pid: int) -> int:
    """Return the status of a command; one that does not end is killed."""
    until = time.monotonic() + LONGEST_S
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


if __name__ == "__main__":
    main()
