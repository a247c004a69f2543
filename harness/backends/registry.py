"""Every backend there is, by the name typed after ``-b``, and what of them can be used here."""

from __future__ import annotations

from typing import Any

from harness.backends.base import Backend
from harness.backends.onnxruntime import OnnxRuntimeBackend
from harness.backends.remote import shown
from harness.backends.tensorrt import TensorRTBackend
from harness.backends.torch import TorchBackend
from harness.errors import install_hint
from harness.machine import describe
from harness.settings import Settings

BACKENDS: dict[str, Backend] = {
    "trt": TensorRTBackend(
        "trt",
        modules=("tensorrt", "tensorrt_bindings"),
        install=install_hint("trt"),
        builds_without_gpu=False,
    ),
    "rtx": TensorRTBackend(
        "rtx",
        modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
        install=install_hint("rtx"),
        builds_without_gpu=True,
    ),
    "ort-cpu": OnnxRuntimeBackend("ort-cpu", device="cpu"),
    "ort-cuda": OnnxRuntimeBackend("ort-cuda", device="cuda"),
    "torch": TorchBackend(),
}
"""Every backend there is, by name."""


def environment(settings: Settings) -> dict[str, Any]:
    """Return this machine (:func:`harness.machine.describe`) and every backend as plain data.

    Asks every backend, which takes seconds in a fresh process.
    """
    return {
        **describe(settings),
        "engines_remote": shown(settings.engines_remote),
        "engines_remote_mode": settings.engines_remote_mode if settings.engines_remote else "",
        "backends": {name: backend_status(backend) for name, backend in BACKENDS.items()},
    }


def backend_status(backend: Backend) -> dict[str, str | None]:
    """Return a backend's version, or why it is unavailable, and why it cannot run what it builds."""
    reason = backend.unavailable()
    if reason is not None:
        return {"version": None, "unavailable": reason, "cannot_run": None}
    return {"version": backend.version(), "unavailable": None, "cannot_run": backend.cannot_run()}
