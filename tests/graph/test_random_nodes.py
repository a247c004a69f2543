"""Random operators of a file, found and replaced by noise of a seed."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from graphs import parse

from harness import NotJudged
from harness.graph import random_nodes, with_stored_noise
from harness.reference import onnx_run_graph, run_graph, run_onnxruntime

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
DROPOUT = "<float r = {0.25}, bool t = {1}> { y, m = Dropout(x, r, t) z = Cast<to = 1>(m) }"


def test_a_dropout_in_training_multiplies_by_stored_factors() -> None:
    model = parse(f"g (float[4, 6] x) => (float[4, 6] y, float[4, 6] z) {DROPOUT}", opset=13)
    assert random_nodes(model) == ["Dropout (value 'y')"]
    stored = with_stored_noise(model, 0)
    assert not random_nodes(stored)
    found = run_graph(onnx_run_graph(stored), {"x": X}, dtype=torch.float32)
    assert torch.equal(found["y"] != 0, found["z"] == 1)
    assert 0 < found["z"].sum() < X.numel()
    torch.testing.assert_close(found["y"], X * found["z"] / 0.75)
    (second,) = run_onnxruntime(stored, {"x": X})
    assert all(torch.equal(second[name], tensor) for name, tensor in found.items())
    other = run_graph(onnx_run_graph(with_stored_noise(model, 1)), {"x": X}, dtype=torch.float32)
    assert not torch.equal(other["z"], found["z"])


@pytest.mark.parametrize(
    "body",
    [
        "{ r = RandomNormalLike(x) b = RandomUniform<dtype = 11, shape = [4, 6]>() y = Add(r, b) }",
        "{ p = Sigmoid(x) y = Bernoulli(p) }",
        "<double r = {0.25}, bool t = {1}> { y = Dropout(x, r, t) }",
    ],
)
def test_noise_of_a_double_is_double(body: str) -> None:
    stored = with_stored_noise(parse(f"g (double[4, 6] x) => (double[4, 6] y) {body}"), 0)
    noise = [value for name, value in stored.graph.initializers.items() if name.endswith("_noise")]
    assert noise
    assert {value.dtype for value in noise} == {ir.DataType.DOUBLE}
    (found,) = run_onnxruntime(stored, {"x": X.double()})  # which refuses mixed types
    assert found["y"].dtype == torch.float64


def test_a_dropout_of_nothing_is_not_random() -> None:
    model = parse("g (float[2] x) => (float[2] y) <float r = {0}, bool t = {1}> { y = Dropout(x, r, t) }", opset=13)
    assert not random_nodes(model)


def test_a_computed_ratio_cannot_be_stored() -> None:
    model = parse("g (float[2] x, float r) => (float[2] y) <bool t = {1}> { y = Dropout(x, r, t) }", opset=13)
    with pytest.raises(NotJudged, match="ratio"):
        with_stored_noise(model, 0)
