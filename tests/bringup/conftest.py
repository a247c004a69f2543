"""A model whose blocks differ, and a backend in whose kernels one is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet
from planted import Fault, PlantedBackend, scaled

from harness import Subject, Target
from harness.backends import BACKENDS
from harness.bringup import BringingUp, Request, bring_up


class Block(torch.nn.Module):
    """Takes a tensor, one by keyword, None and a number, and returns a tuple of which one is a tensor."""

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.linear, self.weigh = torch.nn.Linear(8, 8), Weigh() if softmax else torch.nn.Identity()

    def forward(self, x: torch.Tensor, mask: Any = None, *, bias: Any = None, scale: float = 1.0) -> tuple[Any, ...]:
        return self.weigh(self.linear(x)) * scale + mask, None, "a word"


class Weigh(torch.nn.Module):
    """A softmax whose value does not leave the module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, -1) * 2


class Net(torch.nn.Module):
    """Two blocks in a list, a head that is called twice under two names, and a module that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(False), Block(True)])
        self.head = torch.nn.Linear(8, 8)
        self.tied, self.idle = self.head, torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, mask=mask, bias=None, scale=0.5)[0]
        return self.tied(self.head(x).abs())


def build() -> torch.nn.Module:
    torch.manual_seed(5)
    return Net().eval()


def inputs(rows: int = 3) -> dict[str, torch.Tensor]:
    """Return inputs [1, rows, 8]."""
    dice = torch.Generator().manual_seed(rows)
    return {"x": torch.randn(1, rows, 8, generator=dice), "mask": torch.randn(1, rows, 8, generator=dice)}


def subject(**changes: Any) -> Subject:
    """Return the subject, with changes."""
    fields: dict[str, Any] = {
        "name": "net", "build": build, "cases": {"one": inputs}, "targets": (Target("planted", "fp16"),),
        "weights": "random",
    }  # fmt: skip
    return Subject(**{**fields, **changes})


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that begins to bring a subject up on a backend with these faults."""

    def start(model: Subject, *faults: Fault, cases: Any = ("one",), **request: Any) -> BringingUp:
        monkeypatch.setitem(BACKENDS, "planted", PlantedBackend(*faults))
        return bring_up(model, targets=model.targets, cases=cases, settings=quiet(tmp_path), request=Request(**request))

    return start


@pytest.fixture
def wrong_softmax() -> Fault:
    return Fault(value="softmax", change=scaled(1.1))
