"""Whether there is a GPU that PyTorch can use, and its name."""

from __future__ import annotations


def no_gpu() -> str | None:
    """Return why PyTorch has no GPU here, or None when it has one."""
    import torch

    return None if torch.cuda.is_available() else "no GPU"


def gpu_name() -> str:
    """Return the current GPU's name and compute capability, or an empty string."""
    if no_gpu():
        return ""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} (compute capability {major}.{minor})"
