"""Which GPU a process has of those of its machine: one each, chosen before CUDA starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from harness.errors import UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_ORDER = "CUDA_DEVICE_ORDER"


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that CUDA may use: those of CUDA_VISIBLE_DEVICES, else the numbers that nvidia-smi shows."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip())
    try:
        import pynvml as nvml
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        return tuple(str(number) for number in range(nvml.nvmlDeviceGetCount()))
    finally:
        nvml.nvmlShutdown()


def gpu_for(place: int, gpus: Sequence[str] | None = None) -> dict[str, str]:
    """Return the variables that give the process at a place, from 0, its GPU: the places go round the GPUs.

    ``gpus`` are those to use, by default all where there are several; nothing changes where there are not. Raises
    UsageError for one that CUDA_VISIBLE_DEVICES hides.
    """
    visible = visible_gpus()
    if gpus is None and len(visible) < 2:
        return {}
    hidden = [name for name in gpus or () if VISIBLE in os.environ and name not in visible]
    if hidden:
        raise UsageError(f"--gpus {hidden[0]} is not among {VISIBLE}={os.environ[VISIBLE]}; give one of those")
    chosen = gpus or visible
    # CUDA's own order is by speed; what CUDA_VISIBLE_DEVICES names already goes by the order that is set.
    order = {} if VISIBLE in os.environ or _ORDER in os.environ else {_ORDER: "PCI_BUS_ID"}
    return {VISIBLE: chosen[place % len(chosen)], **order}


def take_gpu(variables: dict[str, str]) -> None:
    """Give this process its GPU. Raises UsageError where CUDA has started already, and sees others."""
    os.environ.update(variables)
    torch = sys.modules.get("torch")
    count = getattr(getattr(torch, "_C", None), "_cuda_getDeviceCount", None)
    if variables and count is not None and count() > 1:
        given = " ".join(f"{name}={value}" for name, value in variables.items())
        raise UsageError(f"a conftest.py or a plugin uses CUDA before --gpus can choose; set {given} before pytest")
