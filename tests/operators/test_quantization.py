"""Codes of every type: against ONNX Runtime where it has them, else against what their definition says."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from single_node import assert_agrees, call_of, here, model_of


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


SCALES = {"tensor": (), "axis": (6,), "block": (4, 3)}


@given(
    st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]),
    st.sampled_from(list(SCALES)),
    st.booleans(),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=50)
def test_codes_and_numbers(dtype: type, kind: str, shifted: bool, seed: int):
    rng = np.random.default_rng(seed)
    shape, limits = SCALES[kind], np.iinfo(dtype)
    scale = rng.uniform(0.001, 0.1, shape).astype(np.float32)
    low = limits.min if shifted else 0
    zero = np.array(rng.integers(low, limits.max if shifted else 1, shape), dtype)
    chosen = {"opset": 21, "axis": 1, "block_size": 2 if kind == "block" else 0}
    x = rng.normal(0, 3, (4, 6)).astype(np.float32)
    assert_agrees("QuantizeLinear", [x, scale, zero], twice=False, **chosen)
    codes = rng.integers(limits.min, limits.max, (4, 6), endpoint=True).astype(dtype)
    assert_agrees("DequantizeLinear", [codes, scale, zero], **chosen)


@pytest.mark.parametrize("opset", [10, 13, 19])
def test_ties_go_to_even_and_the_ends_hold(opset: int):
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 300, -300], np.float32)
    inputs = [x, np.array(1, np.float32), np.array(0, np.int8)]
    assert_agrees("QuantizeLinear", inputs, opset=opset)
    assert here(model_of("QuantizeLinear", inputs, opset=opset), inputs)[0].tolist() == [0, 2, 2, 0, -2, 127, -128]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("FLOAT8E4M3FN", ml_dtypes.float8_e4m3fn),
        ("FLOAT8E5M2", ml_dtypes.float8_e5m2),
        ("FLOAT8E4M3FNUZ", ml_dtypes.float8_e4m3fnuz),
        ("FLOAT4E2M1", ml_dtypes.float4_e2m1fn),
        ("INT4", ml_dtypes.int4),
        ("UINT4", ml_dtypes.uint4),
        ("INT2", ml_dtypes.int2),
        ("UINT2", ml_dtypes.uint2),
    ],
)
def test_small_types_hold_the_nearest_of_their_numbers(name: str, numbers: type):
    """The nearest is searched among all numbers of the type; the numbers tried lie on and about the ties."""
    if "FLOAT8" in name:
        every = np.arange(256, dtype=np.uint8).view(numbers).astype(np.float64)
    elif "FLOAT4" in name:
        every = np.array([sign * n for sign in (1, -1) for n in (0, 0.5, 1, 1.5, 2, 3, 4, 6)], np.float64)
    else:
        held = ml_dtypes.iinfo(numbers)
        every = np.arange(int(held.min), int(held.max) + 1).astype(np.float64)
    every = np.unique(every[np.isfinite(every)])
    between = (every[1:] + every[:-1]) / 2
    x = np.concatenate([every, np.nextafter(between, np.inf), np.nextafter(between, -np.inf)])
    x = np.concatenate([x, [every.max() * 2, every.min() * 2 - 1]])
    number = getattr(onnx.TensorProto, name)
    model = model_of("QuantizeLinear", [x, np.array(1, np.float64)], opset=25, output_dtype=number)
    call = call_of(model)
    got = call.function(torch.from_numpy(x), torch.tensor(1.0, dtype=torch.float64), **call.settings, **call.dtypes)
    nearest = every[np.abs(x[:, None] - every).argmin(1)]
    rounded = x.astype(np.float32).astype(np.float64)  # PyTorch makes FP8 of FP64 by way of FP32: there ties are ties
    tied = np.isin(rounded, between) if "FLOAT8" in name else np.zeros(len(x), bool)
    np.testing.assert_array_equal(got.double().numpy()[~tied], nearest[~tied])


def test_fp8_that_does_not_saturate_overflows():
    x = np.array([500.0, 1e6, -1e6], np.float32)
    for name, expected in (("FLOAT8E4M3FN", [np.nan] * 3), ("FLOAT8E5M2", [512, np.inf, -np.inf])):
        chosen = {"output_dtype": getattr(onnx.TensorProto, name), "saturate": 0}
        model = model_of("QuantizeLinear", [x, np.array(1, np.float32)], opset=25, **chosen)
        call = call_of(model)
        got = call.function(torch.from_numpy(x), torch.tensor(1.0), **call.settings, **call.dtypes)
        np.testing.assert_array_equal(got.float().numpy(), np.array(expected, np.float32))


def test_dynamic_ranges_hold_zero():
    for x in (normal(3, 5), np.abs(normal(3, 5)), -np.abs(normal(3, 5)), np.zeros((2, 2), np.float32)):
        assert_agrees("DynamicQuantizeLinear", [x], opset=11, outputs=3, twice=False)


def test_products_of_codes():
    rng = np.random.default_rng(0)
    # Half of the signed range: on processors without VNNI, ONNX Runtime adds two products in 16 bits, and saturates.
    a, b = rng.integers(0, 255, (2, 3, 5)).astype(np.uint8), rng.integers(-64, 64, (5, 4)).astype(np.int8)
    zero, zeros = np.array(120, np.uint8), np.array([1, -3, 0, 7], np.int8)
    assert_agrees("MatMulInteger", [a, b, zero, zeros], opset=10)
    scales = rng.uniform(0.01, 0.1, 4).astype(np.float32)
    one, out = np.array(0.03, np.float32), np.array(0.37, np.float32)
    inputs = [a, one, zero, b, scales, zeros, out, np.array(9, np.uint8)]
    assert_agrees("QLinearMatMul", inputs, opset=10, twice=False)
    x, w = rng.integers(0, 255, (1, 4, 6, 6)).astype(np.uint8), rng.integers(-64, 64, (4, 2, 3, 3)).astype(np.int8)
    bias = rng.integers(-999, 999, 4).astype(np.int32)
    inputs = [x, one, zero, w, scales, np.zeros(4, np.int8), out, np.array(9, np.uint8), bias]
    assert_agrees("QLinearConv", inputs, opset=10, group=2, pads=[1, 1, 0, 1], strides=[2, 1], twice=False)
    w = rng.integers(0, 255, (4, 4, 3, 3)).astype(np.uint8)
    assert_agrees("ConvInteger", [x, w, zero, np.array(3, np.uint8)], opset=10, pads=[1, 1, 1, 1])


def test_four_bits_travel_in_eight():
    node = helper.make_node("DequantizeLinear", ["x", "scale"], ["y"])
    graph = helper.make_graph([node], "one", [], [])
    call = call_of(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    got = call.function(torch.tensor([-8, 7], dtype=torch.int8), torch.tensor(0.5), **call.settings)
    assert got.tolist() == [-4.0, 3.5]
