"""NVML's answers as data, and that a question it does not answer is None."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.machine.gpu import Gpu, Snapshot, growth, open_gpu


class NVMLError(Exception):
    pass


class FakeNvml:
    """The module pynvml with one GPU; the questions in ``silent`` are not supported."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP = 74
    NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN = 270

    def __init__(self, *, silent: bool = False, processes: dict[int, int] | None = None, reasons: int = 0) -> None:
        self.silent, self.processes, self.reasons = silent, processes or {}, reasons
        self.calls: list[tuple[Any, ...]] = []
        self.refused = ""

    def _tell(self, value: Any) -> Any:
        if self.silent:
            raise NVMLError("Not Supported")
        return value

    def nvmlInit(self) -> None:
        self.calls.append(("init",))

    def nvmlShutdown(self) -> None:
        self.calls.append(("shutdown",))

    def nvmlDeviceGetHandleByPciBusId(self, address: str) -> str:
        return f"handle of {address}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return f"handle of {uuid}"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return self._tell({1: 1980, 2: 2619}[kind])

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return self._tell(312_500)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return self._tell(41)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return self._tell(self.reasons)

    def nvmlDeviceGetFieldValues(self, handle: str, fields: list[int]) -> list[SimpleNamespace]:
        def answer(field: int) -> SimpleNamespace:
            known = field == 74
            return SimpleNamespace(
                fieldId=field, nvmlReturn=0 if known else 3, value=SimpleNamespace(ullVal=900 if known else 1)
            )

        return self._tell([answer(field) for field in fields])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return self._tell([SimpleNamespace(pid=pid, gpuInstanceId=part) for pid, part in self.processes.items()])

    def nvmlSystemGetConfComputeState(self) -> SimpleNamespace:
        return self._tell(SimpleNamespace(ccFeature=0))

    def nvmlSystemGetDriverVersion(self) -> str:
        return self._tell("580.65.06")

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return self._tell(700_000)

    def nvmlDeviceGetEccMode(self, handle: str) -> list[int]:
        return self._tell([1, 1])

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        return self._tell([0, 1])

    def nvmlDeviceSetGpuLockedClocks(self, handle: str, low: int, high: int) -> None:
        if self.refused:
            raise NVMLError(self.refused)
        self.calls.append(("lock", low, high))

    def nvmlDeviceResetGpuLockedClocks(self, handle: str) -> None:
        self.calls.append(("reset",))


def gpu(**options: Any) -> Gpu:
    return Gpu(FakeNvml(**options), "handle")


def test_a_snapshot_has_units() -> None:
    assert gpu().snapshot() == Snapshot(sm_mhz=1980, memory_mhz=2619, power_w=312.5, temperature_c=41)


@pytest.mark.parametrize(
    ("reasons", "slowdowns", "capped"),
    [
        (0x1, (), False),
        (0x4, (), True),
        (0x8 | 0x4, ("hardware slow-down",), True),
        (0x20, ("software thermal slow-down",), False),
        (0x40, ("hardware thermal slow-down",), False),
        (0x80, ("power brake",), False),
    ],
)
def test_the_reasons_of_a_clock(reasons: int, slowdowns: tuple[str, ...], capped: bool) -> None:
    seen = gpu(reasons=reasons).snapshot()
    assert (seen.slowdowns, seen.power_capped) == (slowdowns, capped)


class OldNvml(FakeNvml):
    """Its driver does not know the newer name of a function."""

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        raise NVMLError("Function Not Found")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return 0x80


def test_an_older_nvml_calls_the_reasons_by_another_name() -> None:
    assert Gpu(OldNvml(), "handle").snapshot().slowdowns == ("power brake",)


def test_counters_that_are_told() -> None:
    assert gpu().throttle_counters() == {"power cap": 900}


def test_what_grew_between_two_readings() -> None:
    assert growth({"a": 1, "b": 5}, {"a": 2, "b": 5, "new": 9}) == ("a",)


def test_a_driver_that_tells_nothing() -> None:
    silent = gpu(silent=True)
    assert silent.snapshot() == Snapshot()
    assert silent.throttle_counters() == {}
    assert silent.foreign_processes() == ()
    assert silent.confidential_compute() is None
    assert set(silent.facts().values()) == {None}


def test_facts() -> None:
    facts = gpu().facts()
    assert (facts["driver"], facts["power_limit_w"], facts["ecc"], facts["mig"]) == ("580.65.06", 700, True, False)
    assert facts["confidential_compute"] is False
    assert facts["uuid"] is None  # this NVML has no such function


# Processes


def test_processes_that_are_neither_own_nor_known() -> None:
    here = gpu(processes={os.getpid(): 1, 31: 1, 32: 1})
    assert here.foreign_processes({31}) == (32,)
    assert not here.processes_unclear


def test_another_slice_of_the_gpu_is_another_gpu() -> None:
    assert gpu(processes={os.getpid(): 1, 31: 2, 32: 1}).foreign_processes() == (32,)


def test_in_a_container_only_newcomers_are_foreign() -> None:
    nvml = FakeNvml(processes={10_000_001: 0, 10_000_002: 0})
    here = Gpu(nvml, "handle")
    assert here.foreign_processes() == ()
    assert here.processes_unclear
    nvml.processes[10_000_003] = 0
    assert here.foreign_processes() == (10_000_003,)


def test_the_only_process_is_this_one_whatever_its_id() -> None:
    here = gpu(processes={10_000_001: 0})
    assert here.foreign_processes() == ()
    assert not here.processes_unclear


# Clocks


def test_clocks_are_locked_and_unlocked() -> None:
    nvml = FakeNvml()
    with Gpu(nvml, "handle").lock_clocks(1500) as lock:
        assert (lock.mhz, lock.problem) == (1500, "")
        assert nvml.calls == [("lock", 1500, 1500)]
    assert nvml.calls[-1] == ("reset",)


def test_clocks_are_unlocked_after_an_error() -> None:
    nvml = FakeNvml()
    with pytest.raises(KeyboardInterrupt), Gpu(nvml, "handle").lock_clocks(1500):
        raise KeyboardInterrupt
    assert nvml.calls[-1] == ("reset",)


def test_clocks_that_may_not_be_locked() -> None:
    nvml = FakeNvml()
    nvml.refused = "Insufficient Permissions"
    with Gpu(nvml, "handle").lock_clocks(1500) as lock:
        assert lock.mhz is None
        assert "1500 MHz: Insufficient Permissions" in lock.problem
    assert nvml.calls == []


def test_clocks_that_another_process_locked_are_unlocked() -> None:
    nvml = FakeNvml()
    Gpu(nvml, "handle").free_clocks()
    assert nvml.calls == [("reset",)]
    Gpu(reason="there is no GPU").free_clocks()


def test_clocks_that_nobody_wants_locked() -> None:
    nvml = FakeNvml()
    with Gpu(nvml, "handle").lock_clocks(None) as lock:
        assert (lock.mhz, lock.problem) == (None, "")
    assert nvml.calls == []


# Opening


def properties(**fields: Any) -> Any:
    return lambda device: SimpleNamespace(**fields)


def test_a_gpu_is_found_by_its_pci_address(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", properties(pci_domain_id=0, pci_bus_id=0x1B, pci_device_id=0)
    )
    with open_gpu(torch.device("cuda")) as found:
        assert found.handle == "handle of 00000000:1B:00.0"
    assert nvml.calls == [("init",), ("shutdown",)]


def test_or_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties(uuid="8f1e"))
    with open_gpu(torch.device("cuda")) as found:
        assert found.handle == "handle of GPU-8f1e"


def test_without_the_package_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with open_gpu(torch.device("cuda")) as found, found.lock_clocks(1500) as lock:
        assert "pip install nvidia-ml-py" in found.reason
        assert found.snapshot() == Snapshot()
        assert "pip install nvidia-ml-py" in lock.problem


def test_a_driver_that_nvml_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()

    def fail() -> None:
        raise NVMLError("NVML Shared Library Not Found")

    nvml.nvmlInit = fail  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with open_gpu(torch.device("cuda")) as found:
        assert found.reason == "NVML cannot be used: NVML Shared Library Not Found"


def test_the_cpu_has_no_gpu() -> None:
    with open_gpu(torch.device("cpu")) as found:
        assert found.reason == "there is no GPU"
        assert found.foreign_processes() == ()
        assert set(found.facts().values()) == {None}
        assert not found.processes_unclear


@pytest.mark.gpu
def test_a_real_gpu_tells_its_clock() -> None:
    torch.zeros(1, device="cuda")
    with open_gpu(torch.device("cuda")) as found:
        assert found.reason == ""
        seen = found.snapshot()
        assert 100 < (seen.sm_mhz or 0) < 5000
        assert found.facts()["driver"]
        assert os.getpid() not in found.foreign_processes()
