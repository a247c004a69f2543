"""What can be used here: every backend with its version, or why it is missing."""

from __future__ import annotations

from typing import Any

from harness.backends.base import Backend
from harness.backends.registry import BACKENDS
from harness.machine import describe
from harness.settings import Settings


def environment(settings: Settings) -> dict[str, Any]:
    """Return this machine (:func:`harness.machine.describe`) and every backend as plain data.

    Asks every backend, which takes seconds in a fresh process.
    """
    return {**describe(settings), "backends": {name: backend_status(backend) for name, backend in BACKENDS.items()}}


def backend_status(backend: Backend) -> dict[str, str | None]:
    """Return a backend's version, or why it is unavailable, and why it cannot run what it builds."""
    reason = backend.unavailable()
    if reason is not None:
        return {"version": None, "unavailable": reason, "cannot_run": None}
    return {"version": backend.version(), "unavailable": None, "cannot_run": backend.cannot_run()}
