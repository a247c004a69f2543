"""Files that PyTorch's two exporters write, in old and new opsets: the interpreter gives what the module gives."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from graphs import parse
from torch import nn
from torch.nn import functional

from harness.compare import distance
from harness.graph import open_onnx, promote
from harness.reference import onnx_run_graph, run_graph, run_onnxruntime


class Function(nn.Module):
    """A function, with the layers that it uses."""

    def __init__(self, function: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(self, *inputs)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def packed(module: nn.Module, x: torch.Tensor) -> object:
    given = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 4]), batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(module.layer(given)[0], batch_first=True)[0]


def tail(module: nn.Module, x: torch.Tensor) -> object:
    return x[:, -3:], x[:, :-1, 2:], x.flip(1), x.roll(2, 1)


def written(module: nn.Module, x: torch.Tensor) -> object:
    y = x.clone()
    y[:, 2:5] = 0.5
    y[:, 0] = x[:, 1]
    return y


IMAGE, SEQUENCE = normal(2, 3, 12, 12), normal(2, 7, 8)
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...]]] = {
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8, stride=2),
                              nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        (IMAGE,),
    ),
    "transposed": (lambda: nn.ConvTranspose2d(3, 6, 3, 2, 1, 1, groups=3, dilation=2), (IMAGE,)),
    "volumes": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.MaxPool3d(2, ceil_mode=True)), (normal(1, 2, 5, 6, 7),)),
    "upsampled": (lambda: Function(lambda _, x: functional.interpolate(x, scale_factor=2.0)), (IMAGE,)),
    "shuffled": (lambda: Function(lambda _, x: functional.pixel_shuffle(x.repeat(1, 4, 1, 1), 2)), (IMAGE,)),
    "LSTM": (lambda: nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True), (SEQUENCE,)),
    "GRU": (lambda: nn.GRU(8, 5, batch_first=True), (SEQUENCE,)),
    "reflected": (lambda: Function(lambda _, x: functional.pad(x, (1, 2, 3, 1), mode="reflect")), (IMAGE,)),
    "group norm": (lambda: nn.GroupNorm(4, 8), (normal(2, 8, 5),)),
    "attention": (
        lambda: Function(lambda m, x: m.layer(x, x, x, need_weights=False)[0],
                         layer=nn.MultiheadAttention(8, 2, batch_first=True)),
        (SEQUENCE,),
    ),
    "parts": (lambda: Function(tail), (SEQUENCE,)),
    "written": (lambda: Function(written), (SEQUENCE,)),
    "chosen": (lambda: Function(lambda _, x: (x.argmax(-1), *x.topk(3, -1), x.cumsum(1), x.logsumexp(1))), (SEQUENCE,)),
    "embedded": (lambda: nn.Embedding(10, 4), (torch.arange(6).reshape(2, 3),)),
}  # fmt: skip
MODULES["packed"] = (
    lambda: Function(packed, layer=nn.LSTM(8, 5, batch_first=True, bidirectional=True)),
    (SEQUENCE,),
)
FIRST_OPSET = {"attention": 14}
"""Of modules that the old exporter does not write in every opset."""


def assert_the_module_itself(path: Path, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    model = promote(open_onnx(path))
    graph, named = onnx_run_graph(model), dict(zip((it.name for it in model.graph.inputs), inputs, strict=True))
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        given = [it.to(dtype) if it.is_floating_point() else it for it in inputs]
        with torch.no_grad():
            result = copy.deepcopy(module).to(dtype)(*given)
        found = list(run_graph(graph, named, dtype=dtype).values())
        expected = torch.utils._pytree.tree_leaves(result)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            assert distance(ours, theirs) <= limit


@pytest.mark.parametrize(
    ("name", "opset"), [(name, it) for name in MODULES for it in (11, 14, 17) if it >= FIRST_OPSET.get(name, 0)]
)
def test_a_file_of_the_old_exporter_is_the_module(tmp_path: Path, name: str, opset: int) -> None:
    torch.manual_seed(0)
    build, inputs = MODULES[name]
    module, path = build().eval(), tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, path, opset_version=opset, dynamo=False)
    assert_the_module_itself(path, module, inputs)


def test_constants_of_a_file_keep_their_type(tmp_path: Path) -> None:
    """Bytes of a file are arrays with their byte order spelled out: once they all became FP32 on the way."""
    numbers = {"whole": torch.tensor([2**63 - 1, 2**53 + 1]), "exact": torch.tensor([0.1], dtype=torch.float64)}
    tensors = [onnx.numpy_helper.from_array(it.numpy(), name) for name, it in numbers.items()]
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name}_out"]) for name in numbers]
    outputs = [onnx.helper.make_empty_tensor_value_info(f"{name}_out") for name in numbers]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], outputs, tensors), ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    weights = onnx_run_graph(open_onnx(tmp_path / "model.onnx")).weights
    assert all(torch.equal(weights[name], tensor) for name, tensor in numbers.items())


def test_unsigned_numbers_that_onnxruntime_computes() -> None:
    """It gives them under the other of C's two names for 64 bits."""
    model = parse('g (uint64[2] x) => (uint64[2] y) <uint64[1] n = {3}> { y = BitShift<direction = "LEFT">(x, n) }')
    inputs = {"x": torch.tensor([1, 5], dtype=torch.uint64)}
    for found in (run_graph(onnx_run_graph(model), inputs, dtype=torch.float32), run_onnxruntime(model, inputs)[0]):
        assert found["y"].tolist() == [8, 40]
