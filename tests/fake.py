"""A backend that runs the module itself, and can be told to misbehave: the harness must never call that green."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch

from harness import Settings, Subject, Target
from harness.backends.base import BuildReport, BuildRequest

Tensors = dict[str, torch.Tensor]
Fault = Callable[[Tensors, Mapping[str, torch.Tensor], int], Tensors]


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
        engine.write_bytes(b"fake!")
        return BuildReport(layers=7)

    def load(self, engine: Path) -> FakeSession:
        return FakeSession(self)


class FakeSession:
    """Runs the module; the outputs pass through the backend's fault with the number of the run."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend, self.runs = backend, 0
        self.module = build()

    def run(self, given: Mapping[str, torch.Tensor]) -> Tensors:
        self.runs += 1
        with torch.no_grad():
            outputs = {name: tensor.half().float() for name, tensor in self.module(given["x"]).items()}
        return self.backend.fault(outputs, given, self.runs)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        self.backend.open_sessions += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.backend.open_sessions -= 1
