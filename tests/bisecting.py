"""Bisections of planted faults: engines with several faults, that show less, or that are interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fake import quiet
from planted import Fault, Healthy, Planted, PlantedBackend, normal, scaled

from harness import Subject, Target
from harness.backends.base import BuildReport, BuildRequest
from harness.records.bisection import Bisection
from harness.subject import Tolerance
from harness.verify.verify import verify

Bisect = Callable[..., tuple[Bisection, PlantedBackend]]
"""What the fixture ``bisected`` gives: a plant and options in, what was found and its backend out."""


def with_faults(*faults: Fault, build: Callable[[], torch.nn.Module] = Healthy, inputs: Any = normal) -> Planted:
    """Return a subject, healthy unless another is given, whose engines have these faults."""
    subject = Subject(
        name="subject", build=lambda: build().eval(), cases={"one": inputs},
        targets=(Target("planted", "fp16"),), weights="random",
    )  # fmt: skip
    return Planted(name="subject", subject=subject, backend="planted", kind="engine", faults=faults, why="a test")


TWO_KERNELS = with_faults(*(Fault(value=name, change=scaled(1.1)) for name in ("linear", "linear_3")))


def without_taps(engine: PlantedBackend) -> None:
    engine.tap_modes = ()


def only_outputs(engine: PlantedBackend) -> None:
    engine.tap_modes = ("outputs",)


def verdict_with(plan: Path | str, plant: Planted, backend: str, tmp_path: Path) -> str:
    """Return what ``parity verify -p plan`` says, in an engine cache of its own."""
    subject = plant.subject
    if plant.limit is not None:
        tolerance = Tolerance(why="the limit of the plant", relative_l2=plant.limit)
        subject = dataclasses.replace(subject, tolerances={"output": tolerance})
    [result] = verify(
        subject, targets=(Target(backend, str(plan)),), cases=("one",), settings=quiet(tmp_path / "afresh")
    )
    return result.verdict


def build_through(engine: PlantedBackend, before: Callable[[int, BuildRequest], None]) -> None:
    """Let ``before(number, request)`` see every build of a backend first, from 1; what it raises comes out."""
    build, count = engine.build, iter(range(1, 1000))

    def watched(request: BuildRequest, path: Path, settings: Any) -> BuildReport:
        before(next(count), request)
        return build(request, path, settings)

    engine.build = watched  # type: ignore[method-assign]


def stop_at(number: int) -> Callable[[PlantedBackend], None]:
    """Return what interrupts a backend in the middle of its build of this number."""

    def interrupt(count: int, request: BuildRequest) -> None:
        if count == number:
            raise KeyboardInterrupt

    return lambda engine: build_through(engine, interrupt)


def require_honest(found: Bisection, whole: Bisection, *, interrupted: bool = True) -> None:
    """Hold what was found until the interruption against what is found without one."""
    assert (found.interrupted, found.complete) == (interrupted, False)
    assert found.kind in ("not_judged", whole.kind)
    assert not (found.kind == "not_judged" and found.region)
    named = {it.value for it in found.diagnosis.culprits} if found.diagnosis is not None else set()
    assert named <= ({it.value for it in whole.diagnosis.culprits} if whole.diagnosis is not None else set())
    assert "no set of values" not in found.finding
    assert "could not be narrowed down" not in found.finding
    assert "no plan passed" not in [advice.indicator for advice in found.advice]
    passed = [set(trial.keep_fp32) for trial in found.trials if trial.passed]
    assert found.plan is None or set(found.plan) in passed
    assert found.kind != "precision" or not found.region or set(found.region) >= set(whole.region)
