"""The phases of the commands, and how a process is made to wait in one of them, before a function or a renaming."""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

VERIFY = ("verify", "tiny", "--json", "out.json")
BENCH = ("bench", "tiny", "-b", "ort-cpu", "-p", "fp32", "--processes", "2", "--baseline", "none", "--json", "out.json")
BISECT = ("bisect", "swamping", "-b", "planted", "-p", "fp16", "--json", "out.json", "-o", "plan.toml")
BUILD = ("build", "tiny", "-b", "rtx", "-p", "fp16", "--no-engine-cache")
"""Builds in a process of its own."""
REFERENCE = ("reference", "tiny")
REPORT = ("report", "reports", "--html", "--badge", "badge.json")
PYTEST = (
    "pytest",
    "suites/test_tiny.py",
    "-q",
    "-p",
    "no:randomly",
    "-p",
    "no:unraisableexception",  # it collects garbage ten times
    "--parity-json",
    "out.json",
    "--junitxml",
    "junit.xml",
)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A moment of a command."""

    command: tuple[str, ...]
    name: str
    place: str
    """``module:function`` that waits before it works, or ``>NAME`` for the moment before a file takes that name."""
    fresh: tuple[str, ...] = ()
    """Patterns of files that are removed before, so that the phase is reached."""
    locked: bool = False
    """Whether another process has to wait for this one then."""
    after: bool = False
    """Whether it waits at the function's end."""

    def __str__(self) -> str:
        return f"{self.command[0]}: {self.name}"


ENGINES = ("engines/tiny-*",)
PROGRAMS = (*ENGINES, "engines/programs/*")
ORT = "harness.backends.onnxruntime.backend"
PACK = f"{ORT}:pack"
PLANTED = "planted.backend:PlantedBackend.build"
PHASES = (
    Phase(command=VERIFY, name="trace", place="torch.export:export"),
    Phase(command=VERIFY, name="export", place="torch.onnx:export", fresh=PROGRAMS, locked=True),
    Phase(command=VERIFY, name="build", place=PACK, fresh=ENGINES, after=True, locked=True),
    Phase(command=VERIFY, name="engine write", place=">.engine", fresh=ENGINES, locked=True),
    Phase(command=VERIFY, name="engine description write", place=">tiny-*.json", fresh=ENGINES, locked=True),
    Phase(command=VERIFY, name="load", place=f"{ORT}:OnnxRuntimeBackend.load"),
    Phase(command=VERIFY, name="run", place="harness.backends.onnxruntime.apart:ApartSession.run"),
    Phase(command=VERIFY, name="JSON write", place=">out.json"),
    Phase(command=BENCH, name="time", place="harness.latency.processes:Worker.ready"),
    Phase(command=BENCH, name="history write", place="harness.history.store:_by_id", locked=True),
    Phase(command=BENCH, name="JSON write", place=">out.json"),
    Phase(command=BISECT, name="screen", place="harness.bisect.screening:Screen.rank"),
    Phase(command=BISECT, name="build", place=PLANTED, fresh=("engines/swamping*",), locked=True),
    Phase(command=BISECT, name="plan write", place=">plan.toml"),
    Phase(command=BISECT, name="price", place="harness.bisect.bisection:price"),
    Phase(command=BISECT, name="JSON write", place=">out.json"),
    Phase(command=REFERENCE, name="compute", place="harness.verify.subject_graph:SubjectGraph.run", fresh=("engines/outputs/*",)),  # noqa: E501
    Phase(command=REFERENCE, name="tensors write", place=">.safetensors", locked=True),
    Phase(command=REFERENCE, name="description write", place=">one.json", locked=True),
    Phase(command=BUILD, name="builder process", place="harness.backends.tensorrt.backend:_wait"),
    Phase(command=REPORT, name="page write", place=">report.html"),
    Phase(command=REPORT, name="README write", place=">README.md", fresh=("reports/README.md",)),
    Phase(command=REPORT, name="badge write", place=">badge.json"),
    Phase(command=PYTEST, name="run", place="harness.backends.onnxruntime.apart:ApartSession.run"),
    Phase(command=PYTEST, name="engine write", place=">.engine", fresh=ENGINES, locked=True),
    Phase(command=PYTEST, name="JSON write", place=">out.json"),
)  # fmt: skip


def wait_in(place: str, after: bool, wait: Callable[[], None], *, always: bool = False) -> None:
    """Let this process call ``wait``, once or ``always``, when it comes to a place."""
    reached = False

    def once() -> None:
        nonlocal reached
        if always or not reached:
            reached = True
            wait()

    if place.startswith(">"):
        replace = pathlib.Path.replace

        def replacing(path: pathlib.Path, target: Any) -> pathlib.Path:
            if fnmatch(str(target), f"*{place[1:]}"):
                once()
            return replace(path, target)

        pathlib.Path.replace = replacing  # type: ignore[method-assign]
        return
    module, _, names = place.partition(":")
    owner: Any = importlib.import_module(module)
    *above, name = names.split(".")
    for part in above:
        owner = getattr(owner, part)
    function = getattr(owner, name)

    def waiting(*arguments: Any, **options: Any) -> Any:
        if not after:
            once()
        result = function(*arguments, **options)
        if after:
            once()
        return result

    setattr(owner, name, waiting)
