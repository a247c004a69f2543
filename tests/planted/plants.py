"""The plants: networks and faults with a known answer."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import quiet
from torch import nn

from benchmarks.planted.exports import share_exports
from harness import Subject, Target
from harness.backends import BACKENDS
from harness.records.bisection import Kind
from harness.reference.interpreter import run_graph
from harness.reference.run_graph import exported_run_graph
from harness.verify.prepare import Prepared, prepare
from planted.backend import PlantedBackend
from planted.faults import Edit, Fault, all_nan, scaled, tamper_value, wrong_axis, wrong_epsilon
from planted.networks import (
    Attention,
    Cancelling,
    Convolutions,
    Experts,
    GrowingStream,
    Healthy,
    Masked,
    Overflow,
    ScaledSoftmax,
    SquareRoot,
    Swamping,
    Tensors,
    TwoCulprits,
    image,
    normal,
    signed_rows,
    with_large_rows,
)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A fault and its answer."""

    name: str
    subject: Subject
    backend: str
    """Where it shows: ``torch`` (and any other), or ``planted``."""
    precision: str = "fp16"
    kind: Kind
    answer: frozenset[str] = frozenset()
    """The smallest set: of modules to keep in FP32 (precision), of values that show it (engine, export)."""
    alternatives: tuple[frozenset[str], ...] = ()
    """Sets of modules that are as good and as small."""
    values: tuple[frozenset[str], ...] = ()
    """The smallest sets of values of the answer's modules, where they were worked out; patterns ``value:...``."""
    limit: float | None = None
    """Relative L2 error that the output may have, where PyTorch loses as much and only a limit makes it a failure."""
    faults: tuple[Fault, ...] = ()
    """What is wrong in the kernels of the ``planted`` backend."""
    tamper: tuple[str, Edit] | None = None
    """Which value's ONNX node the export gets wrong, and how."""
    why: str


def _subject(name: str, build: Callable[[], nn.Module], inputs: Callable[[], Tensors] = normal) -> Subject:
    return Subject(
        name=name,
        build=lambda: build().eval(),
        cases={"one": inputs},
        targets=(Target("planted", "fp16"),),
        weights="random",
    )


def plant_of(
    name: str, build: Callable[[], nn.Module], *answer: str, inputs: Callable[[], Tensors] = normal, **fields: Any
) -> Planted:
    known = {"kind": "precision", "backend": "torch", **fields}
    return Planted(name=name, subject=_subject(name, build, inputs), answer=frozenset(answer), **known)


def _values(*names: str) -> tuple[frozenset[str], ...]:
    return (frozenset(f"value:{name}" for name in names),)


def engine_plant(name: str, *answer: str, why: str, fault: Fault) -> Planted:
    return plant_of(name, Healthy, *answer, kind="engine", backend="planted", why=why, faults=(fault,))


PLANTED: dict[str, Planted] = {
    plant.name: plant
    for plant in (
        plant_of(
            "overflow", Overflow, "blocks.2.norm", values=_values("pow_5", "pow_6", "mean_5", "sub_4"),
            why="E[x^2] and E[x]^2 are 1.6e5 in the norm of block 2: inf - inf is NaN",
        ),
        plant_of(
            "swamping", Swamping, "accumulate", values=_values("add", "sub"), limit=0.02,
            why="the spacing of float16 at 2048 is 2: all that the sum added is lost",
        ),
        plant_of(
            "large_softmax", Attention, "select", values=_values("add", "softmax"), limit=0.02,
            why="the spacing of float16 at 30000 is 16: all logits become equal",
        ),
        plant_of(
            "group_norm", Convolutions, "norm", inputs=image, values=_values("sum_1", "mul"),
            why="the squares of 1024 elements of 10 sum up to 1e5: the variance is infinite, the output zero",
        ),
        plant_of(
            "growing_stream", GrowingStream, *("blocks.2", "blocks.3", "blocks.4", "centre"), limit=0.0045,
            why="every block rounds four times as coarsely as the one before; the limit lets the first two round",
        ),
        plant_of(
            "two_culprits", TwoCulprits, "early", alternatives=(frozenset({"late"}),), limit=0.02,
            values=_values("add", "sub"),
            why="the product of two residues is wrong only where both are",
        ),
        plant_of(
            "non_monotonic", Cancelling, "bad", values=_values("add", "sub"), limit=0.02,
            why="left or right alone in FP32 ends the cancellation of two equal roundings",
        ),
        plant_of(
            "masked_overflow", lambda: Masked(ScaledSoftmax(), rows=True), inputs=with_large_rows, kind="none",
            why="softmax is NaN in the rows that reach 100, in float16 only, and torch.where drops these rows",
        ),
        plant_of(
            "masked_nan", lambda: Masked(SquareRoot(), rows=False), kind="none",
            why="the square root of negative elements is NaN in every precision, and torch.where drops it",
        ),
        plant_of(
            "flipped_decision", Experts, "router", inputs=signed_rows, values=_values("linear"),
            why="float16 cannot tell the two scores apart: argmax chooses the other expert for positive rows",
        ),
        plant_of(
            "wrong_epsilon", Healthy, "layer_norm_1", kind="export", backend="planted",
            tamper=("layer_norm_1", wrong_epsilon), why="the exported normalisation of block 1 has another epsilon",
        ),
        plant_of(
            "wrong_axis", Attention, "softmax", kind="export", backend="planted", tamper=("softmax", wrong_axis),
            why="the exported softmax works along another axis",
        ),
        engine_plant(
            "wrong_kernel", "linear_1", fault=Fault(value="linear_1", change=scaled(1.05)),
            why="the matrix product of block 1 is 5 % too large in float16",
        ),
        engine_plant(
            "wrong_when_fused", *("gelu_2", "add_2"),
            fault=Fault(value="add_2", change=scaled(1.05), fused_with="gelu_2"),
            why="the residual sum of block 2 is 5 % too large where its GELU is fused into it",
        ),
        engine_plant(
            "nan_unobserved", "linear_1", fault=Fault(value="linear_1", change=all_nan, hidden=True),
            why="NaN while no value is an output and nothing is tapped",
        ),
        engine_plant(
            "nan_unobserved_here", "linear_1",
            fault=Fault(value="linear_1", change=all_nan, hidden=True, cured_by=frozenset({"linear_1"})),
            why="NaN unless this very value is an output, or anything is tapped",
        ),
        engine_plant(
            "wrong_in_fp32", "layer_norm_2", fault=Fault(value="layer_norm_2", change=scaled(1.05), only_dtype=None),
            why="the normalisation of block 2 is wrong in every dtype: the FP32 engine is wrong already",
        ),
    )
}  # fmt: skip


def install(monkeypatch: pytest.MonkeyPatch, plant: Planted) -> PlantedBackend:
    """Register the backend as ``planted`` with the plant's faults, tamper with the export, and return the backend."""
    backend = PlantedBackend(*plant.faults)
    monkeypatch.setitem(BACKENDS, "planted", backend)
    share_exports(monkeypatch)
    if plant.tamper is not None:
        tamper_value(monkeypatch, *plant.tamper)
    return backend


@functools.cache
def ready(name: str) -> Prepared:
    """Return a plant's subject, exported without tampering."""
    with tempfile.TemporaryDirectory() as folder:
        return prepare(PLANTED[name].subject, quiet(Path(folder), engine_cache=False))


def values_of(prepared: Prepared, dtype: torch.dtype = torch.float32, **options: Any) -> Tensors:
    """Return every value of a run of the whole program in PyTorch, by its FX name."""
    seen: Tensors = {}
    run_graph(
        exported_run_graph(prepared.program), prepared.inputs["one"], dtype=dtype, on_value=seen.__setitem__, **options
    )
    return seen


def named_values(prepared: Prepared, dtype: torch.dtype = torch.float32) -> Tensors:
    """Return the same, with the network outputs under their own names as well."""
    seen = values_of(prepared, dtype)
    return seen | {output: seen[node] for output, node in prepared.program.outputs.items()}
