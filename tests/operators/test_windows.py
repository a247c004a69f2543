"""Convolutions and pools against ONNX Runtime, over their attributes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from single_node import assert_agrees, here, model_of

AUTO = st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[list[int], dict]:
    """Return the spatial sizes of an input, and the attributes of a convolution over it."""
    rank = draw(st.integers(1, 3))
    some = st.lists
    kernel = draw(some(st.integers(1, 3), min_size=rank, max_size=rank))
    chosen: dict = {
        "kernel_shape": kernel,
        "strides": draw(some(st.integers(1, 3), min_size=rank, max_size=rank)),
        "dilations": draw(some(st.integers(1, 2), min_size=rank, max_size=rank)),
        "auto_pad": draw(AUTO),
    }
    if chosen["auto_pad"] == "NOTSET":
        chosen["pads"] = draw(some(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank))
    elif chosen["auto_pad"] != "VALID":
        chosen["dilations"] = [1] * rank
    size = draw(some(st.integers(5, 7), min_size=rank, max_size=rank))
    return size, chosen


@given(convolutions(), st.sampled_from([1, 2]), st.booleans())
@settings(deadline=None, max_examples=50)
def test_convolution(drawn: tuple[list[int], dict], group: int, biased: bool):
    size, chosen = drawn
    w = normal(4, 4 // group, *chosen["kernel_shape"], seed=1)
    inputs = [normal(2, 4, *size), w, *([normal(4)] if biased else [])]
    assert_agrees("Conv", inputs, opset=17, group=group, **chosen)


@given(convolutions(), st.sampled_from([1, 2]), st.booleans(), st.integers(0, 2))
@settings(deadline=None, max_examples=50)
def test_transposed_convolution(drawn: tuple[list[int], dict], group: int, biased: bool, extra: int):
    size, chosen = drawn
    rank = len(size)
    if chosen["auto_pad"].startswith("SAME"):
        # A kernel that is smaller than its stride cannot fill the size that is asked for: ONNX Runtime fails as well.
        assume(all(k >= s for k, s in zip(chosen["kernel_shape"], chosen["strides"], strict=True)))
    else:
        chosen["output_padding"] = [min(extra, s - 1) for s in chosen["strides"]]
    inputs = [normal(2, 4, *size[:rank]), normal(4, 2, *chosen["kernel_shape"], seed=1)]
    inputs += [normal(2 * group)] if biased else []
    assert_agrees("ConvTranspose", inputs, opset=17, group=group, **chosen)


@given(st.integers(7, 11), st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER"]))
@settings(deadline=None, max_examples=20)
def test_a_transposed_convolution_of_a_given_shape(out: int, auto: str):
    inputs = [normal(1, 2, 4, 4), normal(2, 3, 3, 3)]
    settings_ = {"kernel_shape": [3, 3], "strides": [2, 2], "output_shape": [out, 9], "auto_pad": auto}
    assume(out <= 9)  # ONNX Runtime refuses a shape that is larger than the full one
    assert_agrees("ConvTranspose", inputs, opset=17, **settings_)


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[int], dict]:
    size, chosen = draw(convolutions())
    if "pads" in chosen:
        reach = [(k - 1) * d for k, d in zip(chosen["kernel_shape"], chosen["dilations"], strict=True)]
        most = [min(k - 1, r) for k, r in zip(chosen["kernel_shape"], reach, strict=True)] * 2
        chosen["pads"] = [min(pad, it) for pad, it in zip(chosen["pads"], most, strict=True)]
        chosen["ceil_mode"] = draw(st.integers(0, 1))
    elif chosen["auto_pad"] != "VALID":
        # Where windows leave gaps, ONNX Runtime crops the input; TensorFlow, whose padding this is, pads nothing.
        chosen["strides"] = [min(pair) for pair in zip(chosen["kernel_shape"], chosen["strides"], strict=True)]
    return size, chosen


@given(pools(), st.integers(0, 1))
@settings(deadline=None, max_examples=50)
def test_maximum_with_its_indices(drawn: tuple[list[int], dict], order: int):
    size, chosen = drawn
    order = order if len(size) > 1 else 0
    assert_agrees("MaxPool", [normal(2, 2, *size)], opset=12, outputs=2, storage_order=order, **chosen)


@given(pools(), st.integers(0, 1))
@settings(deadline=None, max_examples=50)
def test_average(drawn: tuple[list[int], dict], padding: int):
    size, chosen = drawn
    assert_agrees("AveragePool", [normal(2, 2, *size)], opset=19, count_include_pad=padding, **chosen)


@given(pools(), st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_norm(drawn: tuple[list[int], dict], p: int):
    size, chosen = drawn
    chosen.pop("ceil_mode", None)  # ONNX Runtime reads beyond the input with it
    assert_agrees("LpPool", [normal(2, 2, *size)], opset=18, p=p, **chosen)


def test_codes_are_pooled():
    x = np.random.default_rng(0).integers(-128, 127, (1, 2, 5, 5)).astype(np.int8)
    assert_agrees("MaxPool", [x], opset=12, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def test_unpooled_is_where_it_was():
    x = normal(1, 2, 6, 6)
    pooled, index = here(model_of("MaxPool", [x], opset=12, outputs=2, kernel_shape=[2, 2], strides=[2, 2]), [x])
    assert_agrees("MaxUnpool", [pooled, index], opset=11, kernel_shape=[2, 2], strides=[2, 2])


def test_grouped_transpose_with_uneven_padding_is_pytorchs():
    x, w, bias = normal(1, 4, 5, 5), normal(4, 3, 4, 4), normal(6)
    settings_ = {"kernel_shape": [4, 4], "strides": [2, 3], "output_padding": [1, 2], "pads": [1, 0, 2, 1], "group": 2}
    [got] = here(model_of("ConvTranspose", [x, w, bias], opset=17, **settings_), [x, w, bias])
    full = torch.nn.functional.conv_transpose2d(
        *(torch.from_numpy(it) for it in (x, w, bias)), stride=(2, 3), output_padding=(1, 2), groups=2
    )
    np.testing.assert_allclose(got, full[:, :, 1:-2, 0:-1].numpy(), rtol=1e-5, atol=1e-6)


def test_what_a_ceiling_adds_is_never_counted():
    """The last window lies one beyond the padding; ONNX Runtime and PyTorch divide by what is within."""
    x = normal(1, 1, 6, 5)
    chosen = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1, "pads": [0, 1, 0, 1]}
    assert_agrees("AveragePool", [x], opset=19, **chosen)
    [got] = here(model_of("AveragePool", [x], opset=19, **chosen), [x])
    want = torch.nn.functional.avg_pool2d(torch.from_numpy(x), 3, 2, (0, 1), ceil_mode=True, count_include_pad=True)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)
