"""The state of a GPU during a measurement: clocks, power, temperature, slow-downs, other processes.

All figures come from NVML (``nvidia-ml-py``) and are those of the whole GPU, not of a CUDA context. In containers, on
MIG slices and on virtual GPUs NVML does not support many of them; those are None.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch

POWER_CAP = Sentence("power_cap")
"""The one cause of a slow-down that is normal under load."""
SLOWDOWN_BITS = {
    0x08: Sentence("hardware_slow_down"),
    0x20: Sentence("software_thermal"),
    0x40: Sentence("hardware_thermal"),
    0x80: Sentence("power_brake"),
}
POWER_CAP_BIT = 0x04
# Time spent slowed down since the driver was loaded.
COUNTERS = {
    "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP": POWER_CAP,
    "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN": SLOWDOWN_BITS[0x20],
    "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN": SLOWDOWN_BITS[0x40],
    "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN": SLOWDOWN_BITS[0x80],
}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state of the GPU at one moment; None where the driver has no answer."""

    sm_mhz: float | None = None
    """Clock of the multiprocessors."""
    memory_mhz: float | None = None
    """Clock of the memory."""
    power_w: float | None = None
    """Power drawn by the board."""
    temperature_c: float | None = None
    """Temperature of the chip."""
    slowdowns: tuple[str, ...] = ()
    """Why the hardware runs slower than its requested clock."""
    power_capped: bool = False
    """Whether the power limit reduces the clock, which is normal under load."""


@dataclass(frozen=True, kw_only=True)
class ClockLock:
    """Whether the multiprocessors are held at one clock."""

    mhz: int | None = None
    """The clock; None where it is not locked."""
    problem: str = ""
    """Why a requested clock was not locked, as a sentence; otherwise empty."""


class Gpu:
    """One GPU in NVML. Without NVML every answer is None, and ``reason`` has the cause."""

    def __init__(self, nvml: Any = None, handle: Any = None, *, reason: str = "") -> None:
        self.nvml, self.handle, self.reason = nvml, handle, reason
        self._first_listed: frozenset[int] | None = None

    def snapshot(self) -> Snapshot:
        """Return clocks (MHz), power (W), temperature (Celsius) and the present causes of a slow-down."""
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")  # new, old
        reasons = next((answer for name in names if (answer := self._ask(name)) is not None), 0)
        power = self._ask("nvmlDeviceGetPowerUsage")
        return Snapshot(
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM"),
            power_w=None if power is None else power / 1e3,
            temperature_c=self._ask("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"),
            slowdowns=tuple(word for bit, word in SLOWDOWN_BITS.items() if reasons & bit),
            power_capped=bool(reasons & POWER_CAP_BIT),
        )

    def throttle_counters(self) -> dict[str, int]:
        """Return the time spent slowed down since the driver was loaded, by cause; unsupported causes are missing."""
        fields = {getattr(self.nvml, name): word for name, word in COUNTERS.items() if hasattr(self.nvml, name)}
        values = self._ask("nvmlDeviceGetFieldValues", list(fields)) if fields else None
        return {fields[v.fieldId]: int(v.value.ullVal) for v in values or () if v.nvmlReturn == 0}

    def foreign_processes(self, known: Collection[int] = ()) -> tuple[int, ...]:
        """Return the ids of processes that compute on this GPU and are neither this one nor ``known``.

        In a container the ids may be the host's, which do not include this process's own: then those of the first call
        count as known, and only later ones are foreign (see ``processes_unclear``).
        """
        listed = {process.pid: process for process in self._ask("nvmlDeviceGetComputeRunningProcesses") or ()}
        if own := listed.get(os.getpid()):
            # On a MIG slice the list is that of the whole GPU; 0xFFFFFFFF means no slice.
            same_slice = {pid for pid, process in listed.items() if _slice(process) == _slice(own)}
            return tuple(sorted(same_slice - {os.getpid(), *known}))
        if self._first_listed is None:
            self._first_listed = frozenset(listed)
        return tuple(sorted(listed.keys() - self._first_listed))

    @property
    def processes_unclear(self) -> bool:
        """Whether NVML's list lacks this process's id, and holds none or several others."""
        return self.nvml is not None and self._first_listed is not None and len(self._first_listed) != 1

    def confidential_compute(self) -> bool | None:
        """Return whether confidential computing is on, under which times between CUDA events are not reliable."""
        state = self._call("nvmlSystemGetConfComputeState")
        return None if state is None else bool(state.ccFeature)

    def driver(self) -> str | None:
        """Return the driver's version."""
        answer = self._call("nvmlSystemGetDriverVersion")
        return None if answer is None else str(answer)

    def facts(self) -> dict[str, Any]:
        """Return the facts that determine its speed: power limit (W), ECC, MIG, driver, PCIe, largest clock (MHz)."""
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit")
        return {
            "driver": self.driver(),
            "power_limit_w": None if limit is None else round(limit / 1e3),
            "ecc": _current(self._ask("nvmlDeviceGetEccMode")),
            "mig": _current(self._ask("nvmlDeviceGetMigMode")),
            "persistence": self._ask("nvmlDeviceGetPersistenceMode"),
            "max_sm_mhz": self._ask("nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_SM"),
            "pcie_generation": self._ask("nvmlDeviceGetCurrPcieLinkGeneration"),
            "pcie_width": self._ask("nvmlDeviceGetCurrPcieLinkWidth"),
            "uuid": self._ask("nvmlDeviceGetUUID"),
            "confidential_compute": self.confidential_compute(),
        }

    @contextlib.contextmanager
    def lock_clocks(self, mhz: int | None) -> Iterator[ClockLock]:
        """Lock the clock of the multiprocessors, which needs root; yield whether it is locked, and unlock it."""
        if mhz is None:
            yield ClockLock()
        elif problem := self._problem("nvmlDeviceSetGpuLockedClocks", mhz, mhz):
            yield ClockLock(problem=Sentence("clocks_not_locked", mhz=mhz, problem=problem))
        else:
            try:
                yield ClockLock(mhz=mhz)
            finally:
                self.free_clocks()

    def free_clocks(self) -> None:
        """Unlock the clocks, whichever process locked them; does nothing without permission."""
        self._ask("nvmlDeviceResetGpuLockedClocks")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call("nvmlShutdown")

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Return NVML's answer on this GPU, or None; an argument may be the name of an NVML constant."""
        values = (getattr(self.nvml, word) if isinstance(word, str) and self.nvml else word for word in arguments)
        return self._call(function, self.handle, *values)

    def _call(self, function: str, *arguments: Any) -> Any:
        if self.nvml is None or not hasattr(self.nvml, function):
            return None
        try:
            return getattr(self.nvml, function)(*arguments)
        except self.nvml.NVMLError:
            return None

    def _problem(self, function: str, *arguments: Any) -> str:
        """Call a function that changes the GPU; return why it failed, or an empty string."""
        if self.nvml is None:
            return self.reason
        try:
            getattr(self.nvml, function)(self.handle, *arguments)
        except self.nvml.NVMLError as error:
            return str(error)
        return ""


def open_gpu(device: torch.device) -> Gpu:
    """Return the GPU of a CUDA device, a context manager; for the CPU one whose answers are all None.

    The GPU is found by its PCI bus id: NVML's numbering ignores ``CUDA_VISIBLE_DEVICES``.
    """
    if device.type != "cuda":
        return Gpu(reason=Sentence("no_gpu_there"))
    import torch

    try:
        import pynvml as nvml
    except ImportError:
        return Gpu(reason=Sentence("no_nvml_package"))
    try:
        nvml.nvmlInit()
        return Gpu(nvml, _handle(nvml, torch.cuda.get_device_properties(device)))
    except nvml.NVMLError as error:
        return Gpu(reason=Sentence("nvml_unusable", error=error))


def growth(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[str, ...]:
    """Return the causes whose counter grew between two readings."""
    return tuple(word for word, value in after.items() if value > before.get(word, value))


def _handle(nvml: Any, properties: Any) -> Any:
    if hasattr(properties, "pci_bus_id"):
        address = f"{properties.pci_domain_id:08X}:{properties.pci_bus_id:02X}:{properties.pci_device_id:02X}.0"
        return nvml.nvmlDeviceGetHandleByPciBusId(address)
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")


def _slice(process: Any) -> Any:
    return getattr(process, "gpuInstanceId", None)


def _current(modes: Any) -> bool | None:
    """Return the current mode of NVML's pair (current, pending)."""
    return None if modes is None else bool(modes[0])
