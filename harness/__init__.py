"""Proves how far a TensorRT engine is from PyTorch FP32, and where the distance comes from.

The names a suite needs can be imported from here. They load on first use: ``import harness`` imports neither torch nor
any backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.errors import EngineFailed, EngineRefused, NotJudged, ParityError, UsageError
    from harness.records import MetricResult, OutputResult, Result
    from harness.settings import Settings
    from harness.subject import Subject, Target, Tolerance, targets
    from harness.verify import OpenEngine, open_engine

__all__ = [
    "EngineFailed",
    "EngineRefused",
    "MetricResult",
    "NotJudged",
    "OpenEngine",
    "OutputResult",
    "ParityError",
    "Result",
    "Settings",
    "Subject",
    "Target",
    "Tolerance",
    "UsageError",
    "open_engine",
    "targets",
]

_HOMES = {
    "harness.errors": ("EngineFailed", "EngineRefused", "NotJudged", "ParityError", "UsageError"),
    "harness.records": ("MetricResult", "OutputResult", "Result"),
    "harness.settings": ("Settings",),
    "harness.subject": ("Subject", "Target", "Tolerance", "targets"),
    "harness.verify": ("OpenEngine", "open_engine"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
