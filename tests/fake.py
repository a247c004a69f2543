"""What the tests pretend: a backend that can be told to misbehave, results of a command, a project with engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
import torch

from harness import Settings, Subject, Target
from harness.backends.base import BuildReport, BuildRequest

Tensors = dict[str, torch.Tensor]
Fault = Callable[[Tensors, Mapping[str, torch.Tensor], int], Tensors]
INI = """
[pytest]
addopts = --strict-markers -p no:randomly -p no:cacheprovider -p no:hypothesispytest -p no:benchmark
"""
CONFTEST = """
import contextlib
import sys
import types
from pathlib import Path

import pytest

import harness
from harness.errors import UsageError
from harness.records import OutputResult, PartResult, Result

pytest_plugins = ["harness.plugin"]


def log(line):
    with Path("log.txt").open("a") as file:
        file.write(line + "\\n")


class FakeTarget:
    def __init__(self, run, target):
        self.run, self.target, self.outcomes = run, target, {}


def verify_case(opened, case):
    if case not in opened.outcomes:
        opened.outcomes[case] = outcome(opened, case)
    return opened.outcomes[case]


def outcome(opened, case):
    verdict, reason, *figures = opened.run.subject.options.get(f"{opened.target}-{case}", ("pass", "fine"))
    log(f"judge {opened.target} {case} {verdict}")
    if verdict == "usage":
        raise UsageError(reason)
    parts = tuple(
        PartResult(kind="whole", figure="relative_l2", error=times * 1e-3, floor=3e-4, allowed=1e-3, elements=2)
        for times in figures
    )
    outputs = () if verdict == "not_judged" else (
        OutputResult(name="y", verdict=verdict, reason=reason, parts=parts),
    )
    result = Result(
        subject=opened.run.subject.name, case=case, backend=opened.target.backend, verdict=verdict, reason=reason,
        precision=opened.target.precision_name, outputs=outputs, owner=opened.run.subject.owner,
        source=opened.run.subject.source,
        failure="wrong_answer" if verdict == "fail" else "",
    )
    return FakeOutcome(result)


class FakeOutcome:  # its tensors are made when a test asks for them: importing torch takes a subprocess seconds
    def __init__(self, result):
        self.result = result

    @property
    def repeats(self):
        import torch

        return None if self.expected is None else types.SimpleNamespace(worst={"y": torch.tensor([1.0, 2.5])})

    @property
    def expected(self):
        import torch

        return None if self.result.verdict == "not_judged" else {"y": torch.tensor([1.0, 2.0])}


class FakeRun:
    def __init__(self, subject, settings):
        self.subject, self.settings = subject, settings
        log(f"run {subject.name} cache={settings.engine_cache} update={settings.update_references} {settings.engines}")

    @contextlib.contextmanager
    def target(self, target):
        log(f"open {target}")
        yield FakeTarget(self, target)
        log(f"close {target}")


@pytest.fixture(scope="session", autouse=True)
def fake_verify():
    with pytest.MonkeyPatch.context() as patch:
        # The real one imports torch, which takes a subprocess seconds.
        stub = types.SimpleNamespace(Run=FakeRun, verify_case=verify_case)
        patch.setitem(sys.modules, "harness.verify", stub)
        patch.setattr(harness, "verify", stub, raising=False)
        yield
"""
"""The conftest.py of a project whose engines are pretended.

An option ``target-case`` of a subject is the verdict that its engine gets, with the reason, and how many times its
limit it loses where that is to be known. What is asked for is written to log.txt.
"""
NO_MACHINE = """

import harness.backends

status = {"version": None, "unavailable": "not asked", "cannot_run": None}
harness.backends.environment = lambda settings: {"gpus": [], "backends": {"ort-cpu": status}}
"""
"""What is added to it for a subprocess that need not ask every backend, which imports torch."""


class TwoHeads(torch.nn.Module):
    """A small network with two outputs of one shape, so that they can be swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32))
        self.left, self.right = torch.nn.Linear(32, 16), torch.nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> Tensors:
        hidden = self.body(x)
        return {"left": self.left(hidden), "right": self.right(hidden)}


def build() -> torch.nn.Module:
    """Return the network with seeded weights."""
    torch.manual_seed(3)
    return TwoHeads().eval()


def inputs(seed: int = 0) -> Tensors:
    """Return seeded inputs, float32 [8, 16]."""
    return {"x": torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return a seeded picture, float32 in 0..1."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return a seeded tensor, float32, normally distributed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def giving(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, *steps: Any) -> list[dict[str, Any]]:
    """Replace a module's generator function by one that yields ``steps``, and return what it is called with.

    A step that is an exception is raised.
    """
    calls: list[dict[str, Any]] = []

    def generator(subject: Any, **options: Any) -> Iterator[Any]:
        calls.append({"subject": subject, **options})
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            yield step

    monkeypatch.setattr(module, name, generator)
    return calls


def subject(**changes: Any) -> Subject:
    """Return the subject, with changes."""
    fields: dict[str, Any] = {
        "name": "two-heads",
        "build": build,
        "cases": {"one": inputs, "two": lambda: inputs(1)},
        "targets": (Target("fake", "fp16"),),
        "weights": "random",
    }
    return Subject(**{**fields, **changes})


def quiet(tmp_path: Path, **changes: Any) -> Settings:
    """Return settings whose folders lie under ``tmp_path`` and that print nothing."""
    folders = {"engines": tmp_path / "engines", "references": tmp_path / "references"}
    return Settings(**{**folders, "device": "cpu", "progress": lambda message: None, **changes})


class FakeBackend:
    """Builds a file of five bytes and runs :class:`TwoHeads` rounded to FP16, through ``fault``."""

    name = "fake"
    precisions: tuple[str, ...] = ("fp32", "fp16")
    tap_modes: tuple[str, ...] = ()
    content = b"fake!"
    """Of the engine's file."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault or (lambda outputs, given, run: outputs)
        self.builds = 0
        self.open_sessions = 0

    def unavailable(self) -> str | None:
        return None

    def cannot_run(self) -> str | None:
        return None

    def version(self) -> str:
        return "1"

    def cache_key(self) -> Mapping[str, str]:
        return {"version": "1"}

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        self.builds += 1
        engine.write_bytes(self.content)
        return BuildReport(layers=7)

    def load(self, engine: Path) -> FakeSession:
        return FakeSession(self)


class CountedSession:
    """A session that its backend counts while it is open."""

    backend: FakeBackend

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        self.backend.open_sessions += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.backend.open_sessions -= 1


class FakeSession(CountedSession):
    """Runs the module; the outputs pass through the backend's fault with the number of the run."""

    layers = None

    def __init__(self, backend: FakeBackend) -> None:
        self.backend, self.runs = backend, 0
        self.module = build()

    def run(self, given: Mapping[str, torch.Tensor]) -> Tensors:
        self.runs += 1
        with torch.no_grad():
            outputs = {name: tensor.half().float() for name, tensor in self.module(given["x"]).items()}
        return self.backend.fault(outputs, given, self.runs)


class ModuleBackend(FakeBackend):
    """Runs a module in a dtype on the CPU, through ``fault``; float outputs and inputs are float32."""

    precisions = ("fp32", "fp16", "bf16")

    def __init__(self, make: Callable[[], torch.nn.Module], dtype: torch.dtype, fault: Fault | None = None) -> None:
        super().__init__(fault)
        self.module, self.dtype = make().to(dtype), dtype

    def load(self, engine: Path) -> ModuleSession:
        return ModuleSession(self)


class ModuleSession(CountedSession):
    """A session of :class:`ModuleBackend`."""

    layers = None

    def __init__(self, backend: ModuleBackend) -> None:
        self.backend, self.runs = backend, 0

    def run(self, given: Mapping[str, torch.Tensor]) -> Tensors:
        self.runs += 1
        inputs = {
            name: tensor.to(self.backend.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in given.items()
        }
        with torch.no_grad():
            outputs = self.backend.module(**inputs)
        outputs = {name: t.float() if t.is_floating_point() else t.clone() for name, t in outputs.items()}
        return self.backend.fault(outputs, given, self.runs)
