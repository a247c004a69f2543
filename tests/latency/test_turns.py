"""One run at a time measures on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import locks
from harness.latency import turns
from harness.latency.options import Options


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is measured: the requests of each batch."""
    found: list[Any] = []
    monkeypatch.setattr(turns.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(turns, "_gpu_uuid", lambda: "a1")
    monkeypatch.setattr(turns, "_request", lambda *of: {})
    monkeypatch.setattr(turns, "_measure", lambda requests, options, failed: found.append(requests) or iter(()))
    return found


def take_turns(device: str) -> list[Any]:
    contestants: Any = [Contestant(device)]
    workload: Any = SimpleNamespace(inputs={})
    return list(turns.take_turns(workload, contestants, Options(), rounds=2))


@dataclass(frozen=True)
class Contestant:
    """What is asked of one."""

    device: str
    opened: None = None


def test_a_second_run_on_one_gpu_waits_and_says_for_whom(measured: list[Any], tmp_path: Path):
    with locks.locked(tmp_path / "parity-gpu-a1.lock", "the GPU"), locks.patience(0):
        ((_, error),) = take_turns("cuda")
        assert isinstance(error, locks.Held)
        assert "the GPU is held by process" in str(error)
        assert measured == []
        assert take_turns("cpu") == []
        assert len(measured) == 1
    assert take_turns("cuda") == []
    assert len(measured) == 2
    assert list(tmp_path.glob("*.lock")) == []


def test_a_lock_that_cannot_be_made_keeps_nobody_from_measuring(measured: list[Any], tmp_path: Path):
    (tmp_path / "parity-gpu-a1.lock").mkdir()
    assert take_turns("cuda") == []
    assert len(measured) == 1
