"""How often right engines of quantised nets, and those with planted faults, are called wrong.

    python -m benchmarks.quantised             # some minutes

The nets are those of ``tests/data/quantised``, one with unsigned codes and zero points, and a softmax. Engines are
ONNX Runtime on the CPU with all optimisations and with none, and PyTorch in FP32; each fault is planted into one node
and computed by PyTorch in FP32. The verdict is that on the codes, and on the outputs given them.
"""

from __future__ import annotations

import argparse
import ctypes
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import helper, numpy_helper
from torch.fx import Node

from harness.compare import UNIT_ROUNDOFF
from harness.graph import PRECISIONS, computes_in, file_dtypes, open_onnx, plain_model, promote, with_outputs
from harness.quantised import ARITHMETIC, Evaluator, Gains, Grid, Quantised, judge_codes, last_results, quantisers
from harness.reference import RunGraph, onnx_run_graph
from harness.tensors import Tensors
from harness.verify import judge_tensors

FILES = Path(__file__).parents[1] / "tests" / "data" / "quantised"
BACKEND = ARITHMETIC["ort-cpu"]
Codes = Callable[[Grid, torch.Tensor], torch.Tensor]
"""A way to quantise numbers in units of their scale."""


@dataclass(frozen=True, kw_only=True)
class Net:
    """A quantised net."""

    name: str
    file: ir.Model
    graph: RunGraph

    @staticmethod
    def of(model: onnx.ModelProto | ir.Model, name: str) -> Net:
        """Return a net of a model."""
        file = plain_model(model if isinstance(model, ir.Model) else ir.from_proto(model))
        return Net(name=name, file=file, graph=onnx_run_graph(promote(file)))

    @property
    def quantisers(self) -> tuple[str, ...]:
        """The names of its codes."""
        return quantisers(self.graph)

    @property
    def last(self) -> tuple[str, ...]:
        """The names of results that no code comes after."""
        return tuple(last_results(self.graph))

    def inputs(self, seed: int) -> Tensors:
        """Return inputs by their seed: every fourth is three times as large, so that codes saturate."""
        shape = [int(size) for size in self.file.graph.inputs[0].shape or ()]
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return {"x": x * (1 if seed % 4 else 3)}

    def case(self, inputs: Tensors) -> Quantised:
        """Return it on inputs, as ONNX Runtime computes the file as it is typed."""
        typed = file_dtypes(self.file)
        coarsest = max(UNIT_ROUNDOFF[PRECISIONS[dtype]] for dtype in typed.values())
        return Quantised(
            graph=self.graph, inputs=inputs, accumulator=UNIT_ROUNDOFF["fp32"], scaling=coarsest, backend=BACKEND,
            roundoffs={name: UNIT_ROUNDOFF[PRECISIONS[dtype]] for name, dtype in typed.items()}, options={},
        )  # fmt: skip

    def altered(self, change: Callable[[onnx.ModelProto], None]) -> Net:
        """Return a copy of which the file was changed."""
        proto = ir.to_proto(promote(self.file))
        change(proto)
        return Net.of(proto, self.name)


def files(name: str) -> Net:
    """Return a net of the folder by the stem of its file."""
    return Net.of(open_onnx(FILES / f"{name}.onnx"), name)


def unsigned() -> Net:
    """Return a product of unsigned codes with zero points, of per-channel weights."""
    draw = np.random.default_rng(0)
    weight = draw.integers(-127, 128, (24, 12)).astype(np.int8)
    constants = {
        "x_scale": np.float32(0.041), "x_zero": np.uint8(117), "w": weight,
        "w_scale": draw.uniform(0.001, 0.01, 12).astype(np.float32), "w_zero": np.zeros(12, np.int8),
        "h_scale": np.float32(0.031), "h_zero": np.uint8(131),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_codes"]),
        helper.make_node("DequantizeLinear", ["x_codes", "x_scale", "x_zero"], ["x_floats"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_floats"], axis=1),
        helper.make_node("MatMul", ["x_floats", "w_floats"], ["h"]),
        helper.make_node("QuantizeLinear", ["h", "h_scale", "h_zero"], ["h_codes"]),
        helper.make_node("DequantizeLinear", ["h_codes", "h_scale", "h_zero"], ["y"]),
    ]
    return _net("unsigned", nodes, constants, given=[64, 24], made=[64, 12])


def _net(
    name: str, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Any], *, given: list[int], made: list[int]
) -> Net:
    """Return the net of these nodes, from ``x`` to ``y``."""
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, given)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, made)
    weights = [numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items()]
    graph = helper.make_graph(nodes, name, [x], [y], weights)
    return Net.of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10), name)


def softmax() -> Net:
    """Return a softmax between unsigned codes of 1 / 255, which ONNX Runtime fuses to a QLinearSoftmax that is wrong.

    It computes with the whole part of the reciprocal of the scale, 254 of 254.99998.
    """
    constants = {"s": np.float32(0.02), "z": np.uint8(128), "p": np.float32(0.003921569), "n": np.uint8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x_codes"]),
        helper.make_node("DequantizeLinear", ["x_codes", "s", "z"], ["x_floats"]),
        helper.make_node("Softmax", ["x_floats"], ["h"], axis=-1),
        helper.make_node("QuantizeLinear", ["h", "p", "n"], ["h_codes"]),
        helper.make_node("DequantizeLinear", ["h_codes", "p", "n"], ["y"]),
    ]
    return _net("softmax", nodes, constants, given=[64, 24], made=[64, 24])


def nets() -> Iterator[Net]:
    """Yield all nets."""
    yield from (files(path.stem) for path in sorted(FILES.glob("conv_*.onnx")))
    yield unsigned()
    yield softmax()


def on_onnxruntime(net: Net, inputs: Tensors, *, optimised: bool) -> Given:
    """Return what ONNX Runtime gives for the file as it is typed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    model = ir.to_proto(with_outputs(net.file, [*net.quantisers, *net.last])).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {name: onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy()) for name, tensor in inputs.items()}
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run_with_ort_values(names, feeds), strict=True))
    outputs = {name: _tensor(value).float() for name, value in found.items() if name not in net.quantisers}
    return Given(codes={name: _tensor(found[name]) for name in net.quantisers}, outputs=outputs)


def _tensor(value: Any) -> torch.Tensor:
    if "float8" not in value.data_type():
        return torch.from_numpy(value.numpy())
    memory = (ctypes.c_uint8 * math.prod(value.shape())).from_address(value.data_ptr())
    return torch.frombuffer(bytearray(memory), dtype=torch.float8_e4m3fn).reshape(value.shape())


@dataclass(frozen=True, kw_only=True)
class Given:
    """What an engine gives."""

    codes: Tensors
    """By the name of their quantiser."""
    outputs: Tensors
    """With the results that no code comes after."""


class _Engine(Evaluator):
    """PyTorch, with its codes kept and some of its quantisers replaced."""

    def __init__(self, graph: RunGraph, inputs: Tensors, faults: Mapping[str, Codes]) -> None:
        super().__init__(graph, inputs, given={}, reciprocal=False, look=self._note, dtype=torch.float32,
                         also=last_results(graph))  # fmt: skip
        self.codes: Tensors = {}
        self._faults, self._last = faults, torch.empty(0)

    def _note(self, name: str, ratio: torch.Tensor, grid: Grid) -> None:
        self._last = self._faults.get(name, Grid.codes)(grid, ratio)

    def run_node(self, n: Node) -> Any:
        """Run one node; FX calls this."""
        result = super().run_node(n)
        if n.name in quantisers(self.run_graph):
            result = self.codes[n.name] = self._last
        return result


def in_pytorch(net: Net, inputs: Tensors, faults: Mapping[str, Codes] | None = None) -> Given:
    """Return what PyTorch gives in FP32, with other arithmetic at some quantisers."""
    engine = _Engine(net.graph, inputs, faults or {})
    with torch.inference_mode():
        results = engine.results()
    by_node = dict(zip(net.graph.result_names, results, strict=True))
    outputs = {name: by_node[node] for name, node in net.graph.outputs.items()}
    return Given(codes=engine.codes, outputs={**outputs, **engine.also})


def faults_of(net: Net, inputs: Tensors) -> dict[str, Given]:
    """Return what the net gives with each fault that can be planted into it, by the fault's name."""
    first = next(name for name in net.quantisers if name.startswith("x"))
    inside = next(name for name in net.quantisers if name.startswith(("relu_1", "h_")))
    is_float = "fp8" in net.name
    planted = {
        "a scale off by 1 %": in_pytorch(net, inputs, {inside: lambda grid, ratio: grid.codes(ratio / 1.01)}),
        "truncation": in_pytorch(net, inputs, {inside: _truncated}),
    }
    if is_float:
        planted["FP8 without clamp"] = in_pytorch(net, inputs, {first: _unclamped})
    else:
        planted["saturation at 127 on the wrong side"] = in_pytorch(net, inputs, {first: _wrapped})
    if not is_float and net.name != "softmax":
        planted["one channel's scale swapped"] = in_pytorch(net.altered(_swapped), inputs)
    if net.name == "unsigned":
        planted["a missing zero point"] = in_pytorch(net, inputs, {inside: _no_zero})
    elif (
        net.name.startswith("conv") and not is_float
    ):  # whose weight is square: of another, no backend would take the scales along the wrong axis
        planted["wrong channel axis"] = in_pytorch(net.altered(_wrong_axis), inputs)
    return planted


def _truncated(grid: Grid, ratio: torch.Tensor) -> torch.Tensor:
    exact = grid.codes(ratio)
    if exact.dtype != torch.float8_e4m3fn:
        return grid.codes(ratio.trunc())
    bits = exact.view(torch.uint8)
    too_large = (exact.double().abs() > ratio.abs()) & ((bits & 0x7F) > 0)
    return torch.where(too_large, bits - 1, bits).view(torch.float8_e4m3fn)


def _wrapped(grid: Grid, ratio: torch.Tensor) -> torch.Tensor:
    return grid.codes(torch.where(ratio.round() > 127, -128.0, ratio))


def _unclamped(grid: Grid, ratio: torch.Tensor) -> torch.Tensor:
    return torch.where(ratio.abs() > 464, math.nan, grid.codes(ratio).double()).to(torch.float8_e4m3fn)


def _no_zero(grid: Grid, ratio: torch.Tensor) -> torch.Tensor:
    return Grid(kind=grid.kind, scale=grid.scale, zero=None).codes(ratio)


def _scales(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the scales per channel of what DequantizeLinear makes, by its name."""
    constants = {it.name: it for it in model.graph.initializer}
    found = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    return {node.output[0]: constants[node.input[1]] for node in found if list(constants[node.input[1]].dims)}


def _wrong_axis(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0].startswith("c3.weight"):  # 32 channels, of 32
            for attribute in node.attribute:
                if attribute.name == "axis":
                    attribute.i = 1 - attribute.i


def _swapped(model: onnx.ModelProto) -> None:
    """Swap the two neighbours that are farthest apart, of the weight with the widest scales before a quantiser."""

    def widest(it: onnx.TensorProto) -> float:
        scale = numpy_helper.to_array(it)
        return float(scale.max() / scale.min())

    scales = [it for name, it in _scales(model).items() if name.startswith(("c1", "w"))]
    it = max(scales, key=widest)
    scale = numpy_helper.to_array(it).copy()
    at = int(np.argmax(np.abs(np.diff(scale))))
    scale[[at, at + 1]] = scale[[at + 1, at]]
    it.CopyFrom(numpy_helper.from_array(scale, it.name))


def is_wrong(net: Net, inputs: Tensors, given: Given) -> bool:
    """Return whether codes of a net on these inputs are called wrong, or its outputs given its own codes."""
    case, precision = net.case(inputs), computes_in(net.file)
    exact, floor = case.run(given.codes, also=net.last), case.moved(given.codes, also=net.last)
    gains = Gains(exact)
    if any(one.verdict == "fail" for one in judge_codes(case, given.codes, {}, gains=gains, also=net.last)):
        return True
    return any(
        gains.wrong(name, tensor)
        or judge_tensors(name, tensor, exact[name], floor[name], precision=precision).verdict == "fail"
        for name, tensor in given.outputs.items()
    )


def _differ(one: Given, other: Given) -> bool:
    """Return whether a fault changes anything: one of saturation does not where nothing saturates."""
    pairs = [(one.codes[name], other.codes[name]) for name in other.codes]
    pairs += [(one.outputs[name], other.outputs[name]) for name in other.outputs]
    return any(not torch.equal(a.float(), b.float()) for a, b in pairs)


def main() -> None:
    """Print, for every net, how often right engines were called wrong, and each fault where it changes anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for net in nets():
        if options.only not in net.name:
            continue
        wrong: Counter[str] = Counter()
        changed: Counter[str] = Counter()
        for seed in range(options.inputs):
            inputs = net.inputs(seed)
            right = {
                "ONNX Runtime, optimised": on_onnxruntime(net, inputs, optimised=True),
                "ONNX Runtime, as written": on_onnxruntime(net, inputs, optimised=False),
                "PyTorch FP32": in_pytorch(net, inputs),
            }
            for name, given in {**right, **faults_of(net, inputs)}.items():
                changed[name] += name in right or _differ(given, right["PyTorch FP32"])
                wrong[name] += is_wrong(net, inputs, given)
        for name, count in wrong.items():
            print(f"{net.name:18} {name:40} called wrong on {count} of {changed[name]} inputs", flush=True)


if __name__ == "__main__":
    main()
