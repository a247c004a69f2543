"""Engines judged on the GPU as those of a suite are.

``pytest tests -m gpu --require rtx`` is red where TensorRT for RTX judged nothing: these verdicts are what it counts.
"""

from __future__ import annotations

import pytest
import torch

from harness import Subject, targets
from harness.checks import test_outputs  # noqa: F401 - collected by pytest

pytestmark = pytest.mark.gpu


def build() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64)).eval()


SUBJECT = Subject(
    name="mlp",
    build=build,
    cases={"one": lambda: {"input": torch.linspace(-3, 3, 8 * 64).reshape(8, 64)}},
    targets=targets("rtx", precisions=("tf32", "fp16")),
    weights="random",
)
