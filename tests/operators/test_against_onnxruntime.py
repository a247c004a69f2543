"""Operators of old and new opsets with random attributes against ONNX Runtime: a second opinion where tests are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from harness.operators import bind

Draw = Callable[[st.SearchStrategy[Any]], Any]
ort.set_default_logger_severity(4)


@dataclass(frozen=True, kw_only=True)
class Question:
    """One node with its inputs."""

    inputs: list[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1


QUESTIONS: dict[tuple[str, int], Callable[[str, int, Draw], Question]] = {}


def asks(*names: str, opsets: tuple[int, ...]):
    """Register what draws a question about operators at opsets."""

    def register(function):
        QUESTIONS.update({(name, opset): function for name in names for opset in opsets})
        return function

    return register


def numbers(draw: Draw, shape: tuple[int, ...], dtype: Any = np.float32, *, low: float = -4, high: float = 4):
    """Return random numbers; floats are multiples of 1/4, so that some are equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step = 4 if np.dtype(dtype).kind == "f" else 1
    return (rng.integers(int(low * step), int(high * step), shape, endpoint=True) / step).astype(dtype)


def shapes(*, ranks: tuple[int, int] = (1, 4), smallest: int = 1) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(smallest, 4), min_size=ranks[0], max_size=ranks[1]).map(tuple)


def axis_of(draw: Draw, rank: int) -> int:
    return draw(st.integers(-rank, rank - 1))


def axes_of(draw: Draw, rank: int, *, least: int = 1) -> list[int]:
    chosen = draw(st.lists(st.integers(0, rank - 1), min_size=least, unique=True))
    return [axis - rank if draw(st.booleans()) else axis for axis in chosen]


def int64(values: Any) -> np.ndarray:
    return np.asarray(values, np.int64)


@asks("Softmax", "LogSoftmax", "Hardmax", opsets=(1, 11, 13))
def along_axis(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()))
    lowest = 0 if opset == 1 else -x.ndim
    return Question(inputs=[x], attributes={"axis": draw(st.integers(lowest, x.ndim - 1))})


@asks("Elu", "LeakyRelu", "ThresholdedRelu", "Celu", opsets=(16,))
def with_alpha(name: str, opset: int, draw: Draw) -> Question:
    return Question(
        inputs=[numbers(draw, draw(shapes()))], attributes={"alpha": draw(st.sampled_from([0.3, 1.0, 2.0]))}
    )


@asks("HardSigmoid", opsets=(6,))
def hard_sigmoid(name: str, opset: int, draw: Draw) -> Question:
    attributes = {"alpha": draw(st.sampled_from([0.2, 1 / 6, 0.5])), "beta": draw(st.sampled_from([0.5, 0.6]))}
    return Question(inputs=[numbers(draw, draw(shapes()))], attributes=attributes)


@asks("Selu", "Softplus", "Softsign", "Erf", "Round", "Sign", opsets=(13,))
def of_one(name: str, opset: int, draw: Draw) -> Question:
    return Question(inputs=[numbers(draw, draw(shapes(smallest=0)), high=30)])


@asks("Shrink", opsets=(9,))
def shrink(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()), draw(st.sampled_from([np.float32, np.int32, np.int8])))
    return Question(inputs=[x], attributes={"lambd": draw(st.sampled_from([0.5, 1.5])), "bias": 1.0})


@asks("Clip", opsets=(6,))
def clip_by_attributes(name: str, opset: int, draw: Draw) -> Question:
    bounds = draw(st.sampled_from([{}, {"min": -1.5}, {"max": 2.0}, {"min": 0.0, "max": 6.0}]))
    return Question(inputs=[numbers(draw, draw(shapes()))], attributes=bounds)


@asks("Clip", opsets=(11, 13))
def clip(name: str, opset: int, draw: Draw) -> Question:
    kinds = [np.float32] if opset == 11 else [np.float32, np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64]
    dtype = draw(st.sampled_from(kinds))
    low, high = (None if draw(st.booleans()) else dtype(bound) for bound in (1, 3))
    return Question(inputs=[numbers(draw, draw(shapes()), dtype, low=0, high=6), low, high])


@asks("Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Greater", "Less", opsets=(7, 13))
def of_two(name: str, opset: int, draw: Draw) -> Question:
    kinds = [np.float32, np.int32, np.int64] if opset == 13 else [np.float32]
    if opset == 13 and name in ("Max", "Min"):
        kinds += [np.uint32, np.uint64]
    if opset == 7 and name == "Equal":
        kinds = [np.int64]
    dtype, shape = draw(st.sampled_from(kinds)), draw(shapes(ranks=(1, 3)))
    low = 1 if np.dtype(dtype).kind == "u" else -4
    other = tuple(1 if draw(st.booleans()) else size for size in shape)
    if opset == 7 and name in ("Max", "Min"):
        other = shape
    b = numbers(draw, other, dtype, low=low)
    return Question(inputs=[numbers(draw, shape, dtype, low=low), np.where(b == 0, dtype(3), b)])


@asks("Pow", opsets=(13,))
def power(name: str, opset: int, draw: Draw) -> Question:
    base, exponent = (draw(st.sampled_from([np.float32, np.int32, np.int64, np.float64])) for _ in range(2))
    shape = draw(shapes())
    return Question(inputs=[numbers(draw, shape, base, low=1), numbers(draw, shape, exponent, low=0)])


@asks("Mod", opsets=(10, 13))
def mod(name: str, opset: int, draw: Draw) -> Question:
    fmod = draw(st.booleans())
    kinds = [np.float32] if fmod else [np.int8, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
    dtype, shape = draw(st.sampled_from(kinds)), draw(shapes())
    low = 0 if np.dtype(dtype).kind == "u" else -9
    b = numbers(draw, shape, dtype, low=low)
    return Question(
        inputs=[numbers(draw, shape, dtype, low=low, high=9), np.where(b == 0, dtype(3), b)],
        attributes={"fmod": int(fmod)},
    )


@asks("BitShift", opsets=(11,))
def bit_shift(name: str, opset: int, draw: Draw) -> Question:
    dtype, shape = draw(st.sampled_from([np.uint8, np.uint32, np.uint64])), draw(shapes())
    x = numbers(draw, shape, np.uint8, low=0, high=255).astype(dtype)
    if draw(st.booleans()):
        x = ~x  # with the highest bits
    y = numbers(draw, shape, dtype, low=0, high=7)
    return Question(inputs=[x, y], attributes={"direction": draw(st.sampled_from(["LEFT", "RIGHT"]))})


REDUCTIONS = [
    f"Reduce{name}" for name in ("Sum", "Mean", "Prod", "Max", "Min", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
]


@asks(*REDUCTIONS, opsets=(1, 11, 13, 18))
def reduction(name: str, opset: int, draw: Draw) -> Question:
    dtype = draw(st.sampled_from([np.float32, np.int32])) if "Log" not in name else np.float32
    x = numbers(draw, draw(shapes()), dtype, low=1 if "LogSum" in name else -4)
    axes = axes_of(draw, x.ndim, least=0)
    if opset < 11:
        axes = [axis % x.ndim for axis in axes]
    attributes = {"keepdims": draw(st.integers(0, 1))}
    if opset >= (13 if name == "ReduceSum" else 18):
        attributes["noop_with_empty_axes"] = draw(st.integers(0, 1))
        return Question(inputs=[x, int64(axes)], attributes=attributes)
    return Question(inputs=[x], attributes=attributes | ({"axes": axes} if axes else {}))


@asks("ArgMax", "ArgMin", opsets=(1, 11, 12, 13))
def place(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()), draw(st.sampled_from([np.float32, np.int32])), high=1)
    axis = axis_of(draw, x.ndim) if opset >= 11 else draw(st.integers(0, x.ndim - 1))
    last = {"select_last_index": draw(st.integers(0, 1))} if opset >= 12 else {}
    return Question(inputs=[x], attributes={"axis": axis, "keepdims": draw(st.integers(0, 1)), **last})


@asks("TopK", opsets=(1, 10, 11))
def top_k(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()), draw(st.sampled_from([np.float32, np.int64])) if opset == 11 else np.float32)
    axis = axis_of(draw, x.ndim)
    k = draw(st.integers(1, x.shape[axis]))
    if opset == 1:
        return Question(inputs=[x], attributes={"axis": axis, "k": k}, outputs=2)
    largest = {"largest": draw(st.integers(0, 1))} if opset == 11 else {}
    return Question(inputs=[x, int64([k])], attributes={"axis": axis, **largest}, outputs=2)


@asks("Unique", opsets=(11,))
def unique(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()), draw(st.sampled_from([np.float32, np.int64])), low=0, high=1)
    axis = {"axis": axis_of(draw, x.ndim)} if draw(st.booleans()) else {}
    return Question(inputs=[x], attributes={"sorted": draw(st.integers(0, 1)), **axis}, outputs=4)


@asks("CumSum", opsets=(11, 14))
def running(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()), draw(st.sampled_from([np.float32, np.int32, np.int64])))
    attributes = {"exclusive": draw(st.integers(0, 1)), "reverse": draw(st.integers(0, 1))}
    return Question(inputs=[x, int64(axis_of(draw, x.ndim))], attributes=attributes)


@asks("Slice", opsets=(1, 10, 13))
def slices(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()))
    axes = axes_of(draw, x.ndim)
    ends = st.one_of(st.integers(-6, 6), st.sampled_from([-(2**31), 2**31 - 1]))
    first, last = [draw(ends) for _ in axes], [draw(ends) for _ in axes]
    if opset == 1:
        return Question(
            inputs=[x], attributes={"starts": first, "ends": last, "axes": [axis % x.ndim for axis in axes]}
        )
    steps = [draw(st.sampled_from([-3, -2, -1, 1, 2, 3])) for _ in axes]
    # Backwards to the largest integer is nothing by the specification, and everything in ONNX Runtime.
    last = [-(2**31) if end == 2**31 - 1 and step < 0 else end for end, step in zip(last, steps, strict=True)]
    return Question(inputs=[x, int64(first), int64(last), int64(axes), int64(steps)])


@asks("Pad", opsets=(2, 11, 13, 18, 19))
def pad(name: str, opset: int, draw: Draw) -> Question:
    modes = ["constant", "edge", "reflect"] + (["wrap"] if opset >= 19 else [])
    mode = draw(st.sampled_from(modes))
    x = numbers(draw, draw(shapes(ranks=(1, 3), smallest=2)))
    axes = axes_of(draw, x.ndim) if opset >= 18 else list(range(x.ndim))
    # ONNX Runtime crops before it pads; a negative pad of the other modes is compared where it leaves two elements.
    pads = [draw(st.integers(-1 if mode == "constant" else 0, 1)) for _ in range(2) for _ in axes]
    if opset == 2:
        return Question(inputs=[x], attributes={"mode": mode, "pads": pads, "value": 1.5})
    rest = [int64(axes)] if opset >= 18 else []
    return Question(inputs=[x, int64(pads), np.float32(1.5), *rest], attributes={"mode": mode})


@asks("Split", opsets=(2, 11, 13, 18))
def split(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()))
    axis = axis_of(draw, x.ndim) if opset >= 11 else draw(st.integers(0, x.ndim - 1))
    first = draw(st.integers(0, x.shape[axis]))
    sizes = [first, x.shape[axis] - first]
    if opset < 13:
        return Question(inputs=[x], attributes={"axis": axis, "split": sizes}, outputs=2)
    if opset == 18 and x.shape[axis] > 2:
        return Question(inputs=[x], attributes={"axis": axis, "num_outputs": 2}, outputs=2)
    return Question(inputs=[x, int64(sizes)], attributes={"axis": axis}, outputs=2)


@asks("Squeeze", "Unsqueeze", opsets=(1, 11, 13))
def squeeze(name: str, opset: int, draw: Draw) -> Question:
    shape = draw(shapes())
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    axes = axes_of(draw, len(shape)) if name == "Unsqueeze" else ones
    if opset == 1 or name == "Unsqueeze":
        axes = sorted({axis % len(shape) for axis in axes})
    if opset == 13:
        return Question(inputs=[numbers(draw, shape), *([int64(axes)] if axes else [])])
    return Question(inputs=[numbers(draw, shape)], attributes={"axes": axes} if axes else {})


@asks("Flatten", opsets=(1, 9, 11, 13))
def flatten(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes(smallest=0)))
    return Question(inputs=[x], attributes={"axis": draw(st.integers(0 if opset < 11 else -x.ndim, x.ndim))})


@asks("Gather", "GatherElements", opsets=(11, 13))
def gather(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()), draw(st.sampled_from([np.float32, np.int64, np.uint32])), low=0)
    axis = axis_of(draw, x.ndim)
    shape = draw(shapes(ranks=(0, 2))) if name == "Gather" else tuple(draw(st.integers(1, size)) for size in x.shape)
    indices = numbers(
        draw, shape, draw(st.sampled_from([np.int32, np.int64])), low=-x.shape[axis], high=x.shape[axis] - 1
    )
    return Question(inputs=[x, indices], attributes={"axis": axis})


@asks("GatherND", opsets=(11, 12))
def gather_nd(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes(ranks=(2, 4))))
    batch = draw(st.integers(0, x.ndim - 1)) if opset == 12 else 0
    depth = draw(st.integers(1, x.ndim - batch))
    shape = (*x.shape[:batch], draw(st.integers(1, 3)))
    parts = [numbers(draw, shape, np.int64, low=-size, high=size - 1) for size in x.shape[batch : batch + depth]]
    return Question(inputs=[x, np.stack(parts, -1)], attributes={"batch_dims": batch} if opset == 12 else {})


@asks("ScatterElements", "ScatterND", opsets=(11, 16, 18))
def scatter(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes(ranks=(1, 3))))
    reductions = {11: ["none"], 16: ["none", "add", "mul"], 18: ["none", "add", "mul", "max", "min"]}[opset]
    reduction = draw(st.sampled_from(reductions))
    attributes = {"reduction": reduction} if opset > 11 else {}
    count = draw(st.integers(1, 4))
    if name == "ScatterND":
        depth = draw(st.integers(1, x.ndim))
        parts = [numbers(draw, (count,), np.int64, low=-size, high=size - 1) for size in x.shape[:depth]]
        return Question(
            inputs=[x, np.stack(parts, -1), numbers(draw, (count, *x.shape[depth:]))], attributes=attributes
        )
    axis = axis_of(draw, x.ndim)
    shape = tuple(draw(st.integers(1, size)) for size in x.shape)
    indices = numbers(draw, shape, np.int64, low=-x.shape[axis], high=x.shape[axis] - 1)
    return Question(inputs=[x, indices, numbers(draw, shape)], attributes={"axis": axis, **attributes})


@asks("OneHot", opsets=(9, 11))
def one_hot(name: str, opset: int, draw: Draw) -> Question:
    dtype = draw(st.sampled_from([np.int64, np.float32]))
    indices = np.floor(numbers(draw, draw(shapes(ranks=(1, 3))), dtype, low=-6, high=6)).astype(dtype)
    axis = draw(st.integers(-indices.ndim - 1, indices.ndim))
    return Question(inputs=[indices, dtype(4), np.float32([0.5, 2])], attributes={"axis": axis})


@asks("Compress", opsets=(9, 11))
def compress(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes()))
    axis = {"axis": draw(st.integers(0, x.ndim - 1))} if draw(st.booleans()) else {}
    longest = x.shape[axis["axis"]] if axis else x.size
    condition = np.array(draw(st.lists(st.booleans(), min_size=1, max_size=longest)))
    return Question(inputs=[x, condition], attributes=axis)


@asks("ReverseSequence", opsets=(10,))
def reverse_sequence(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes(ranks=(2, 4))))
    batch = draw(st.integers(0, 1))
    lengths = numbers(draw, (x.shape[batch],), np.int64, low=1, high=x.shape[1 - batch])
    return Question(inputs=[x, lengths], attributes={"batch_axis": batch, "time_axis": 1 - batch})


@asks("DepthToSpace", opsets=(11, 13))
def depth_to_space(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, (2, 8, draw(st.integers(1, 3)), 2))
    return Question(inputs=[x], attributes={"blocksize": 2, "mode": draw(st.sampled_from(["DCR", "CRD"]))})


@asks("Trilu", opsets=(14,))
def trilu(name: str, opset: int, draw: Draw) -> Question:
    x = numbers(draw, draw(shapes(ranks=(2, 4))))
    return Question(inputs=[x, int64(draw(st.integers(-3, 3)))], attributes={"upper": draw(st.integers(0, 1))})


@asks("Range", opsets=(11,))
def ranges(name: str, opset: int, draw: Draw) -> Question:
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int64]))
    start, limit, step = (draw(st.integers(-20, 20)) for _ in range(3))
    scale = 1 if dtype is np.int64 else 4
    return Question(inputs=[dtype(start / scale), dtype(limit / scale), dtype((step or 1) / scale)])


@asks("Gemm", opsets=(7, 13))
def gemm(name: str, opset: int, draw: Draw) -> Question:
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    a_first, b_first = draw(st.booleans()), draw(st.booleans())
    c_shape = draw(st.sampled_from([(m, n), (n,), (1, n), (m, 1), (1,)]))
    attributes = {"alpha": 0.5, "beta": draw(st.sampled_from([0.0, 1.0, 2.0])), "transA": a_first, "transB": b_first}
    a, b = numbers(draw, (k, m) if a_first else (m, k)), numbers(draw, (n, k) if b_first else (k, n))
    return Question(inputs=[a, b, numbers(draw, c_shape)], attributes=attributes)


@asks("PRelu", opsets=(7, 16))
def prelu(name: str, opset: int, draw: Draw) -> Question:
    shape = draw(shapes(ranks=(2, 4)))
    slope = tuple(1 if draw(st.booleans()) else size for size in shape[draw(st.integers(0, 1)) :])
    return Question(inputs=[numbers(draw, shape), numbers(draw, slope)])


@asks("Cast", opsets=(9, 13))
def cast(name: str, opset: int, draw: Draw) -> Question:
    kinds = [np.float32, np.float16, np.float64, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64]
    x = numbers(draw, draw(shapes(smallest=0)), draw(st.sampled_from([*kinds, np.uint64])), low=0, high=100)
    to = draw(st.sampled_from([*kinds, np.uint64, np.bool_]))
    return Question(inputs=[x], attributes={"to": helper.np_dtype_to_tensor_dtype(np.dtype(to))})


@asks("Expand", "Tile", opsets=(13,))
def repeated(name: str, opset: int, draw: Draw) -> Question:
    shape = draw(shapes())
    sizes = [draw(st.integers(0 if name == "Tile" else 1, 3)) for _ in shape]
    if name == "Expand":
        shape = tuple(size if draw(st.booleans()) else 1 for size in shape)
        sizes = [size if size > 1 else repeat for size, repeat in zip(shape, sizes, strict=True)]
        sizes = [draw(st.integers(1, 2)), *sizes]
    return Question(inputs=[numbers(draw, shape), int64(sizes)])


def computed(node: onnx.NodeProto, opset: int, inputs: list[np.ndarray | None]) -> list[np.ndarray]:
    call = bind(ir.serde.deserialize_node(node), opset=opset, body=lambda graph: None)
    assert call is not None
    tensors = [None if value is None else torch.from_numpy(np.array(value)) for value in inputs]
    results = call.function(*tensors, **call.settings, **call.dtypes)
    return [it.numpy() for it in (results if isinstance(results, tuple) else (results,))]


def by_onnxruntime(
    node: onnx.NodeProto, opset: int, inputs: list[np.ndarray | None], like: list[np.ndarray]
) -> list[np.ndarray]:
    given = {name: np.asarray(value) for name, value in zip(node.input, inputs, strict=True) if value is not None}

    def described(name: str, array: np.ndarray, shape: Any):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)

    graph = helper.make_graph(
        [node],
        "question",
        [described(name, array, array.shape) for name, array in given.items()],
        [described(name, array, None) for name, array in zip(node.output, like, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options).run(None, given)


@pytest.mark.parametrize(("name", "opset"), QUESTIONS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_both_give_the_same(name: str, opset: int, data: st.DataObject):
    question = QUESTIONS[name, opset](name, opset, data.draw)
    names = [f"x{number}" if value is not None else "" for number, value in enumerate(question.inputs)]
    outputs = [f"y{number}" for number in range(question.outputs)]
    node = helper.make_node(name, names, outputs, **question.attributes)
    ours = computed(node, opset, question.inputs)
    theirs = by_onnxruntime(node, opset, question.inputs, ours)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6, strict=True)
