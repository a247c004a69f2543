"""The key that a baseline must share, and what is in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.machine import environment
from harness.machine import identity as module
from harness.machine.identity import key_of, machine

TOLD = {
    "driver": "580.65.06",
    "power_limit_w": 700,
    "ecc": True,
    "mig": False,
    "persistence": 1,
    "max_sm_mhz": 1980,
    "pcie_generation": 5,
    "pcie_width": 16,
    "uuid": "GPU-8f1e",
    "confidential_compute": False,
}
CARD = {
    "name": "NVIDIA H200",
    "major": 9,
    "minor": 0,
    "multi_processor_count": 132,
    "total_memory": 140 * 2**30 + 5_000_000,
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts another GPU into the machine."""

    def put(card: dict[str, Any] | None = None, **told: Any) -> None:
        @contextlib.contextmanager
        def opened(device: torch.device) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(facts=lambda: {**TOLD, **told})

        monkeypatch.setattr(module, "open_gpu", opened)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**{**CARD, **(card or {})})
        )

    put()
    return put


def test_the_system_has_one_key_whatever_the_backend(gpu: Callable[..., None]) -> None:
    rtx, torch_, cpu = machine("rtx", "1.6", True), machine("torch", "2.11", True), machine("torch", "2.11", False)
    assert rtx.key != torch_.key
    assert rtx.system_key == torch_.system_key != cpu.system_key
    assert machine("rtx", "1.6", True, locked_mhz=1500).system_key != rtx.system_key
    gpu(driver="590.1")
    assert machine("rtx", "1.6", True).system_key != rtx.system_key


def test_the_systems_of_this_machine(gpu: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, on_gpu = (machine("rtx", "1.6", place).system_key for place in (False, True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert module.system_keys() == {cpu}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert module.system_keys() == {cpu, on_gpu}


def test_the_same_machine_has_the_same_key(gpu: Callable[..., None]) -> None:
    assert machine("rtx", "1.6", True) == machine("rtx", "1.6", True)
    assert machine("ort-cpu", "1.31", False) == machine("ort-cpu", "1.31", False)


@pytest.mark.parametrize("told", [{"driver": "590.1"}, {"power_limit_w": 350}, {"ecc": False}, {"power_limit_w": None}])
def test_what_changes_the_key_and_not_the_class(gpu: Callable[..., None], told: dict[str, Any]) -> None:
    before = machine("rtx", "1.6", True)
    gpu(**told)
    after = machine("rtx", "1.6", True)
    assert before.key != after.key
    assert before.class_key == after.class_key


@pytest.mark.parametrize(
    "card", [{"name": "NVIDIA H100"}, {"total_memory": 80 * 2**30}, {"multi_processor_count": 114}]
)
def test_what_changes_the_class(gpu: Callable[..., None], card: dict[str, Any]) -> None:
    before = machine("rtx", "1.6", True)
    gpu(card)
    after = machine("rtx", "1.6", True)
    assert before.key != after.key
    assert before.class_key != after.class_key


def test_a_mig_slice_is_another_class(gpu: Callable[..., None]) -> None:
    before = machine("rtx", "1.6", True)
    gpu(mig=True)
    assert machine("rtx", "1.6", True).class_key != before.class_key


@pytest.mark.parametrize("told", [{"uuid": "GPU-77"}, {"persistence": 0}, {"pcie_width": 8}])
def test_what_is_recorded_and_not_hashed(gpu: Callable[..., None], told: dict[str, Any]) -> None:
    before = machine("rtx", "1.6", True)
    gpu(**told)
    after = machine("rtx", "1.6", True)
    assert before.key == after.key
    assert before.facts != after.facts


def test_a_few_megabytes_that_the_driver_keeps_are_no_other_machine(gpu: Callable[..., None]) -> None:
    before = machine("rtx", "1.6", True)
    gpu({"total_memory": 140 * 2**30})
    assert machine("rtx", "1.6", True) == before


def test_backend_version_and_locked_clock_are_in_the_key(gpu: Callable[..., None]) -> None:
    machines = [
        machine("rtx", "1.6", True),
        machine("rtx", "1.7", True),
        machine("trt", "1.6", True),
        machine("rtx", "1.6", True, locked_mhz=1500),
    ]
    assert len({one.key for one in machines}) == 4
    assert len({one.class_key for one in machines}) == 1


def test_on_the_cpu_it_is_the_model_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine("ort-cpu", "1.31", False)
    assert {"cpu", "cores", "threads", "backend", "backend_version"} <= set(here.facts)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    fewer = machine("ort-cpu", "1.31", False)
    assert fewer.facts["cores"] == 1
    assert fewer.class_key == here.class_key
    monkeypatch.setattr(environment, "cpu_name", lambda: "another CPU")
    assert machine("ort-cpu", "1.31", False).class_key != here.class_key


def test_the_host_is_recorded_and_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine("ort-cpu", "1.31", False)
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    there = machine("ort-cpu", "1.31", False)
    assert there.facts["host"] == "elsewhere"
    assert there.key == here.key


def test_a_digest_does_not_depend_on_the_order() -> None:
    assert key_of({"a": 1, "b": None}) == key_of({"b": None, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


@pytest.mark.gpu
def test_a_real_gpu_has_a_key() -> None:
    here = machine("rtx", "1.6", True)
    assert here.facts["gpu"]
    assert here == machine("rtx", "1.6", True)
