"""One way to run a system, as data: what a study tries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run a system. A system whose variants differ in more adds fields in a subclass."""

    name: str
    precision: str = "fp16"
    """Of every engine that ``precisions`` does not name: a plain precision or the path of a plan."""
    precisions: Mapping[str, str] = field(default_factory=dict)
    """By network."""
    backend: str = ""
    """Empty for the one the study is asked for; ``torch`` runs the PyTorch modules."""
    cuda_graph: bool = False
    """Replay CUDA graphs of what the system replays; only on a GPU."""
    steps: int = 0
    """Of a sampler or a decoder that is stepped through; 0 for a system without steps."""

    @property
    def keeps_steps(self) -> bool:
        """Whether it has the steps it names whatever number a study is asked for."""
        return False

    def precision_of(self, network: str) -> str:
        """Return the precision of one network."""
        return self.precisions.get(network, self.precision)

    def to_json(self, networks: Iterable[str]) -> dict[str, Any]:
        """Return plain data without the name; ``precisions`` holds those of ``networks`` whose precision is another."""
        others = {name: own for name in networks if (own := self.precision_of(name)) != self.precision}
        data = {**dataclasses.asdict(self), "name": None, "precisions": others or None, "steps": self.steps or None}
        return {key: value for key, value in data.items() if value is not None}


REFERENCE = Variant(name="pytorch-fp32", backend="torch", precision="fp32")
"""PyTorch FP32 with TF32 off: what every variant is held against, and the first of every study."""


def choose(names: Sequence[str], known: Sequence[Variant]) -> tuple[Variant, ...]:
    """Return the variants asked for, in that order, or all. Raises UsageError for one that is not known."""
    by_name = {variant.name: variant for variant in known}
    for name in names:
        if name not in by_name:
            raise unknown_name("variant", name, by_name)
    return tuple(by_name[name] for name in dict.fromkeys(names)) or tuple(known)
