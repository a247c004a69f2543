"""Normalisations and their statistics against ONNX Runtime, which onnx.reference is not right for before opset 14."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from single_node import assert_agrees, here, model_of

EPSILON = 1e-3


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def batch(*shape: int, of: tuple[int, ...] | None = None) -> list[np.ndarray]:
    """Return an input with a scale, a bias, a mean and a variance of its channels, or of another shape."""
    size = of or (shape[1],)
    return [normal(*shape), *(normal(*size, seed=it) for it in (1, 2, 3)), normal(*size, seed=4) ** 2 + 0.1]


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 5), (1, 3, 2, 3, 4)])
def test_batch_normalisation_by_its_running_statistics(opset: int, shape: tuple[int, ...]):
    assert_agrees("BatchNormalization", batch(*shape), opset=opset, epsilon=EPSILON)


@pytest.mark.parametrize("opset", [1, 6])
def test_batch_normalisation_that_onnx_runtime_no_longer_has(opset: int):
    inputs = batch(2, 3, 4)
    more = {"consumed_inputs": [0, 0, 0, 1, 1]} if opset == 1 else {}
    [got] = here(model_of("BatchNormalization", inputs, opset=opset, epsilon=EPSILON, is_test=1, **more), inputs)
    x, scale, bias, mean, variance = (torch.from_numpy(it) for it in inputs)
    want = torch.nn.functional.batch_norm(x, mean, variance, scale, bias, eps=EPSILON)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)


def test_batch_normalisation_of_each_element():
    assert_agrees("BatchNormalization", batch(2, 3, 4, of=(3, 4)), opset=7, epsilon=EPSILON, spatial=0)


@pytest.mark.parametrize("opset", [14, 15])
def test_batch_normalisation_in_training(opset: int):
    inputs = batch(4, 3, 5)
    assert_agrees("BatchNormalization", inputs, opset=opset, epsilon=EPSILON, training_mode=1, momentum=0.7, outputs=3)


def test_other_normalisations():
    x, scale, bias = normal(2, 6, 4, 5), normal(6), normal(6, seed=1)
    assert_agrees("InstanceNormalization", [x, scale, bias], opset=6, epsilon=EPSILON)
    assert_agrees("LRN", [x], opset=13, size=3, alpha=0.3, beta=0.6, bias=1.5)
    assert_agrees("LpNormalization", [x], opset=1, axis=1, p=1)
    assert_agrees("MeanVarianceNormalization", [x], opset=13, axes=[0, 2, 3])
    assert_agrees("LayerNormalization", [x, normal(4, 5), normal(4, 5, seed=1)], opset=17, axis=2, outputs=3)
    assert_agrees("GroupNormalization", [x, scale, bias], opset=21, num_groups=3, epsilon=EPSILON)
    assert_agrees("GroupNormalization", [x, scale[:3], bias[:3]], opset=18, num_groups=3, epsilon=EPSILON)
    assert_agrees("RMSNormalization", [x, normal(5)], opset=23, axis=-1)
    assert_agrees("SimplifiedLayerNormalization", [x, normal(5)], opset=17, axis=-1, epsilon=EPSILON)


def test_statistics_of_fp16_do_not_overflow():
    """The square of 300 is beyond FP16: its mean is taken in FP32, as PyTorch and TensorRT do."""
    x = np.full((1, 8), 300, np.float32) * np.array([1, -1] * 4, np.float32)
    inputs = [x, np.ones(8, np.float32)]
    [got] = here(model_of("RMSNormalization", inputs, opset=23), inputs, dtype=torch.float16)
    np.testing.assert_allclose(np.abs(got.astype(np.float32)), 1, rtol=1e-3)
