"""What builds and runs engines, by the name typed after ``-b``, and the cache of what was built.

A typed graph goes in; an engine file, and a session that runs it, come out. Importing this imports no framework.
"""

from __future__ import annotations

from harness.backends.base import (
    RUNS_ON_CPU,
    RUNS_ON_GPU,
    Backend,
    BenchSession,
    BoundRun,
    BuildReport,
    BuildRequest,
    CompilesOnLoad,
    ProfileSession,
    Session,
    ShapeRange,
    Starter,
    TapSession,
)
from harness.backends.cache import EngineCache, check_remote, engine_cache
from harness.backends.engine_file import Engine, key_hash
from harness.backends.gpu import lost_gpu
from harness.backends.inspector import Kernel
from harness.backends.registry import BACKENDS, environment
from harness.backends.serialised import run_serialised

__all__ = [
    "BACKENDS",
    "RUNS_ON_CPU",
    "RUNS_ON_GPU",
    "Backend",
    "BenchSession",
    "BoundRun",
    "BuildReport",
    "BuildRequest",
    "CompilesOnLoad",
    "Engine",
    "EngineCache",
    "Kernel",
    "ProfileSession",
    "Session",
    "ShapeRange",
    "Starter",
    "TapSession",
    "check_remote",
    "engine_cache",
    "environment",
    "key_hash",
    "lost_gpu",
    "run_serialised",
]
