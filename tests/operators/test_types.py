"""Operators in every type that PyTorch carries, and the rules of conversion between them."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from harness.operators import CARRIED, Unsupported, bind

NAN, INF = math.nan, math.inf


def run(name: str, *inputs, opset: int = 24, outputs: int = 1, types: dict[int, int] | None = None, **attributes):
    """Run one node; ``types`` declares the ONNX element types of its inputs, by position."""
    names = [f"x{number}" for number in range(len(inputs))]
    proto = helper.make_node(name, names, [f"y{number}" for number in range(outputs)], **attributes)
    node = ir.serde.deserialize_node(proto)
    for number, declared in (types or {}).items():
        node.inputs[number].type = ir.TensorType(ir.DataType(declared))
    call = bind(node, opset=opset, body=lambda graph: None)
    assert call is not None
    return call.function(*inputs, **call.settings, **call.dtypes)


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


MOVES = {
    "Compress": lambda x: run("Compress", x, torch.tensor([True, False, True]), axis=1),
    "Concat": lambda x: run("Concat", x, x, axis=1),
    "DepthToSpace": lambda x: run("DepthToSpace", x.reshape(1, 8, 1, 3), blocksize=2),
    "Expand": lambda x: run("Expand", x, ints(2, 1, 1, 1)),
    "Flatten": lambda x: run("Flatten", x, axis=2),
    "Gather": lambda x: run("Gather", x, ints(-1, 0), axis=1),
    "GatherElements": lambda x: run("GatherElements", x, ints(1, -1).reshape(2, 1, 1), axis=2),
    "GatherND": lambda x: run("GatherND", x, ints(1, -2).reshape(2, 1), batch_dims=1),
    "Pad": lambda x: run("Pad", x, ints(1, 0, 2, 1), None, ints(0, 2), mode="edge"),
    "Reshape": lambda x: run("Reshape", x, ints(0, -1)),
    "ReverseSequence": lambda x: run("ReverseSequence", x, ints(1, 2, 2)),
    "ScatterElements": lambda x: run("ScatterElements", x, ints(1).reshape(1, 1, 1), x[:1, :1, :1]),
    "ScatterND": lambda x: run("ScatterND", x, ints(1, 0).reshape(1, 2), x[0, :1]),
    "Slice": lambda x: run("Slice", x, ints(-1), ints(-9), ints(2), ints(-2)),
    "Split": lambda x: run("Split", x, axis=2, num_outputs=2, outputs=2)[1],
    "TensorScatter": lambda x: run("TensorScatter", x, x[:, :1], ints(2, 0), axis=1),
    "Tile": lambda x: run("Tile", x, ints(1, 2, 1)),
    "Transpose": lambda x: run("Transpose", x),
    "Unsqueeze": lambda x: run("Unsqueeze", x, ints(-1, 0)),
    "Where": lambda x: run("Where", torch.tensor([True, False, True, True]), x, x.flip(0)),
}
"""Operators that move elements of a tensor [2, 3, 4]."""


@pytest.mark.parametrize("dtype", dict.fromkeys(CARRIED.values()), ids=str)
@pytest.mark.parametrize("name", MOVES)
def test_elements_of_every_type_are_moved(name: str, dtype: torch.dtype):
    places = torch.arange(24).reshape(2, 3, 4)
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(0, 2, (24, dtype.itemsize), np.uint8))  # of bools too
    elements = codes.view(dtype).reshape(2, 3, 4)
    moved = MOVES[name](elements)
    taken = MOVES[name](places)
    assert moved.dtype == dtype
    assert moved.shape == taken.shape
    assert torch.equal(moved.contiguous().reshape(-1, 1).view(torch.uint8), codes[taken.reshape(-1)])


CASTS = {
    ("FLOAT8E4M3FN", 1): [448.0, 448.0, -448.0, 448.0, NAN, 0.0078125],
    ("FLOAT8E4M3FN", 0): [448.0, NAN, NAN, NAN, NAN, 0.0078125],
    ("FLOAT8E5M2", 1): [448.0, 57344.0, -57344.0, 57344.0, NAN, 0.0078125],
    ("FLOAT8E5M2", 0): [448.0, INF, -INF, INF, NAN, 0.0078125],
    ("FLOAT8E8M0", 1): [512.0, 2.0**17, 2.0**127, 2.0**127, NAN, 0.0078125],
    ("FLOAT4E2M1", 1): [6.0, 6.0, -6.0, 6.0, 0.0, 0.0],
}


@pytest.mark.parametrize(("to", "saturate"), CASTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_floats_saturate_where_they_are_told_to(to: str, saturate: int, dtype: torch.dtype):
    x = torch.tensor([464.0, 1e5, -1e5, INF, NAN, 0.0078125], dtype=dtype)
    if to == "FLOAT8E8M0":
        x[2] = 3e38
    found = run("Cast", x, to=getattr(TensorProto, to), saturate=saturate)
    assert found.dtype == CARRIED[to]
    np.testing.assert_array_equal(found.float().numpy(), np.array(CASTS[to, saturate]))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("up", [1.0, 2.0, 2.0, 2.0, 4.0]), ("down", [1.0, 1.0, 1.0, 1.0, 2.0]), ("nearest", [1.0, 1.0, 2.0, 2.0, 4.0])],
)
def test_powers_of_two_are_rounded_as_told(mode: str, expected: list[float]):
    x = torch.tensor([1.0, 1.25, 1.5, 1.75, 3.0])
    assert run("Cast", x, to=TensorProto.FLOAT8E8M0, round_mode=mode).float().tolist() == expected


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("INT4", [-8, 7, -1, 0, 1]),
        ("UINT4", [8, 7, 15, 0, 1]),
        ("INT2", [0, -1, -1, 0, 1]),
        ("UINT2", [0, 3, 3, 0, 1]),
        ("UINT16", [8, 7, 2**16 - 1, 16, 17]),
        ("UINT64", [8, 7, 2**64 - 1, 16, 17]),
    ],
)
def test_integers_lose_the_bits_beyond(to: str, expected: list[int]):
    found = run("Cast", torch.tensor([8, 7, -1, 16, 17], dtype=torch.int32), to=getattr(TensorProto, to))
    assert found.dtype == CARRIED[to]
    assert found.numpy().tolist() == expected


def test_a_float_becomes_an_integer_towards_zero_and_a_tie_rounds_to_even():
    x = torch.tensor([-1.7, -0.5, 0.5, 1.5, 2.5])
    assert run("Cast", x, to=TensorProto.INT32).tolist() == [-1, 0, 0, 1, 2]
    assert run("Round", x).tolist() == [-2, 0, 0, 2, 2]


def test_a_cast_to_strings_is_left_to_others():
    node = ir.serde.deserialize_node(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING))
    assert bind(node, opset=13, body=lambda graph: None) is None


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_bits_are_those_of_the_declared_type(precision: torch.dtype):
    x = torch.tensor([1.0, -2.0], dtype=precision)
    found = run("BitCast", x, opset=26, to=TensorProto.INT32, types={0: TensorProto.FLOAT})
    assert found.tolist() == [0x3F800000, 0xC0000000 - 2**32]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_numbers_are_computed(dtype: torch.dtype):
    a, b = torch.tensor([7, 40000], dtype=dtype), torch.tensor([2, 3], dtype=dtype)
    expected = {"Add": [9, 40003], "Mul": [14, 120000], "Div": [3, 13333], "Mod": [1, 1], "Max": [7, 40000]}
    for name, values in expected.items():
        found = run(name, a, b)
        assert found.dtype == dtype
        assert [int(it) for it in found] == [value % 2 ** (8 * dtype.itemsize) for value in values]
    assert run("Greater", a, b).tolist() == [True, True]
    assert int(run("ReduceMax", a, ints(0), keepdims=0)) == 40000
    assert int(run("ArgMax", a, keepdims=0)) == 1
    values, where = run("TopK", a, ints(1))
    assert (int(values), int(where), values.dtype) == (40000, 1, dtype)


def test_what_int64_does_not_hold_is_refused():
    big = torch.tensor([2**63, 1], dtype=torch.uint64)
    with pytest.raises(Unsupported, match="2\\^63"):
        run("Max", big, big)
    shifted = run("BitShift", big, torch.tensor([63, 1], dtype=torch.uint64), direction="RIGHT")
    assert [int(it) for it in shifted] == [1, 0]


def test_an_integer_divided_by_zero_is_refused():
    for name in ("Div", "Mod"):
        with pytest.raises(Unsupported):
            run(name, ints(1), ints(0))


def test_of_updates_for_one_place_the_last_stays():
    x = torch.zeros(4)
    updates = torch.arange(1.0, 301)
    indices = torch.zeros(300, 1, dtype=torch.int64)
    assert run("ScatterND", x, indices, updates).tolist() == [300, 0, 0, 0]
    assert run("ScatterElements", x, indices.reshape(-1), updates).tolist() == [300, 0, 0, 0]
    assert run("ScatterND", x, indices, updates, reduction="add").tolist() == [300 * 301 / 2, 0, 0, 0]


def test_of_equal_elements_the_lower_index_comes_first():
    x = torch.tensor([1.0, 3.0, 3.0, 3.0, 0.0] * 100)
    _, where = run("TopK", x, ints(5), outputs=2)
    assert where.tolist() == [1, 2, 3, 6, 7]
    _, where = run("TopK", x, ints(3), largest=0, outputs=2)
    assert where.tolist() == [4, 9, 14]


@pytest.mark.parametrize("axis", [{}, {"axis": 0}])
def test_nan_does_not_hide_equal_elements(axis: dict[str, int]):
    values, first, which, counts = run("Unique", torch.tensor([1.0, 3, NAN, 3, -0.0, 0.0, 1]), outputs=4, **axis)
    np.testing.assert_array_equal(values.numpy(), [0, 1, 3, NAN])
    assert first.tolist() == [4, 0, 1, 2]
    assert which.tolist() == [1, 2, 3, 2, 0, 0, 1]
    assert counts.tolist() == [2, 2, 2, 1]


def test_nothing_is_reduced_to_the_neutral_element():
    nothing = torch.zeros(2, 0)
    expected = {"Sum": 0, "Prod": 1, "Max": -INF, "Min": INF, "L1": 0, "L2": 0, "LogSum": -INF, "SumSquare": 0}
    for name, neutral in (expected | {"LogSumExp": -INF}).items():
        assert run(f"Reduce{name}", nothing, ints(1), keepdims=0).tolist() == [neutral] * 2
    assert run("Softmax", nothing, opset=11).shape == (2, 0)


OLD = [
    ("Add", 6, [(2, 3, 4), (3,)], {"axis": 1, "broadcast": 1}, lambda a, b: a + b[:, None]),
    ("Mul", 1, [(2, 3, 4), (3, 4)], {"broadcast": 1, "consumed_inputs": [0, 0]}, lambda a, b: a * b),
    ("Greater", 1, [(2, 3), (2,)], {"axis": 0, "broadcast": 1}, lambda a, b: a > b[:, None]),
    ("PRelu", 6, [(2, 3, 4), (3,)], {}, lambda a, b: torch.where(a < 0, a * b[:, None], a)),
    ("Gemm", 6, [(2, 3), (3, 4), (4,)], {"broadcast": 1}, lambda a, b, c: a @ b + c),
    ("Concat", 1, [(2, 3), (2, 1)], {}, lambda a, b: torch.cat([a, b], 1)),
    ("Reshape", 1, [(2, 3)], {"shape": [-1, 2]}, lambda a: a.reshape(3, 2)),
    ("Pad", 1, [(2, 3)], {"paddings": [0, 1, 0, 0], "value": 2.0}, lambda a: F.pad(a, (1, 0), value=2)),
    ("Cast", 1, [(2, 3)], {"to": "INT32"}, lambda a: a.int()),
    ("Clip", 1, [(2, 3)], {"max": 0.0}, lambda a: a.clamp(max=0)),
]


@pytest.mark.parametrize(("name", "opset", "shapes", "attributes", "expected"), OLD)
def test_forms_that_onnxruntime_no_longer_runs(name: str, opset: int, shapes, attributes, expected):
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    torch.testing.assert_close(run(name, *inputs, opset=opset, **attributes), expected(*inputs))


def test_sequences_and_optional_values():
    a, b, c = torch.ones(2, 3), torch.zeros(1, 3), torch.ones(1, 3)
    sequence = run("SequenceInsert", run("SequenceConstruct", a, b), c, ints(-1)[0])
    assert [it.shape[0] for it in sequence] == [2, 1, 1]
    assert sequence[1] is c
    assert run("SequenceAt", sequence, ints(-1)[0]) is b
    assert run("SequenceErase", sequence, ints(0)[0]) == [c, b]
    assert run("SequenceErase", sequence)[-1] is c
    assert int(run("SequenceLength", sequence)) == 3
    assert run("ConcatFromSequence", sequence, axis=0).shape == (4, 3)
    assert run("ConcatFromSequence", sequence[1:], axis=-1, new_axis=1).shape == (1, 3, 2)
    assert [it.shape for it in run("SplitToSequence", a, axis=1, keepdims=0)] == [(2,)] * 3
    assert [it.shape[1] for it in run("SplitToSequence", a, ints(2)[0], axis=1)] == [2, 1]
    assert run("OptionalHasElement", None).item() is False
    assert run("OptionalGetElement", sequence) is sequence
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
    assert run("Optional", type=kind) is None
