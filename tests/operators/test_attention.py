"""ONNX's attention against ONNX Runtime and PyTorch; transforms of signals and losses against what they are made of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from single_node import assert_agrees, here, model_of


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


@st.composite
def attentions(draw: st.DrawFn) -> tuple[list[np.ndarray | None], dict]:
    rows, past, heads = draw(st.integers(1, 4)), draw(st.sampled_from([0, 2])), draw(st.sampled_from([2, 4]))
    columns = rows + past
    masks = {
        "none": None,
        "bool": np.random.default_rng(rows).random((rows, columns)) < 0.7,
        "float": normal(2, 1, rows, columns),
    }
    mask = masks[draw(st.sampled_from(list(masks)))]
    if mask is not None and mask.dtype == np.bool_:
        mask[:, 0] = True  # a row of which nothing is left is another test's
    inputs = [normal(2, heads, rows, 8), normal(2, 2, rows, 8, seed=1), normal(2, 2, rows, 6, seed=2), mask]
    inputs += [normal(2, 2, past, 8), normal(2, 2, past, 6)] if past else []
    while inputs[-1] is None:
        inputs.pop()
    chosen: dict = {"outputs": 3 if past else 1, "is_causal": draw(st.integers(0, 1))}
    if draw(st.booleans()):
        chosen |= {"softcap": 1.5, "scale": 0.4}
    return inputs, chosen


@given(attentions(), st.sampled_from([23, 24]))
@settings(deadline=None, max_examples=60)
def test_attention(drawn: tuple[list[np.ndarray | None], dict], opset: int):
    inputs, chosen = drawn
    assert_agrees("Attention", inputs, opset=opset, **chosen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_attention_is_pytorchs(dtype: torch.dtype):
    """To one rounding: PyTorch's own is fused. A query that sees nothing gives zeros in both."""
    q, k, v = normal(1, 2, 5, 8), normal(1, 2, 5, 8, seed=1), normal(1, 2, 5, 8, seed=2)
    mask = np.tri(5, dtype=bool)
    mask[2] = False
    [got, *_] = here(model_of("Attention", [q, k, v, mask], opset=23), [q, k, v, mask], dtype=dtype)
    tensors = [torch.from_numpy(it).to(dtype) for it in (q, k, v)]
    want = torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=torch.from_numpy(mask))
    assert not got[:, :, 2].any()
    np.testing.assert_allclose(got, want.float().numpy(), atol=4 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("inverse", [0, 1])
def test_fourier_transform(opset: int, onesided: int, inverse: int):
    if inverse and onesided:
        x, size = normal(2, 5, 3, 2), 8
        x[:, (0, -1), :, 1] = 0  # of a real signal these are real
    else:
        x, size = normal(2, 8, 3, 1 if onesided else 2), 8
    chosen: dict = {"axis": 1} if opset == 17 else {}
    inputs = [x, np.array(size), *([] if opset == 17 else [np.array(1)])]
    model = model_of("DFT", inputs, opset=opset, onesided=onesided, inverse=inverse, **chosen)
    [got] = here(model, inputs)
    signal = x[..., 0] + 1j * (x[..., 1] if x.shape[-1] == 2 else 0)
    if inverse and onesided:
        want = np.fft.irfft(signal, size, 1)[..., None]
    else:
        spectrum = np.fft.ifft(signal, axis=1) if inverse else np.fft.fft(signal, axis=1)
        spectrum = spectrum[:, : size // 2 + 1] if onesided else spectrum
        want = np.stack([spectrum.real, spectrum.imag], -1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_frames_and_windows():
    inputs = [normal(2, 20, 1), np.array(3), np.hanning(8).astype(np.float32), np.array(8)]
    assert_agrees("STFT", inputs, opset=17)
    for name in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        for periodic in (0, 1):
            assert_agrees(name, [np.array(9)], opset=17, periodic=periodic)
    inputs = [np.array(8), np.array(64), np.array(16000), np.array(10, np.float32), np.array(8000, np.float32)]
    assert_agrees("MelWeightMatrix", inputs, opset=17, output_datatype=onnx.TensorProto.FLOAT)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize("weighted", [True, False])
def test_losses(reduction: str, ignored: int | None, weighted: bool):
    labels = np.random.default_rng(0).integers(0, 4, (3, 5))
    inputs = [normal(3, 4, 5), labels, *([np.abs(normal(4))] if weighted else [])]
    chosen = {"reduction": reduction} | ({} if ignored is None else {"ignore_index": ignored})
    assert_agrees("SoftmaxCrossEntropyLoss", inputs, opset=13, outputs=2, **chosen)
    assert_agrees("NegativeLogLikelihoodLoss", inputs, opset=13, **chosen)
