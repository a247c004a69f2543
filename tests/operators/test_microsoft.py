"""ONNX Runtime's own operators against ONNX Runtime."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper
from single_node import assert_agrees, here, model_of, onnxruntime_gives

MICROSOFT = {"opset": 1, "domain": "com.microsoft"}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def codes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape).astype(np.uint8)


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


ZERO, OTHER = np.array(120, np.uint8), np.array(3, np.uint8)
CASES = {
    "Gelu": ([normal(3, 8)], {}),
    "BiasGelu": ([normal(3, 8), normal(8)], {}),
    "FastGelu": ([normal(3, 8), normal(8)], {}),
    "QuickGelu": ([normal(3, 8)], {"alpha": 1.5}),
    "EmbedLayerNormalization": (
        [
            np.array([[1, 2, 0], [3, 1, 1]], np.int32),
            np.array([[0, 1, 1], [0, 0, 1]], np.int32),
            normal(4, 8),
            normal(6, 8),
            normal(2, 8),
            normal(8),
            normal(8, seed=1),
            np.array([[1, 1, 0], [1, 1, 1]], np.int32),
        ],
        {"outputs": 2, "epsilon": 1e-6},
    ),
    "FusedMatMul": ([normal(2, 5, 3), normal(2, 4, 5)], {"transA": 1, "transB": 1, "alpha": 0.5}),
    "FusedMatMul batch": ([normal(3, 2, 5), normal(5, 2, 4)], {"transBatchA": 1, "transBatchB": 1}),
    "FusedGemm": (
        [normal(3, 5), normal(5, 4), normal(4)],
        {"activation": "LeakyRelu", "activation_alpha": 0.2, "alpha": 0.5},
    ),
    "FusedConv": (
        [normal(1, 4, 6, 6), normal(4, 2, 3, 3), normal(4), normal(1, 4, 6, 6)],
        {"activation": "Relu", "group": 2, "pads": [1, 1, 1, 1]},
    ),
    "Inverse": ([normal(2, 3, 3)], {}),
    "GridSample": ([normal(1, 2, 4, 5), normal(1, 3, 3, 2)], {"mode": "bicubic", "padding_mode": "border"}),
    "Trilu": ([normal(4, 4)], {"upper": 0}),
    "Pad": ([normal(2, 3), np.array([0, 1, 2, 0]), number(3)], {}),
    "Unique": ([np.array([4, 1, 4, 2, 1, 9], np.float32)], {"outputs": 3}),
    "ExpandDims": ([normal(2, 3), np.array(-1, np.int32)], {}),
    "QuantizeLinear": ([normal(3, 4), number(0.02), ZERO], {}),
    "DequantizeLinear": ([codes(3, 4), normal(3) ** 2, codes(3)], {"axis": 0}),
    "MatMulIntegerToFloat": (
        [codes(3, 5), codes(5, 4), number(0.1), normal(4) ** 2, ZERO, codes(4), normal(4)],
        {},
    ),
    "DynamicQuantizeMatMul": ([normal(3, 5), codes(5, 4), number(0.1), ZERO, normal(4)], {}),
    "QLinearAdd": ([codes(3, 4), number(0.1), ZERO, codes(4), number(0.03), OTHER, number(0.2), OTHER], {}),
    "QLinearMul": ([codes(3, 4), number(0.1), ZERO, codes(4), number(0.03), OTHER, number(0.2), ZERO], {}),
    "QLinearLeakyRelu": ([codes(3, 4), number(0.1), ZERO, number(0.06), OTHER], {"alpha": 0.1}),
    "QLinearSigmoid": ([codes(3, 4), number(0.1), ZERO, number(1 / 256), np.array(0, np.uint8)], {}),
    "QLinearGlobalAveragePool": ([codes(1, 2, 3, 3), number(0.1), ZERO, number(0.06), OTHER], {}),
    "QLinearAveragePool": (
        [codes(1, 2, 5, 5), number(0.1), ZERO, number(0.0613), OTHER],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    ),
    "QLinearConcat": (
        [number(0.1), ZERO, codes(2, 3), number(0.2), OTHER, codes(2, 4), number(0.05), ZERO],
        {"axis": 1},
    ),
    "QGemm": (
        [
            codes(3, 5),
            number(0.1),
            ZERO,
            codes(4, 5).astype(np.int8),
            normal(4) ** 2,
            np.array([0, 1, -2, 3], np.int8),
            np.array([100, -200, 300, 7], np.int32),
            number(7.3),
            OTHER,
        ],
        {"transB": 1},
    ),
    "TransposeMatMul": ([normal(2, 5, 3), normal(2, 5, 4)], {"transA": 1}),
    "RotaryEmbedding": ([normal(2, 3, 16), np.array([[0, 1, 2], [4, 5, 6]]), normal(8, 4), normal(8, 4, seed=1)], {}),
    "RotaryEmbedding offset": (
        [normal(2, 3, 16), np.array([2]), normal(8, 2), normal(8, 2, seed=1)],
        {"interleaved": 1, "num_heads": 2, "rotary_embedding_dim": 4},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator(name: str):
    inputs, settings = CASES[name]
    quantised = name.startswith(("Q", "Dynamic"))  # FP64 decides a tie otherwise
    assert_agrees(name.split()[0], inputs, **MICROSOFT, **settings, twice=not quantised)


@pytest.mark.parametrize("name", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_skip_is_added_before_it_is_normalised(name: str, biased: bool):
    """The statistics are not given out by every build of ONNX Runtime: the sum, the fourth output, is."""
    shift = [normal(8, seed=1)] if name == "SkipLayerNormalization" else []
    inputs = [normal(2, 3, 8), normal(2, 3, 8, seed=1), normal(8), *shift, *([normal(8, seed=2)] if biased else [])]
    model = model_of(name, inputs, **MICROSOFT, outputs=4, epsilon=1e-5)
    del model.graph.output[1:3]
    model.graph.node[0].output[1], model.graph.node[0].output[2] = "", ""
    y, total = onnxruntime_gives(model, inputs)
    found = here(model, inputs)
    np.testing.assert_allclose(found[0], y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[-1], total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [True, False])
def test_rows_of_a_table_of_few_bits(bits: int, points: bool):
    inputs = [codes(5, 48 * bits // 8), np.array([[4, 0], [1, 4]]), normal(5, 3)]
    inputs += [codes(5, -(-3 * bits // 8), seed=3)] if points else []
    settings = {"bits": bits, "block_size": 16, "gather_axis": 0, "quantize_axis": 1}
    assert_agrees("GatherBlockQuantized", inputs, **MICROSOFT, **settings)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention(rule: str):
    q, k, v = normal(2, 3, 16), 0.3 * normal(2, 3, 8), normal(2, 3, 12)
    decay = -np.abs(normal(2, 3, 2)) if "gated" in rule else None
    beta = np.abs(normal(2, 3, 2, seed=1)) if "delta" in rule else None
    inputs = [q, k, v, normal(2, 2, 4, 6), decay, beta]
    while inputs[-1] is None:
        inputs.pop()
    assert_agrees(
        "LinearAttention", inputs, **MICROSOFT, outputs=2, q_num_heads=4, kv_num_heads=2, update_rule=rule, atol=1e-4
    )


def test_a_causal_convolution_and_what_it_carries():
    inputs = [normal(2, 3, 5), normal(3, 1, 4), normal(3), normal(2, 3, 3)]
    assert_agrees("CausalConvWithState", inputs, **MICROSOFT, outputs=2, activation="silu", ndim=1)


def test_a_softmax_of_codes():
    inputs = [codes(3, 4), number(0.1), ZERO, number(1 / 256), np.array(0, np.uint8)]
    model = model_of("QLinearSoftmax", inputs, **MICROSOFT, axis=-1)
    model.graph.node[0].attribute.append(helper.make_attribute("opset", 13))
    np.testing.assert_array_equal(here(model, inputs)[0], onnxruntime_gives(model, inputs)[0])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [True, False])
def test_weights_of_few_bits(bits: int, points: bool):
    rows, columns, block = 3, 40, 16
    blocks = -(-columns // block)
    inputs = [normal(2, columns), codes(rows, blocks, block * bits // 8), normal(rows * blocks)]
    if points:
        inputs.append(codes(rows * -(-blocks * bits // 8), seed=3))
    settings = {"K": columns, "N": rows, "bits": bits, "block_size": block}
    assert_agrees("MatMulNBits", inputs, **MICROSOFT, **settings, rtol=1e-3, atol=1e-3)


MASKS = {
    "none": None,
    "lengths": np.array([4, 2], np.int32),
    "keys": np.array([[1, 1, 1, 0], [1, 0, 1, 1]], np.int32),
    "pairs": np.tril(np.ones((2, 4, 4), np.int32)),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_with_its_projection(mask: str, causal: int):
    inputs = [normal(2, 4, 8), normal(8, 24), normal(24), MASKS[mask]]
    assert_agrees("Attention", inputs, **MICROSOFT, num_heads=2, unidirectional=causal)


def test_attention_with_a_past():
    past = normal(2, 2, 2, 3, 4)
    inputs = [normal(2, 4, 8), normal(8, 24), normal(24), None, past]
    assert_agrees("Attention", inputs, **MICROSOFT, num_heads=2, unidirectional=1, outputs=2)


@pytest.mark.parametrize("mask", ["none", "lengths", "keys"])
def test_multi_head_attention(mask: str):
    inputs = [normal(2, 3, 8), normal(2, 4, 8), normal(2, 4, 8, seed=1), normal(24), MASKS[mask], normal(2, 2, 3, 4)]
    assert_agrees("MultiHeadAttention", inputs, **MICROSOFT, num_heads=2)


def test_multi_head_attention_with_a_past():
    inputs = [normal(2, 3, 8), normal(2, 3, 8, seed=1), normal(2, 3, 8, seed=2), None, None, None]
    inputs += [normal(2, 2, 5, 4), normal(2, 2, 5, 4, seed=1)]
    assert_agrees("MultiHeadAttention", inputs, **MICROSOFT, num_heads=2, outputs=3, unidirectional=1)


def grouped(lengths: list[int], rows: int, held: int, *, packed: bool = False, rotary: bool = False) -> list:
    """Return the inputs of two sequences with two heads of keys for four of queries, of size 16."""
    parts = [normal(2, rows, 64), normal(2, rows, 32), normal(2, rows, 32, seed=1)]
    first = [np.concatenate(parts, -1), None, None] if packed else parts
    past = [normal(2, 2, held, 16), normal(2, 2, held, 16, seed=1)]
    most = np.array(max(lengths), np.int32)
    caches = [normal(32, 8), normal(32, 8, seed=1)] if rotary else []
    return [*first, *past, np.array(lengths, np.int32) - 1, most, *caches]


@pytest.mark.parametrize(
    ("inputs", "settings"),
    [
        (grouped([4, 4], 4, 0), {}),
        (grouped([4, 4], 4, 0, packed=True, rotary=True), {"do_rotary": 1}),
        (grouped([6, 4], 1, 8), {}),
        (grouped([6, 4], 1, 8, rotary=True), {"do_rotary": 1, "rotary_interleaved": 1}),
        (grouped([7, 7], 1, 6), {"local_window_size": 3}),
        (grouped([5, 5], 5, 0), {"local_window_size": 2}),
        (grouped([4, 4], 4, 0), {"softcap": 2.0, "scale": 0.3}),
        (grouped([4, 4], 4, 0), {"smooth_softmax": 1}),
        ([*grouped([6, 4], 1, 8), None, None, None, None, normal(4)], {}),
        ([*grouped([6, 4], 1, 8), None, None, None, normal(2, 4, 1, 6)], {}),
        ([*grouped([4, 4], 4, 0, rotary=True), np.array([[0, 1, 2, 3]] * 2)], {"do_rotary": 1}),
        (grouped([4, 3], 4, 0), {}),
    ],
)
def test_grouped_queries_with_a_cache(inputs: list, settings: dict):
    """What lies in the cache behind a sequence's end is not defined: it is not compared."""
    settings = {"num_heads": 4, "kv_num_heads": 2, **settings}
    model = model_of("GroupQueryAttention", inputs, **MICROSOFT, outputs=3, **settings)
    ours, theirs = here(model, inputs), onnxruntime_gives(model, inputs)
    for number, last in enumerate(inputs[5]):
        kept = slice(0, last + 1)
        np.testing.assert_allclose(ours[0][number, kept], theirs[0][number, kept], rtol=1e-4, atol=1e-5)
        for mine, other in zip(ours[1:], theirs[1:], strict=True):
            assert mine.shape == other.shape
            np.testing.assert_allclose(mine[number, :, kept], other[number, :, kept], rtol=1e-4, atol=1e-5)


def test_what_no_cpu_build_of_onnx_runtime_has():
    """Each by its formula, in NumPy."""
    x, bias = normal(2, 3, 4, 6), normal(2, 1, 1, 6)
    settings = {"axis": 3, "is_inner_broadcast": 1}
    [got] = here(model_of("BiasSoftmax", [x, bias], **MICROSOFT, **settings), [x, bias])
    powers = np.exp(x + bias)
    np.testing.assert_allclose(got, powers / powers.sum(-1, keepdims=True), rtol=1e-5)
    settings = {"signal_ndim": 1, "normalized": 0, "onesided": 1}
    [got] = here(model_of("Rfft", [x], **MICROSOFT, **settings), [x])
    np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], np.fft.rfft(x), rtol=1e-4, atol=1e-5)
    [back] = here(model_of("Irfft", [got], **MICROSOFT, **settings), [got])
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-5)
    scale, shift = normal(6), normal(6, seed=1)
    settings = {"groups": 3, "activation": 1, "epsilon": 1e-5}
    [got] = here(model_of("GroupNorm", [x, scale, shift], **MICROSOFT, **settings), [x, scale, shift])
    parts = x.reshape(2, 12, 3, 2)
    mean, spread = parts.mean((1, 3), keepdims=True), parts.var((1, 3), keepdims=True)
    y = ((parts - mean) / np.sqrt(spread + 1e-5)).reshape(x.shape) * scale + shift
    np.testing.assert_allclose(got, y / (1 + np.exp(-y)), rtol=1e-3, atol=1e-5)
    skip, sum_of = normal(2, 3, 4, 6, seed=2), x + normal(2, 3, 4, 6, seed=2)
    inputs = [x, scale, shift, skip]
    with_skip, total = here(model_of("SkipGroupNorm", inputs, **MICROSOFT, outputs=2, **settings), inputs)
    plain = here(model_of("GroupNorm", [sum_of, scale, shift], **MICROSOFT, **settings), [sum_of, scale, shift])
    np.testing.assert_allclose(with_skip, plain[0], rtol=1e-6)
    np.testing.assert_array_equal(total, sum_of)
    [got] = here(model_of("BiasAdd", [x, scale, skip], **MICROSOFT), [x, scale, skip])
    np.testing.assert_allclose(got, x + scale + skip, rtol=1e-6)
    [got] = here(model_of("BiasSplitGelu", [x, scale], **MICROSOFT), [x, scale])
    left, right = np.split((x + scale).astype(np.float64), 2, -1)
    erf = np.vectorize(math.erf)(right / math.sqrt(2))
    np.testing.assert_allclose(got, left * right * (1 + erf) / 2, rtol=1e-4, atol=1e-6)
    w = normal(5, 2, 2, 6)
    [got] = here(model_of("NhwcConv", [x, w], **MICROSOFT), [x, w])
    first = [x.transpose(0, 3, 1, 2).copy(), w.transpose(0, 3, 1, 2).copy()]
    [want] = onnxruntime_gives(model_of("Conv", first, opset=17), first)
    np.testing.assert_allclose(got, want.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
