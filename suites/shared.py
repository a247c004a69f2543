"""What suites share: weights from a folder that a variable names, else random with a fixed seed; sizes; photographs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness import NotJudged, UsageError
from harness.errors import first_line, install_hint, unknown_name

SEED = 0
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")
"""Of scikit-image's wheel."""


def checkpoint(variable: str) -> Path | None:
    """Return the folder that an environment variable names, or None."""
    folder = os.environ.get(variable)
    return Path(folder) if folder else None


def weights_words(variable: str) -> dict[str, Any]:
    """Return ``weights`` and ``weights_source`` as a subject declares them."""
    folder = checkpoint(variable)
    if folder is not None:
        return {"weights": "trained", "weights_source": f"checkpoint {folder.name} ({variable})"}
    return {"weights": "random", "weights_source": f"seed {SEED}, what starts at zero drawn too"}


def loaded(kind: Any, folder: Path, variable: str) -> Any:
    """Return a network, or a tokenizer, of a checkpoint's folder. Raises NotJudged where it cannot be loaded."""
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise NotJudged(f"{variable}: {folder} cannot be loaded: {first_line(error)}") from error


def drawn(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Make a module in eval mode with PyTorch's own random weights in every layer, and no parameter of zeros.

    The small deviation that libraries draw with for training lets nothing of an input reach the outputs, and biases and
    positions start at zero: both hide errors.
    """
    torch.manual_seed(SEED)  # what is drawn when it is made, too: buffers stay as they are
    module = make()
    for child in module.modules():
        if callable(reset := getattr(child, "reset_parameters", None)):
            reset()
    generator = torch.Generator().manual_seed(SEED + 1)
    for parameter in module.parameters():
        if not bool(parameter.any()):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return module.eval()


def noise(*shape: int, seed: int) -> torch.Tensor:
    """Return seeded noise, drawn on the CPU: a seed means the same everywhere."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def asked_size(variable: str) -> str:
    """Return ``full`` or ``small`` as an environment variable says; without it full where there is a GPU.

    Raises UsageError for another name.
    """
    name = os.environ.get(variable) or ("full" if torch.cuda.is_available() else "small")
    if name not in ("full", "small"):
        raise unknown_name(variable, name, ("full", "small"))
    return name


def photographs(count: int, side: int) -> dict[str, Any]:
    """Return so many of ``PHOTOGRAPHS`` by name, uint8 [side, side, 3].

    Raises UsageError for more than there are, NotJudged when a package is missing.
    """
    if count > len(PHOTOGRAPHS):
        raise UsageError(f"there are {len(PHOTOGRAPHS)} photographs; ask for no more")
    try:
        import numpy as np
        from PIL import Image
        from skimage import data
    except ImportError as error:
        raise NotJudged(f"the pictures are scikit-image's: {install_hint('canny2image')}") from error
    found = {name: Image.fromarray(getattr(data, name)()).convert("RGB") for name in PHOTOGRAPHS[:count]}
    return {name: np.asarray(image.resize((side, side))) for name, image in found.items()}
