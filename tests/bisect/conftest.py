"""Planted faults bisected: what these tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bisecting import Bisect
from fake import quiet
from planted import PLANTED, Planted, PlantedBackend, install

from harness import Target
from harness.bisect.bisection import bisect
from harness.records.bisection import Bisection


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch):
    """Time engines for moments: what a plan costs on this machine is not what is tested here."""
    monkeypatch.setattr("harness.timing.median.WARM_UP_S", 0.0)
    monkeypatch.setattr("harness.timing.median.MEASURE_S", 0.01)


@pytest.fixture
def bisected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bisect:
    """Return a function that installs a plant, bisects it and returns what was found and the backend.

    Every call has the same engine cache, plan file ``found/plan.toml`` and reproducer folder ``reproducer``.
    """

    def bisected(
        plant: Planted, *, backend: str = "planted", precision: str | None = None, **options: Any
    ) -> tuple[Bisection, PlantedBackend]:
        engine = install(monkeypatch, plant)
        prepare_engine = options.pop("prepare_engine", None)
        if prepare_engine is not None:
            prepare_engine(engine)
        target = Target(backend, precision or plant.precision)
        files = {"plan_file": tmp_path / "found" / "plan.toml", "reproducer": tmp_path / "reproducer"}
        found = bisect(plant.subject, target, "one", quiet(tmp_path), **{"limit": plant.limit, **files, **options})
        assert engine.open_sessions == 0, "every engine is freed"
        return found, engine

    return bisected


@pytest.fixture(scope="session")
def said() -> list[str]:
    """What was said while the plant ``overflow`` was bisected."""
    return []


@pytest.fixture(scope="session")
def overflow(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Bisection:
    """What is found for the plant of that name; the plan's file is there to be read."""
    folder = tmp_path_factory.mktemp("overflow")
    settings = quiet(folder, progress=said.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.timing.median.WARM_UP_S", 0.0)
        patch.setattr("harness.timing.median.MEASURE_S", 0.01)
        install(patch, PLANTED["overflow"])
        target = Target("planted", "fp16")
        return bisect(PLANTED["overflow"].subject, target, "one", settings, plan_file=folder / "plan.toml")
