"""Planted faults as suites of the working folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted import PLANTED, PlantedBackend, install

LIVE = """
import torch
from harness import Subject, Target


class Live(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, training=True)


SUBJECT = Subject(
    name="live", build=lambda: Live().eval(), cases={"one": lambda: {"x": torch.ones(64)}},
    targets=(Target("planted", "fp16"),), weights="random",
)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder with ``suites`` the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "test_live.py").write_text(LIVE)
    # What a plan costs on this machine is not what is tested here.
    monkeypatch.setattr("harness.timing.median.WARM_UP_S", 0.0)
    monkeypatch.setattr("harness.timing.median.MEASURE_S", 0.01)
    return tmp_path


@pytest.fixture
def plant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that installs a plant and gives it a suite."""

    def plant(name: str) -> PlantedBackend:
        (folder / "suites" / f"test_{name}.py").write_text(
            f"import planted\nSUBJECT = planted.PLANTED[{name!r}].subject\n"
        )
        return install(monkeypatch, PLANTED[name])

    return plant
