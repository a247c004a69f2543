"""Planted faults with a known answer, and a backend that runs the typed graph with faults in its kernels.

Every plant is certain: it follows from the number formats, not from the seed. tests/test_planted.py proves the answers
by trying every set of modules.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from fake import FakeBackend, quiet
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional

from harness import EngineRefused, Settings, Subject, Target
from harness.backends import BACKENDS
from harness.backends.base import BuildReport, BuildRequest
from harness.backends.inspector import Kernel, read_kernels
from harness.graph.export import Program, program_sha256, to_onnx, trace
from harness.records.bisection import Kind
from harness.reference.interpreter import run_program
from harness.tensors import sha256_of
from harness.verify import torch_graph
from harness.verify.prepare import Prepared, prepare

Tensors = dict[str, Tensor]
WIDTH = 32


# The networks. Inputs are x, float32 [2, 8, 32]; weights have a seed of their own.


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(seed: int, *, scale: float = 1.0, bias: float | None = None) -> nn.Linear:
    """Return a square layer whose outputs have about ``scale`` times the RMS of its inputs, plus ``bias``."""
    layer = nn.Linear(WIDTH, WIDTH, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(WIDTH, WIDTH, generator=seeded(seed)))
        layer.weight.mul_(scale / math.sqrt(WIDTH))
        if bias is not None:
            layer.bias.fill_(bias)
    return layer


def normal() -> Tensors:
    """Return seeded inputs, float32 [2, 8, 32]."""
    return {"x": torch.randn(2, 8, WIDTH, generator=seeded(0))}


def image() -> Tensors:
    """Return seeded inputs of standard deviation 10, float32 [2, 8, 16, 16]."""
    return {"x": 10 * torch.randn(2, 8, 16, 16, generator=seeded(0))}


class OnePassNorm(nn.Module):
    """Layer norm by E[x^2] - E[x]^2: in float16 inf - inf once the inputs exceed 256."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = x.pow(2).mean(-1, keepdim=True) - mean.pow(2)
        return (x - mean) * torch.rsqrt(variance + 1e-3)


class NormBlock(nn.Module):
    def __init__(self, body: nn.Linear) -> None:
        super().__init__()
        self.norm, self.linear = OnePassNorm(), body

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class Overflow(nn.Module):
    """Only what block 1 makes is large: 400 with a standard deviation of 50."""

    def __init__(self) -> None:
        super().__init__()
        bodies = linear(0), linear(1, scale=50.0, bias=400.0), linear(2), linear(3)
        self.blocks = nn.Sequential(*(NormBlock(body) for body in bodies))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class ThroughOffset(nn.Module):
    """Add 2048 and take it away again: the spacing of float16 there is 2, so nothing of x is left."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        return (2048.0 + x) - 2048.0 if self.sign > 0 else (-2048.0 - x) + 2048.0


class Swamping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.accumulate, self.after = linear(0), ThroughOffset(), linear(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.accumulate(self.before(x)))


class LargeSoftmax(nn.Module):
    """Logits around 30000, where the spacing of float16 is 16 and everything within 16 becomes equal."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x + 30000.0, -1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score, self.select, self.value = linear(0), LargeSoftmax(), linear(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.select(self.score(x)))


class SummedGroupNorm(nn.Module):
    """Group norm over 1024 elements of about 10: their squares sum up to 1e5, beyond float16."""

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(2, 2, -1)
        centred = groups - groups.mean(-1, keepdim=True)
        variance = centred.pow(2).sum(-1, keepdim=True) * (1 / groups.shape[-1])
        return (centred * torch.rsqrt(variance + 1e-3)).reshape(x.shape)


class Convolutions(nn.Module):
    """Takes [2, 8, 16, 16]: two groups of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = pointwise(0), SummedGroupNorm(), pointwise(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))


def pointwise(seed: int) -> nn.Conv2d:
    """Return a 1x1 convolution of 8 channels that keeps the RMS of its inputs."""
    layer = nn.Conv2d(8, 8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(nn.init.orthogonal_(torch.empty(8, 8), generator=seeded(seed)).reshape(8, 8, 1, 1))
    return layer


class Residual(nn.Linear):
    """Add a projection of x and an offset to the stream."""

    def __init__(self, seed: int, offset: float) -> None:
        super().__init__(WIDTH, WIDTH)
        self.load_state_dict(linear(seed, bias=offset).state_dict())

    def forward(self, stream: Tensor, x: Tensor) -> Tensor:
        return stream + super().forward(x)


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True)


class GrowingStream(nn.Module):
    """Every block makes the offset of the stream four times as large, and so the rounding of all it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(block, 4.0 * 4**block) for block in range(5))
        self.centre = Centre()

    def forward(self, x: Tensor) -> Tensor:
        stream = x
        for block in self.blocks:
            stream = block(stream, x)
        return self.centre(stream)


class Residue(ThroughOffset):
    """What :class:`ThroughOffset` loses: nothing in float32, all of x in float16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x


class TwoCulprits(nn.Module):
    """The product of two residues: one that vanishes is enough."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(linear(seed) for seed in range(3))
        self.early, self.late = Residue(), Residue()

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        for layer in self.body:
            x = layer(x)
        return x + 2 * early * self.late(x)


class Cancelling(nn.Module):
    """Left and right lose x alike, and their sum is zero; keep one of them in FP32, and the loss shows."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.bad, self.left, self.right = linear(0), ThroughOffset(), ThroughOffset(), ThroughOffset(-1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.bad(self.body(x)) + (self.left(x) + self.right(x))


class ScaledSoftmax(nn.Module):
    """Rows that reach 100 become infinite in float16, and their softmax NaN; float32 holds them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x * 1000.0, -1)


class SquareRoot(nn.Module):
    """NaN for negative elements, in every precision."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)


class Masked(nn.Module):
    """What the branch makes of large rows or negative elements is never used."""

    def __init__(self, branch: nn.Module, *, rows: bool) -> None:
        super().__init__()
        self.branch, self.head, self.rows = branch, linear(0), rows

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.amax(-1, keepdim=True) > 50 if self.rows else x < 0
        return self.head(torch.where(hidden, x * 0.01, self.branch(x)))


def with_large_rows() -> Tensors:
    """Return inputs of which every other row has one element of 100; the rest keeps a softmax of x * 1000 decided."""
    x = (torch.arange(2 * 8 * WIDTH).reshape(2, 8, WIDTH) * 7 % 31) / 32
    x[:, ::2, 3] = 100.0
    return {"x": x}


class Router(nn.Linear):
    """Two scores whose weights differ by 2**-13: float16 rounds them to the same, and argmax takes the first."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 2, bias=False)
        with torch.no_grad():
            self.weight.copy_(torch.tensor([[1.0], [1.0 + 2.0**-13]]).expand(2, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(-1)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts, self.head = Router(), nn.Embedding(2, WIDTH), linear(1)
        with torch.no_grad():
            self.experts.weight.copy_(torch.randn(2, WIDTH, generator=seeded(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * self.experts(self.router(x)))


def signed_rows() -> Tensors:
    """Return rows of one sign each, three of four positive, exact in float16."""
    signs = torch.tensor([1.0, 1.0, -1.0, 1.0] * 4).reshape(2, 8, 1)
    return {"x": signs * (1 + torch.arange(2 * 8 * WIDTH).reshape(2, 8, WIDTH) % 5) / 4}


class Block(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.norm, self.linear, self.act = nn.LayerNorm(WIDTH), linear(seed), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.linear(self.norm(x)))


class Healthy(nn.Module):
    """Nothing is wrong with it: its values are layer_norm, linear, gelu, add, then layer_norm_1, ..., add_3."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(seed) for seed in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


# Faults in kernels and in the export.


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A kernel that is wrong."""

    value: str
    """The value it makes, by its name in the graph."""
    change: Callable[[Tensor], Tensor]
    """What happens to it, in float32; the result is rounded again."""
    only_dtype: torch.dtype | None = torch.float16
    """Only kernels of this dtype are wrong; None for all."""
    fused_with: str = ""
    """Only where this value is made in the same kernel and does not leave it."""
    hidden: bool = False
    """Only while nobody looks: not in ``tap``, and not while a value on the way is an output."""
    cured_by: frozenset[str] | None = None
    """The values that hide it by being outputs; None for all that are read inside the graph as well."""


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor * factor


def all_nan(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, math.nan)


Edit = Callable[[ir.Node], None]


def wrong_epsilon(node: ir.Node) -> None:
    """Give a normalisation an epsilon of 0.5."""
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.5)


def wrong_axis(node: ir.Node) -> None:
    """Let a softmax or normalisation work along the axis before its own."""
    node.attributes["axis"] = ir.AttrInt64("axis", node.attributes["axis"].as_int() - 1)


_TRACES: dict[tuple[Any, ...], ExportedProgram] = {}
_EXPORTS: dict[tuple[str, ...], Program] = {}


def share_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let equal modules be traced and exported once per process: that takes most of the time of a small bisection."""

    def traced_once(subject: Subject, module: nn.Module, inputs: Tensors) -> ExportedProgram:
        key = (subject.build, *((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items()))
        if key not in _TRACES:
            _TRACES[key] = trace(subject, module, inputs)
        return _TRACES[key]

    def shared(subject: Subject, traced: ExportedProgram, inputs: Tensors, names: list[str]) -> Program:
        key = (program_sha256(traced), sha256_of(traced.state_dict), repr(subject.options), *names)
        if key not in _EXPORTS:
            _EXPORTS[key] = to_onnx(subject, traced, inputs, names)
        program = _EXPORTS[key]
        return dataclasses.replace(program, name=subject.name, model=program.model.clone())

    monkeypatch.setattr(torch_graph, "trace", traced_once)
    monkeypatch.setattr(torch_graph, "to_onnx", shared)


def tamper_export(monkeypatch: pytest.MonkeyPatch, value: str, edit: Edit) -> None:
    """Let the exporter write a wrong node for ``value``; the exported program stays right.

    The engine cache does not see it: give every tampered subject an engine folder of its own.
    """
    export = torch_graph.to_onnx

    def tampered(*arguments: Any) -> Program:
        program = export(*arguments)
        edit(next(node for node in program.model.graph if value in [output.name for output in node.outputs]))
        return program

    monkeypatch.setattr(torch_graph, "to_onnx", tampered)


# The plants.


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


def _plant(
    name: str, build: Callable[[], nn.Module], *answer: str, inputs: Callable[[], Tensors] = normal, **fields: Any
) -> Planted:
    known = {"kind": "precision", "backend": "torch", **fields}
    return Planted(name=name, subject=_subject(name, build, inputs), answer=frozenset(answer), **known)


def _values(*names: str) -> tuple[frozenset[str], ...]:
    return (frozenset(f"value:{name}" for name in names),)


def _engine(name: str, *answer: str, why: str, fault: Fault) -> Planted:
    return _plant(name, Healthy, *answer, kind="engine", backend="planted", why=why, faults=(fault,))


PLANTED: dict[str, Planted] = {
    plant.name: plant
    for plant in (
        _plant(
            "overflow",
            Overflow,
            "blocks.2.norm",
            values=_values("pow_5", "pow_6", "mean_5", "sub_4"),
            why="E[x^2] and E[x]^2 are 1.6e5 in the norm of block 2: inf - inf is NaN",
        ),
        _plant(
            "swamping",
            Swamping,
            "accumulate",
            values=_values("add", "sub"),
            limit=0.02,
            why="the spacing of float16 at 2048 is 2: all that the sum added is lost",
        ),
        _plant(
            "large_softmax",
            Attention,
            "select",
            values=_values("add", "softmax"),
            limit=0.02,
            why="the spacing of float16 at 30000 is 16: all logits become equal",
        ),
        _plant(
            "group_norm",
            Convolutions,
            "norm",
            inputs=image,
            values=_values("sum_1", "mul"),
            why="the squares of 1024 elements of 10 sum up to 1e5: the variance is infinite, the output zero",
        ),
        _plant(
            "growing_stream",
            GrowingStream,
            *("blocks.2", "blocks.3", "blocks.4", "centre"),
            limit=0.0045,
            why="every block rounds four times as coarsely as the one before; the limit lets the first two round",
        ),
        _plant(
            "two_culprits",
            TwoCulprits,
            "early",
            alternatives=(frozenset({"late"}),),
            limit=0.02,
            why="the product of two residues is wrong only where both are",
        ),
        _plant(
            "non_monotonic",
            Cancelling,
            "bad",
            values=_values("add", "sub"),
            limit=0.02,
            why="left or right alone in FP32 ends the cancellation of two equal roundings",
        ),
        _plant(
            "masked_overflow",
            lambda: Masked(ScaledSoftmax(), rows=True),
            inputs=with_large_rows,
            kind="none",
            why="softmax is NaN in the rows that reach 100, in float16 only, and torch.where drops these rows",
        ),
        _plant(
            "masked_nan",
            lambda: Masked(SquareRoot(), rows=False),
            kind="none",
            why="the square root of negative elements is NaN in every precision, and torch.where drops it",
        ),
        _plant(
            "flipped_decision",
            Experts,
            "router",
            inputs=signed_rows,
            values=_values("linear"),
            why="float16 cannot tell the two scores apart: argmax chooses the other expert for positive rows",
        ),
        _plant(
            "wrong_epsilon",
            Healthy,
            "layer_norm_1",
            kind="export",
            backend="planted",
            tamper=("layer_norm_1", wrong_epsilon),
            why="the exported normalisation of block 1 has another epsilon",
        ),
        _plant(
            "wrong_axis",
            Attention,
            "softmax",
            kind="export",
            backend="planted",
            tamper=("softmax", wrong_axis),
            why="the exported softmax works along another axis",
        ),
        _engine(
            "wrong_kernel",
            "linear_1",
            fault=Fault(value="linear_1", change=scaled(1.05)),
            why="the matrix product of block 1 is 5 % too large in float16",
        ),
        _engine(
            "wrong_when_fused",
            *("gelu_2", "add_2"),
            fault=Fault(value="add_2", change=scaled(1.05), fused_with="gelu_2"),
            why="the residual sum of block 2 is 5 % too large where its GELU is fused into it",
        ),
        _engine(
            "nan_unobserved",
            "linear_1",
            fault=Fault(value="linear_1", change=all_nan, hidden=True),
            why="NaN while no value is an output and nothing is tapped",
        ),
        _engine(
            "nan_unobserved_here",
            "linear_1",
            fault=Fault(value="linear_1", change=all_nan, hidden=True, cured_by=frozenset({"linear_1"})),
            why="NaN unless this very value is an output, or anything is tapped",
        ),
        _engine(
            "wrong_in_fp32",
            "layer_norm_2",
            fault=Fault(value="layer_norm_2", change=scaled(1.05), only_dtype=None),
            why="the normalisation of block 2 is wrong in every dtype: the FP32 engine is wrong already",
        ),
    )
}


def install(monkeypatch: pytest.MonkeyPatch, plant: Planted) -> PlantedBackend:
    """Register the backend as ``planted`` with the plant's faults, tamper with the export, and return the backend."""
    backend = PlantedBackend(*plant.faults)
    monkeypatch.setitem(BACKENDS, "planted", backend)
    share_exports(monkeypatch)
    if plant.tamper is not None:
        tamper_export(monkeypatch, *plant.tamper)
    return backend


# What PyTorch makes of a plant.


@functools.cache
def ready(name: str) -> Prepared:
    """Return a plant's subject, exported without tampering."""
    with tempfile.TemporaryDirectory() as folder:
        return prepare(PLANTED[name].subject, quiet(Path(folder), engine_cache=False))


def values_of(prepared: Prepared, dtype: torch.dtype = torch.float32, **options: Any) -> Tensors:
    """Return every value of a run of the whole program in PyTorch, by its FX name."""
    seen: Tensors = {}
    run_program(prepared.program, prepared.inputs["one"], dtype=dtype, on_value=seen.__setitem__, **options)
    return seen


def named_values(prepared: Prepared, dtype: torch.dtype = torch.float32) -> Tensors:
    """Return the same, with the network outputs under their own names as well."""
    seen = values_of(prepared, dtype)
    return seen | {output: seen[node] for output, node in prepared.program.outputs.items()}


# The backend: one PyTorch op per ONNX node, computed in float32 and rounded to the dtype of the graph.


def _attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    return node.attributes[name].value if name in node.attributes else default


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, x, axes: function(x, dim=axes.tolist(), keepdim=bool(_attribute(node, "keepdims", 1)))


def _layer_norm(node: ir.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axis, epsilon = _attribute(node, "axis", -1), _attribute(node, "epsilon", 1e-5)
    return functional.layer_norm(x, x.shape[axis:], weight, bias, epsilon)


def _pointwise(node: ir.Node, x: Tensor, weight: Tensor) -> Tensor:
    assert weight.shape[2:] == (1, 1)
    return functional.conv2d(x, weight)


def _argmax(node: ir.Node, x: Tensor) -> Tensor:
    return x.argmax(_attribute(node, "axis", 0), keepdim=bool(_attribute(node, "keepdims", 1)))


OPS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a - b,
    "Mul": lambda node, a, b: a * b,
    "Div": lambda node, a, b: a / b,
    "Neg": lambda node, x: -x,
    "Abs": lambda node, x: x.abs(),
    "Pow": lambda node, x, power: x**power,
    "Sqrt": lambda node, x: x.sqrt(),
    "Reciprocal": lambda node, x: x.reciprocal(),
    "Gelu": lambda node, x: functional.gelu(x, approximate=_attribute(node, "approximate", "none")),
    "MatMul": lambda node, a, b: a @ b,
    "Conv": _pointwise,
    "Softmax": lambda node, x: x.softmax(_attribute(node, "axis", -1)),
    "LayerNormalization": _layer_norm,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "ArgMax": _argmax,
    "Greater": lambda node, a, b: a > b,
    "Less": lambda node, a, b: a < b,
    "Where": lambda node, condition, a, b: torch.where(condition, a, b),
    "Gather": lambda node, table, index: table[index],
    "Reshape": lambda node, x, shape: x.reshape(shape.tolist()),
    "Transpose": lambda node, x: x.permute(*_attribute(node, "perm")),
    "Identity": lambda node, x: x,
    "Cast": lambda node, x: x,
}
GEMMS = ("MatMul", "Conv")  # these start a kernel of their own
DTYPES = {
    "FLOAT": (torch.float32, "Float"),
    "FLOAT16": (torch.float16, "Half"),
    "BFLOAT16": (torch.bfloat16, "BFloat16"),
    "INT64": (torch.int64, "Int64"),
    "INT32": (torch.int32, "Int32"),
    "BOOL": (torch.bool, "Bool"),
}


class PlantedBackend(FakeBackend):
    """Keeps the typed graph as its engine and runs it with these faults."""

    name = "planted"
    precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")
    tap_modes: tuple[str, ...] = ("unfused", "outputs")

    def __init__(self, *faults: Fault) -> None:
        super().__init__()
        self.faults = faults

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        """Write the graph, weights and all, and whether it may be tapped."""
        self.builds += 1
        model = ir.external_data.load_to_model(ir.load(request.onnx))
        for node in model.graph:
            if node.op_type not in OPS and node.op_type != "Constant":
                raise EngineRefused(f"planted has no kernel for op {node.op_type} (node {node.name})")
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
        onnx.helper.set_model_props(proto, {"taps": json.dumps(request.taps)})
        engine.write_bytes(proto.SerializeToString())
        return BuildReport(layers=len(fuse(model.graph)))

    def load(self, engine: Path) -> PlantedSession:
        return PlantedSession(self, ir.load(engine, format="protobuf"))


class PlantedSession:
    """Runs the graph kernel by kernel, as TensorRT for RTX would show it."""

    def __init__(self, backend: PlantedBackend, model: ir.Model) -> None:
        self.backend, self.graph = backend, model.graph
        self.tappable = json.loads(model.metadata_props["taps"])
        self.fused = fuse(model.graph)
        self.layers = len(self.fused)
        self._names = {
            value: _engine_name(value, number, index)
            for number, kernel in enumerate(self.fused)
            for index, value in enumerate(leaving(kernel))
        }

    def run(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """Run once and return the outputs."""
        return self._run(inputs, None)

    def tap(self, inputs: Mapping[str, Tensor], on_tensor: Callable[[str, Tensor], None]) -> Tensors:
        """Run once and hand over what enters the engine and what leaves its kernels."""
        if not self.tappable:
            raise EngineRefused("planted: the engine was built without taps, so it delivers no tensor")
        return self._run(inputs, on_tensor)

    def kernels(self) -> list[Kernel]:
        """Return the kernels."""
        return read_kernels(json.dumps({"Layers": self.inspected()}))

    def inspected(self) -> list[dict[str, Any]]:
        """Return the layers as the engine inspector lists them."""
        return [self._layer(number, kernel) for number, kernel in enumerate(self.fused)]

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        self.backend.open_sessions += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.backend.open_sessions -= 1

    def _run(self, inputs: Mapping[str, Tensor], on_tensor: Callable[[str, Tensor], None] | None) -> Tensors:
        values = {value: _tensor(value.const_value) for value in _constants(self.graph)}
        values |= {value: inputs[str(value.name)].cpu() for value in self.graph.inputs}
        if on_tensor is not None:
            for value in self.graph.inputs:
                on_tensor(str(value.name), values[value].clone())
        for kernel in self.fused:
            for node in kernel:
                value = node.outputs[0]
                values[value] = self._compute(node, values, tapped=on_tensor is not None)
            for value in leaving(kernel) if on_tensor is not None else ():
                on_tensor(self._names[value], values[value].reshape(_engine_shape(value, values[value].shape)).clone())
        return {str(value.name): values[value].clone() for value in self.graph.outputs}

    def _compute(self, node: ir.Node, values: Mapping[ir.Value, Tensor], *, tapped: bool) -> Tensor:
        arguments = [None if value is None else _wide(values[value]) for value in node.inputs]
        result = OPS[node.op_type](node, *arguments)
        dtype = _dtype(node.outputs[0])[0]
        for fault in self.backend.faults:
            if _base(node.outputs[0]) == fault.value and node.op_type != "Cast" and self._shows(fault, dtype, tapped):
                result = fault.change(result.to(dtype).float())
        return result.to(dtype)

    def _shows(self, fault: Fault, dtype: torch.dtype, tapped: bool) -> bool:
        if fault.only_dtype not in (None, dtype):
            return False
        if fault.fused_with and not self._fused(fault):
            return False
        if not fault.hidden:
            return True
        looked_at = marked_inside(self.graph)
        return not (tapped or (looked_at if fault.cured_by is None else looked_at & fault.cured_by))

    def _fused(self, fault: Fault) -> bool:
        """Return whether one kernel makes both values, in the same dtype, and keeps the first one to itself."""
        for kernel in self.fused:
            made = {_base(node.outputs[0]): node.outputs[0] for node in kernel if node.op_type != "Cast"}
            if fault.value in made and fault.fused_with in made:
                inner = made[fault.fused_with]
                return inner not in leaving(kernel) and _dtype(inner) == _dtype(made[fault.value])
        return False

    def _layer(self, number: int, kernel: list[ir.Node]) -> dict[str, Any]:
        words = "".join(node.op_type[:4] for node in kernel)
        gemm = kernel[0].op_type in GEMMS
        return {
            "Name": f"{kernel[0].name}_myl0_{number}" if gemm else f"__myl_{words}_myl0_{number}",
            "LayerType": "gemm" if gemm else "kgen",
            "Inputs": [self._describe(value) for value in entering(kernel)],
            "Constants": [],
            "Outputs": [self._describe(value) for value in leaving(kernel)],
            "TacticName": "__myelin_CASK_STUB" if gemm else f"__myl_{words}_0x0",
            "StreamId": 0,
            "Metadata": "\x1f".join(f"[ONNX Layer: {node.name}]" for node in kernel),
        }

    def _describe(self, value: ir.Value) -> dict[str, Any]:
        assert value.shape is not None
        dimensions = _engine_shape(value, [int(size) for size in value.shape])
        return {
            "Name": self._names.get(value, value.name),
            "Dimensions": dimensions,
            "Strides": [math.prod(dimensions[axis + 1 :]) for axis in range(len(dimensions))],
            "StrideOrder": list(range(len(dimensions)))[::-1],
            "Datatype": _dtype(value)[1],
            "Format": "(Linear) Row major linear format",
        }


def fuse(graph: ir.Graph) -> list[list[ir.Node]]:
    """Return the kernels: a node joins the last kernel it reads from, unless one of the two is a matrix product.

    A value that is an output of the graph ends its kernel: what reads it starts another.
    """
    kernels: list[list[ir.Node]] = []
    home: dict[ir.Value, int] = {}
    for node in graph:
        if node.op_type == "Constant":
            continue
        read = {value: home[value] for value in node.inputs if value in home}
        last = max(read.values(), default=-1)
        ends = any(_is_marked(value) for value, kernel in read.items() if kernel == last)
        if last < 0 or ends or node.op_type in GEMMS or kernels[last][0].op_type in GEMMS:
            kernels.append([])
            last = len(kernels) - 1
        kernels[last].append(node)
        home |= dict.fromkeys(node.outputs, last)
    return kernels


def leaving(kernel: list[ir.Node]) -> list[ir.Value]:
    """Return what a kernel writes: values that other kernels read, and outputs."""
    made = [value for node in kernel for value in node.outputs]
    return [value for value in made if value.is_graph_output() or any(use.node not in kernel for use in value.uses())]


def entering(kernel: list[ir.Node]) -> list[ir.Value]:
    """Return what a kernel reads, without constants."""
    made = {value for node in kernel for value in node.outputs}
    read = dict.fromkeys(value for node in kernel for value in node.inputs if value is not None)
    return [value for value in read if value not in made and value.const_value is None]


def marked_inside(graph: ir.Graph) -> frozenset[str]:
    """Return the outputs that the graph itself goes on with, which is how values are looked at."""
    marked = set()
    for output in graph.outputs:
        producer = output.producer()
        cast = producer is not None and producer.op_type == "Cast"
        source = producer.inputs[0] if cast and producer is not None else None
        if output.uses() or (source is not None and len(source.uses()) > 1):
            marked.add(_base(output))
    return frozenset(marked)


def _is_marked(value: ir.Value) -> bool:
    """Return whether a value is an output, or becomes one through a Cast and is read by others too."""
    casts = [use.node.outputs[0] for use in value.uses() if use.node.op_type == "Cast"]
    return value.is_graph_output() or (len(value.uses()) > 1 and any(cast.is_graph_output() for cast in casts))


def _constants(graph: ir.Graph) -> list[ir.Value]:
    """Return initializers and the outputs of Constant nodes."""
    made = [node.outputs[0] for node in graph if node.op_type == "Constant"]
    for value in made:
        value.const_value = ir.convenience.get_const_tensor(value)
    return [*graph.initializers.values(), *made]


def _base(value: ir.Value) -> str:
    """Return the name of a value before typing gave it a twin for the sake of an output."""
    return str(value.name).removesuffix("_fp16").removesuffix("_bf16").removesuffix("_fp32")


def _dtype(value: ir.Value) -> tuple[torch.dtype, str]:
    assert value.dtype is not None, value.name
    return DTYPES[value.dtype.name]


def _tensor(constant: Any) -> Tensor:
    array = constant.numpy()
    if array.dtype.name == "bfloat16":  # NumPy has it from ml_dtypes, which PyTorch does not read
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _engine_name(value: ir.Value, number: int, index: int) -> str:
    return str(value.name) if value.is_graph_output() else f"__mye{1000 + 10 * number + index}_myl0"


def _engine_shape(value: ir.Value, shape: Any) -> list[int]:
    """Return the dimensions the engine gives a tensor: matrix products write rows."""
    producer = value.producer()
    if producer is None or producer.op_type != "MatMul" or value.is_graph_output() or len(shape) < 2:
        return list(shape)
    return [math.prod(shape[:-1]), shape[-1]]
