"""The version of the code that shapes an engine or a reference: part of the key of everything that is kept."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SHAPES_NOTHING = frozenset(
    {
        "__init__.py", "__main__.py", "arguments.py", "bisect", "checks.py", "cli", "compare", "discovery.py",
        "errors.py", "files.py", "hackathon", "history", "junit.py", "latency", "layers", "ledger", "machine",
        "metrics", "plugin.py", "pytest_attempts.py", "pytest_collector.py", "pytest_ledger.py", "pytest_options.py",
        "pytest_shards.py", "pytest_state.py", "pytest_workers.py", "records", "report", "settings.py", "shards",
        "timing", "watching.py",
    }
)  # fmt: skip
"""What selects, judges, times and reports. All else is hashed, a new package too: a needless build is no fault."""
PACKAGES = ("torch", "torchvision", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")
"""What traces, exports, types and computes a graph; a backend names its own version."""


@cache
def code_sha256(package: Path = Path(__file__).parent) -> str:
    """Return a hash of the names and the source of all modules that shape an engine or a reference."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in SHAPES_NOTHING:
            source = path.read_bytes()
            digest.update(f"{name.as_posix()}:{len(source)};".encode() + source)
    return digest.hexdigest()


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of PACKAGES that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
