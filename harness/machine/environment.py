"""The facts on this machine that ``parity doctor`` and every report show."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine.variables import BUILDING, COMPUTING, TIMED, set_variables
from harness.sentences import Sentence

if TYPE_CHECKING:
    from harness.settings import Settings


PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "trt-parity")
"""Distributions whose versions are in every report; see ``_SAME_MODULE`` for ONNX Runtime on a GPU."""
CHANGED = "+changes"
"""The end of a commit when the work tree is not clean."""
_SAME_MODULE = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "nvidia-cublas": ("nvidia-cublas", "nvidia-cublas-cu13", "nvidia-cublas-cu12"),
}
_CONTAINERS = {"/.dockerenv": "Docker", "/run/.containerenv": "Podman", "/.singularity.d": "Apptainer"}
"""What lies in a container of each kind."""


def describe(settings: Settings) -> dict[str, Any]:
    """Return this machine as plain data: GPUs, driver, versions and folders. Imports torch."""
    import torch

    gpus = _gpus()
    return {
        "gpus": gpus,
        "no_gpu": "" if gpus else _why_no_gpu(),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": _cudnn(),
        "cublas": installed_version("nvidia-cublas") or "",
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "container": _container(),
        "platform": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "variables": set_variables((*BUILDING, *COMPUTING, *TIMED)),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "commit": commit(settings.root),
        "engines": os.path.realpath(settings.engines),
        "references": os.path.realpath(settings.references),
        "history": os.path.realpath(settings.history),
    }


def commit(folder: Path) -> str:
    """Return the commit of a git work tree, with ``CHANGED`` when it is not clean; empty outside git."""
    head = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    if not head:
        return ""
    changed = _output("git", "-C", str(folder), "status", "--porcelain")
    return head + CHANGED if changed else head


def _gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [
        {"name": one.name, "memory_bytes": one.total_memory, "compute_capability": f"{one.major}.{one.minor}"}
        for one in found
    ]


def _why_no_gpu() -> str:
    import torch

    if torch.version.cuda is None:
        return Sentence("torch_without_cuda")
    if not _driver():
        return Sentence("no_driver")
    return Sentence("torch_no_device")


def _driver() -> str:
    lines = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return lines[0].strip() if lines else ""


def _cudnn() -> str:
    """Return the version of cuDNN that PyTorch has, ``9.12.0``; empty without one."""
    import torch

    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if version is None:
        return ""
    scale = 10_000 if version >= 90_000 else 1000
    return f"{version // scale}.{version % scale // 100}.{version % 100}"


def _container() -> str:
    """Return the container that this runs in, as NVIDIA's images or its kind name it; empty where none is known."""
    image = [os.environ.get(name, "") for name in ("NVIDIA_PRODUCT_NAME", "NVIDIA_PYTORCH_VERSION")]
    named = " ".join(filter(None, image))
    return named or next((kind for path, kind in _CONTAINERS.items() if Path(path).exists()), "")


def user_name() -> str:
    """Return the user's name; empty where the system does not know it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def cpu_name() -> str:
    """Return the CPU's model, as the system calls it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution without importing it; None where there is none."""
    for distribution in _SAME_MODULE.get(name, (name,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _output(program: str, *arguments: str) -> str:
    """Return the output of a program; empty where it is missing, fails or takes longer than ten seconds."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
