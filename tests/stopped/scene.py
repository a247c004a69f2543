"""A folder in which commands are stopped, and what is wrong in it afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import time
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import safetensors.torch
import torch
from forked import ROOT, Forks, wait

from stopped import phases
from stopped.phases import Phase

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
LONGEST_S = 60.0
"""After which a command hangs."""
LEFTOVER = re.compile(r"parity-\w+-\w+\.tmp")
PASSING = ("tmp/", "first.txt", "second.txt", ".pytest_cache", "junit.xml", "go")
"""What belongs to a run alone."""
RIGHT = {"verify": 0, "build": 0, "bench": 0, "bisect": 1, "reference": 0, "report": 0, "pytest": 0}
"""The status of a command that is not stopped: the engine of the bisection is wrong."""


REFUSED = {"verify": (2, 3), "bench": (2, 3), "bisect": (2, 3), "reference": (2,), "report": (2,), "pytest": (0, 2)}
"""The statuses of a command that cannot write what it has to; pytest skips what is not judged, or does not begin."""


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


class Commands:
    """Starts commands as forks of the process that has imported everything."""

    def __init__(self, forks: Forks) -> None:
        self._forks = forks
        self._started: dict[int, socket.socket] = {}

    def start(self, command: tuple[str, ...], folder: Path, phase: Phase | None = None, error: int = 0) -> int:
        """Start a command, and let it come to the phase if there is one; return its pid.

        With an ``error`` of the system it does not wait there but meets that, every time.
        """
        place = {"place": phase.place, "after": phase.after, "error": error} if phase else {"place": ""}
        said = folder / ("first.txt" if phase or not (folder / "first.txt").exists() else "second.txt")
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        own = {"PYTHONPATH": path, "TMPDIR": str(folder / "tmp"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        waiting, reached = os.pipe()
        with open(os.devnull) as nothing, said.open("w") as file:  # noqa: PTH123
            pid, connection = self._forks.start(
                ["-m", "stopped.command", json.dumps({"run": command, **place})],
                [nothing.fileno(), file.fileno(), file.fileno(), reached], cwd=folder, env={**os.environ, **own},
            )  # fmt: skip
        self._started[pid] = connection
        os.close(reached)
        if phase:
            os.read(waiting, 1)
        os.close(waiting)
        return pid

    def wait(self, pid: int) -> int:
        """Return the status of a command that ends."""
        return wait(pid, self._started.pop(pid), timeout=LONGEST_S)


class Scene:
    """One folder with what earlier runs of all commands made."""

    def __init__(self, commands: Commands, folder: Path) -> None:
        self.commands, self.folder = commands, folder

    def prepare(self) -> None:
        """Run every command once."""
        lay_out(self.folder)
        reports = ("verify", "tiny", "--json", "reports/verify.json")
        for command in (reports, phases.REPORT, phases.REFERENCE, phases.BENCH, phases.BISECT, phases.VERIFY):
            assert self.run(command) == RIGHT[command[0]], self.said()
        (self.folder / "plan.toml").write_text('precision = "fp16"\nkeep_fp32 = ["old"]\n')

    def copy(self, folder: Path) -> Scene:
        """Return a scene of its own with the same."""
        shutil.copytree(self.folder, folder)
        return Scene(self.commands, folder)

    def run(self, command: tuple[str, ...]) -> int:
        """Run a command to its end."""
        self.hush()
        return self.commands.wait(self.commands.start(command, self.folder))

    def hush(self) -> None:
        """Forget what commands said."""
        for path in self.folder.glob("*.txt"):
            path.unlink()

    def said(self) -> str:
        """Return what the commands said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.txt")))

    def stop(self, phase: Phase, number: signal.Signals, *, group: bool = True) -> tuple[int, list[str]]:
        """Stop a command in a phase; return its status, and everything that is wrong afterwards."""
        self.make_fresh(phase)
        before = dict(self.files())
        pid = self.commands.start(phase.command, self.folder, phase)
        if not waits(pid):
            return self.commands.wait(pid), [f"ended before the phase: {self.said()[-300:]}"]
        started = time.monotonic()
        (os.killpg if group else os.kill)(pid, number)
        status = self.commands.wait(pid)
        took = time.monotonic() - started
        wrong = [f"status {status}"] * (status != STATUS[number])
        wrong += [f"it took {took:.1f} s to stop"] * (took > 10)
        wrong += [f"process {left} is left" for left in left_of(pid)]
        wrong += self.compare(before, killed=number == signal.SIGKILL)
        if number != signal.SIGKILL:
            wrong += said_wrong(self.said(), phase.command[0] == "pytest")
        return status, wrong

    def next_run(self, phase: Phase) -> list[str]:
        """Run the command of a phase again; return what is wrong with that."""
        started = time.monotonic()
        status = self.run(phase.command)
        took = time.monotonic() - started
        wrong = [f"the next run has status {status}: {self.said()[-300:]}"] * (status != RIGHT[phase.command[0]])
        wrong += [f"the next run took {took:.1f} s"] * (took > 30)
        wrong += [f"left behind: {name}" for name in self.leftovers()]
        if "out.json" in phase.command and not json.loads((self.folder / "out.json").read_text())["complete"]:
            wrong.append("the JSON of the next run is not complete")
        return wrong

    def beside(self, phase: Phase, wait_s: float = 1.5) -> list[str]:
        """Run a command while the same one waits in a phase, then let that go on; return what is wrong."""
        self.make_fresh(phase)
        before = dict(self.files())
        first = self.commands.start(phase.command, self.folder, phase)
        second = self.commands.start(phase.command, self.folder)
        ends = time.monotonic() + (wait_s if phase.locked else 20.0)
        while waits(second) and time.monotonic() < ends:
            time.sleep(0.02)
        wrong = ["the second did not wait"] * (phase.locked and not waits(second))
        wrong += ["the second waited"] * (not phase.locked and waits(second))
        (self.folder / "go").touch()
        statuses = self.commands.wait(first), self.commands.wait(second)
        right = RIGHT[phase.command[0]]
        wrong += [f"statuses {statuses}: {self.said()[-300:]}"] * (statuses != (right, right))
        return wrong + self.compare(before, after_all=True)

    def refuse(self, phase: Phase, error: int) -> tuple[int, list[str]]:
        """Let the system refuse what a phase writes; return the status, and what is wrong."""
        self.make_fresh(phase)
        before = dict(self.files())
        status = self.commands.wait(self.commands.start(phase.command, self.folder, phase, error))
        said = " ".join(self.said().split())
        wrong = self.compare(before, after_all=True)
        wrong += ["a traceback"] * ("Traceback" in said)
        wrong += [f"status {status}"] * (status not in REFUSED[phase.command[0]])
        if os.strerror(error) not in said and "no space left" not in said and "cannot be written" not in said:
            wrong.append(f"it does not say what is wrong: {said[-600:]}")
        final = phase.place.removeprefix(">")
        changed = [name for name, data in self.files() if fnmatch(name, f"*{final}") and before.get(name, data) != data]
        return status, wrong + [f"{name} is not the old one" for name in changed if "reference" not in name]

    def make_fresh(self, phase: Phase) -> None:
        """Remove what would keep a command from reaching the phase; make the reference an older one."""
        self.hush()
        (self.folder / "go").unlink(missing_ok=True)
        if phase.command == phases.REFERENCE:
            path = self.folder / "reference_outputs" / "tiny" / "one.safetensors"
            data = safetensors.torch.save({"fp32/output": torch.zeros(2)})
            record = json.loads(path.with_suffix(".json").read_text())
            record["tensors_sha256"] = hashlib.sha256(data).hexdigest()
            path.write_bytes(data)
            path.with_suffix(".json").write_text(json.dumps(record))
        for pattern in phase.fresh:
            for path in self.folder.glob(pattern):
                path.unlink()

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the files that are not a run's own, with their bytes."""
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not name.startswith(PASSING) and not LEFTOVER.search(name):
                yield name, path.read_bytes()

    def leftovers(self) -> list[str]:
        """Return temporary files and folders, wherever they are."""
        return [str(path) for path in self.folder.rglob("*") if LEFTOVER.search(path.name)] + [
            str(path)
            for path in (self.folder / "tmp").iterdir()
            if path.name != ".ses"  # of ONNX Runtime
        ]

    def compare(self, before: dict[str, bytes], *, after_all: bool = False, killed: bool = False) -> list[str]:
        """Return what was lost, what is half written and, where nobody was killed, what is left behind."""
        after = dict(self.files())
        wrong = [f"{name} is lost" for name in before.keys() - after.keys() if not name.endswith(("-wal", "-shm"))]
        wrong += [f"{name} is {fault}" for name, data in after.items() if (fault := half(self.folder / name, data))]
        wrong += [f"left behind: {name}" for name in self.leftovers()] * (not killed)
        record = self.folder / "out.json"
        if not killed and not after_all and before.get("out.json") != record.read_bytes():
            found = json.loads(record.read_text())
            says = re.search("interrupted|stopped by SIG|started", found["error"])
            if found["complete"] or not says:
                wrong.append(f"the JSON says complete={found['complete']}, {found['error']!r}")
            if "bisect" in found and not found["bisect"]["interrupted"]:
                wrong.append("the bisection does not say that it was interrupted")
        return wrong


def half(path: Path, data: bytes) -> str:
    """Return what is wrong with a file's content, by its kind."""
    try:
        if path.suffix == ".json":
            json.loads(data)
        elif path.suffix == ".toml":
            tomllib.loads(data.decode())
        elif path.suffix == ".sqlite":
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
                if connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                    return "damaged"
        elif path.suffix == ".html" and not data.rstrip().endswith(b"</html>"):
            return "cut short"
        elif path.suffix == ".engine" and path.with_suffix(".json").exists():
            described = json.loads(path.with_suffix(".json").read_text())
            if described["bytes"] != len(data):
                return "not what its description says"
        elif path.suffix == ".safetensors":
            record = json.loads(path.with_suffix(".json").read_text())
            known = {record["tensors_sha256"], record.get("before", {}).get("tensors_sha256")}
            if hashlib.sha256(data).hexdigest() not in known:
                return "not what its description says"
    except Exception as error:
        return f"damaged ({error})"
    return ""


def waits(pid: int) -> bool:
    """Return whether a command has not ended."""
    found = described(str(pid))
    return found is not None and found[1] != "Z"


def left_of(session: int) -> list[str]:
    """Return what still runs of a session after a moment."""
    left: list[str] = []
    for _ in range(60):
        left = [line for line in map(described, os.listdir("/proc")) if line and line[0] == session and line[1] != "Z"]  # noqa: PTH208
        if not left:
            return []
        time.sleep(0.05)
    return [str(line) for line in left]


def described(entry: str) -> tuple[int, str, str] | None:
    """Return session, state and command of a process; None for what is none."""
    if not entry.isdecimal():
        return None
    try:
        with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        return None
    state, _, _, session = text.rpartition(")")[2].split()[:4]
    return int(session), state, text[: text.rindex(")") + 1]


def said_wrong(text: str, is_pytest: bool) -> list[str]:
    """Return what is wrong with what a command said when it was stopped."""
    wrong = ["a traceback"] * ("Traceback" in text)
    count = len(re.findall(r"^parity: (?:interrupted|stopped by SIG\w+)", text, re.M))
    if not is_pytest and count != 1 and "interrupted: this is what was found so far" not in text:
        wrong.append(f"the sentence stands there {count} times: {text[-300:]}")
    return wrong
