"""What is here, as plain text: the machine, its backends, and the subjects of the suites."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from harness.report.facts import Json
from harness.report.text.results import source_words
from harness.report.text.tables import ascii_safe, wrapped


def backend_lines(environment: Json) -> list[str]:
    """Return one line per backend: its version, or why it cannot be used here."""
    backends = environment["backends"]
    width = max(map(len, backends), default=0)
    return [ascii_safe(f"{name:<{width}}  {_backend(backend)}") for name, backend in backends.items()]


def gpu_words(gpu: Json) -> str:
    """Return ``NVIDIA H200, 139.8 GiB, compute capability 9.0``."""
    memory = gpu.get("memory_bytes")
    size = f", {memory / 2**30:.1f} GiB" if isinstance(memory, int) else ""
    return f"{gpu.get('name', '?')}{size}, compute capability {gpu.get('compute_capability', '?')}"


def machine_text(environment: Json) -> str:
    """Return what ``parity doctor`` prints."""
    rows = {
        "GPU": "; ".join(map(gpu_words, environment["gpus"])) or environment["no_gpu"],
        "driver": environment["driver"] or "none",
        "CUDA": environment["cuda"] or "none (this torch has no CUDA)",
        "CPU": f"{environment['cpu']}, {environment['cpu_count']} cores",
        "system": environment["platform"],
        "python": environment["python"],
        "variables": _variables(environment) or "none",
        **{name: version or "not installed" for name, version in environment["packages"].items()},
        "commit": environment["commit"] or "none",
        "engines": environment["engines"],
        "shared": _shared(environment) or "no engine cache shared with other runners (PARITY_ENGINES_REMOTE)",
        "references": environment["references"],
        "history": environment.get("history", ""),
    }
    lines = ["machine"]
    for key, text in rows.items():
        lines += wrapped(f"  {key:<12}", text)
    lines.append("backends")
    lines += [f"  {line}" for line in backend_lines(environment)]
    return ascii_safe("\n".join(lines))


def subjects_table(rows: Sequence[Json]) -> str:
    """Return the list of subjects: each with its cases, targets and weights, or why it cannot be loaded."""
    lines = []
    for row in rows:
        lines.append(f"{row['name']}  ({row['path']})")
        if row.get("problem"):
            lines += wrapped("  cannot be loaded: ", row["problem"])
            continue
        lines += wrapped("  cases:   ", ", ".join(row["cases"]))
        lines += wrapped("  targets: ", ", ".join(row["targets"]))
        lines += wrapped("  weights: ", source_words(row["weights"], row["weights_source"]))
        lines += wrapped("  inputs:  ", row["inputs"])
        lines += wrapped("  owner:   ", row["owner"]) if row.get("owner") else []
    return ascii_safe("\n".join(lines))


def _variables(environment: Json) -> str:
    return shlex.join(f"{name}={value}" for name, value in environment.get("variables", {}).items())


def _shared(environment: Json) -> str:
    """Return which engine cache is shared with other runners; empty for none."""
    name = environment.get("engines_remote", "")
    return f"{name}: {environment.get('engines_remote_mode', '')}" if name else ""


def _backend(backend: Json) -> str:
    if backend["unavailable"]:
        return f"unavailable: {backend['unavailable']}"
    if backend["cannot_run"]:
        return f"{backend['version']}, builds but cannot run: {backend['cannot_run']}"
    return str(backend["version"])
