"""The plants: one line each, with the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.planted.faults import Fault
from benchmarks.planted.networks import NETWORKS, Network

Group = Literal["engine fp16", "engine fp32", "fusion", "several", "export", "precision", "clean"]


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
    in another order), ``torch`` (PyTorch itself)."""
    alternatives: tuple[str, ...] = ()
    """Values that are equally right answers."""
    modules: tuple[str, ...] = ()
    """A culprit must name one of these modules, itself or as folded."""
    label: str = ""

    @property
    def name(self) -> str:
        """As ``--only`` finds it."""
        what = "+".join(f"{it.value}:{it.how}" for it in self.faults) or self.label
        marks = [self.network.name, what, self.precision, *(["file"] if self.file else []), self.engine]
        return f"{self.group}/" + "/".join(mark.replace(" ", "-") for mark in marks if mark)

    @property
    def kind(self) -> str:
        """What a bisection should answer."""
        return {"export": "export", "precision": "precision", "clean": "none"}.get(self.group, "engine")

    @property
    def answer(self) -> frozenset[str]:
        """The values that are made wrongly."""
        return frozenset(fault.value for fault in self.faults)


def F(value: str, how: str, *args: Any, **fields: Any) -> Fault:
    return Fault(value=value, how=how, args=args, **fields)


def plant(group: Group, network: str, *faults: Fault, **fields: Any) -> Plant:
    if group == "engine fp16":
        faults = tuple(Fault(**{**vars(fault), "half": True}) for fault in faults)
    return Plant(group=group, network=NETWORKS[network], faults=faults, **fields)


HALF = [
    plant("engine fp16", *line[:1], *line[1:])
    for line in (
        ("transformer", F("gelu_1", "scale", 1.03)),
        ("transformer", F("linear_7", "entry", -1, 5, 1.5)),
        ("bert", F("softmax_1", "attribute", "axis", 2)),
        ("bert", F("layer_norm_1", "attribute", "epsilon", 0.1)),
        ("gpt", F("add_1", "channels", -1, 0.05)),
        ("vit", F("conv2d", "entry", 0, 1, 1.5)),
        ("resnet", F("getitem_9", "shifted", 3)),
        ("unet", F("silu_1", "computes", "Relu")),
        ("decoder", F("upsample_nearest2d", "shifted", 2)),
        ("recurrent", F("getitem", "scale", 1.03)),
        ("mixture", F("gelu_2", "computes", "Relu")),
        ("llama", F("matmul", "transposed", 0, 1, 3, 2)),
        ("conformer", F("glu", "saturated", 0.3)),
        ("gated", F("getitem_4", "scale", 1.05)),
        ("spectrogram", F("log", "nan_above", 0.5)),
        ("detector", F("conv2d_1", "channels", 1, 0.05)),
    )
]
FULL = [
    plant("engine fp32", *line)
    for line in (
        ("transformer", F("linear_4", "bypassed", 0)),
        ("bert", F("gelu", "silu")),
        ("gpt", F("add", "shifted", 1, at=1)),
        ("resnet", F("getitem_3", "no_bias")),
        ("mixture", F("argmax", "negated", at=0)),
        ("llama", F("mul_6", "bypassed")),
        ("mobilenet", F("getitem_12", "scale", 1.05)),
        ("spectrogram", F("leaky_relu", "attribute", "alpha", 0.2)),
    )
]
SEVERAL = [
    plant("several", *line)
    for line in (
        ("transformer", F("gelu", "scale", 1.03), F("linear_15", "offset", 0.05)),
        ("vit", F("softmax", "scale", 1.1), F("gelu_1", "scale", 1.5)),
        ("unet", F("silu_1", "scale", 1.03), F("cat_1", "entry", 1, 2, 1.5), F("conv2d_2", "offset", 0.1)),
    )
]
FUSION = [
    plant("fusion", *line)
    for line in (
        ("transformer", F("add_3", "scale", 1.05, fused="linear_11")),
        ("gpt", F("linear_3", "nan", hidden=True)),
    )
]
EXPORT = [
    plant("export", *line, precision="fp32")
    for line in (
        ("transformer", F("layer_norm_3", "attribute", "epsilon", 1e-3)),
        ("llama", F("add_4", "constant", 1e-5, at=1)),
        ("spectrogram", F("add_1", "bypassed")),
    )
]
CLEAN = [
    Plant(group="clean", network=NETWORKS[network], engine=engine, precision=precision)
    for network in ("transformer", "resnet", "mixture")
    for engine, precision in (("", "fp16"), ("unoptimised", "fp32"))
]
PLANTS: tuple[Plant, ...] = (*HALF, *FULL, *FUSION, *SEVERAL, *EXPORT, *CLEAN)
