"""What a plant is, and all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from benchmarks.planted.faults import Fault
from benchmarks.planted.fragile import FRAGILE
from benchmarks.planted.networks import NETWORKS, Network

Group = Literal["engine fp16", "engine fp32", "fusion", "several", "export", "precision", "clean"]
KINDS = {"export": "export", "precision": "precision", "clean": "none"}


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A network, what is wrong, and the answer."""

    group: Group
    network: Network
    faults: tuple[Fault, ...] = ()
    """In the engine, or in the export."""
    precision: str = "fp16"
    file: bool = False
    """Whether the subject is an ONNX file."""
    limit: float | None = None
    """Relative L2 error that outputs may have; only for precision."""
    engine: str = ""
    """How the engine computes what is right: ``unoptimised``, ``half`` (rounds every FP16 value), ``halves`` (sums
    in another order), ``stale`` (gives what the call before computed), ``torch`` (PyTorch itself)."""
    harmless: tuple[Fault, ...] = ()
    """What is wrong in the engine too, and dies out before the outputs: no culprit."""
    made: tuple[str, ...] = ()
    """The values that are wrong though nothing is planted: the exporter is."""
    alternatives: tuple[str, ...] = ()
    """Values that are equally right answers."""
    module: str = ""
    """The module that is wrong, where the exporter folds another into it: a culprit must name it."""

    @property
    def name(self) -> str:
        """As ``--only`` finds it."""
        what = "+".join(f"{it.value}:{it.how}{''.join(f'_{arg}' for arg in it.args)}" for it in self.faults)
        subject = self.network.name + (".onnx" if self.file else "")
        what += "".join(f"+{it.value}:harmless" for it in self.harmless)
        limit = f"limit_{self.limit:g}" if self.limit is not None else ""
        return "/".join(filter(None, [self.group, subject, what, self.precision, self.engine, limit])).replace(" ", "-")

    @property
    def kind(self) -> str:
        """What a bisection should answer."""
        return KINDS.get(self.group, "engine")

    @property
    def answer(self) -> frozenset[str]:
        """The values that are made wrongly."""
        return frozenset(fault.value for fault in self.faults) | set(self.made)


def F(value: str, how: str, *args: Any, **fields: Any) -> Fault:
    """Return a fault: ``F("gelu_1", "scale", 1.03)``."""
    return Fault(value=value, how=how, args=args, **fields)


def plant(group: Group, where: str, *faults: Fault, **fields: Any) -> Plant:
    """Return a plant in a network: ``bert``, ``bert.onnx`` (its file), ``bert@fp32`` (in this precision)."""
    subject, _, precision = where.partition("@")
    name = subject.removesuffix(".onnx")
    if group == "engine fp16":
        faults = tuple(replace(fault, half=True) for fault in faults)
    network = (NETWORKS | FRAGILE)[name]
    fields = {"precision": precision or "fp16", **fields}
    return Plant(group=group, network=network, faults=faults, file=subject != name, **fields)
