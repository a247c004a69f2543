"""A PyTorch model under test: copy this file, put your model in it, and run `pytest` or `parity verify` on it."""

import torch

from harness import Subject, targets
from harness.checks import test_outputs

SUBJECT = Subject(
    name="mymodel",
    build=lambda: torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64)).eval(),
    cases={"one": lambda: {"input": torch.linspace(-3, 3, 8 * 64).reshape(8, 64)}},
    dynamic={"input": {0: "batch"}},
    ranges={"batch": (1, 8)},
    targets=targets("rtx", "ort-cpu", precisions=("fp32", "fp16")),
    weights="random",
)
