"""Grids, regions and boxes against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_node import assert_agrees, here, model_of


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def grid(*shape: int) -> np.ndarray:
    """Return places within the image and a little outside."""
    return np.random.default_rng(shape).uniform(-1.4, 1.4, shape).astype(np.float32)


@given(
    st.sampled_from([16, 20]),
    st.sampled_from(["linear", "nearest", "cubic"]),
    st.sampled_from(["zeros", "border", "reflection"]),
    st.integers(0, 1),
)
@settings(deadline=None, max_examples=60)
def test_grid_sample(opset: int, mode: str, padding: str, corners: int):
    name = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode) if opset == 16 else mode
    chosen = {"mode": name, "padding_mode": padding, "align_corners": corners}
    assert_agrees("GridSample", [normal(2, 3, 5, 4), grid(2, 3, 6, 2)], opset=opset, **chosen)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample_of_a_volume(mode: str):
    assert_agrees("GridSample", [normal(2, 3, 5, 4, 3), grid(2, 2, 3, 4, 3)], opset=20, mode=mode)


@given(st.sampled_from([10, 16]), st.sampled_from(["avg", "max"]), st.integers(0, 3), st.booleans(), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_regions_are_aligned(opset: int, mode: str, samples: int, whole: bool, size: int):
    rois = np.array([[0.3, 0.7, 5.1, 4.2], [2.2, 1.1, 3.0, 6.3], [-1.0, -2.0, 9.5, 9.0]], np.float32)
    chosen: dict = {"mode": mode, "sampling_ratio": samples, "output_height": size, "output_width": 2}
    if opset == 16:
        chosen["coordinate_transformation_mode"] = "output_half_pixel" if whole else "half_pixel"
    inputs = [normal(2, 3, 7, 6), rois, np.array([0, 1, 1])]
    assert_agrees("RoiAlign", inputs, opset=opset, spatial_scale=0.9, **chosen)


def test_regions_are_pooled():
    rois = np.array([[0, 0.3, 0.7, 5.1, 4.2], [1, 2.2, 1.1, 3.0, 6.3], [1, 5, 5, 4, 4]], np.float32)
    assert_agrees("MaxRoiPool", [normal(2, 3, 7, 6), rois], opset=11, pooled_shape=[2, 3], spatial_scale=0.8)


@given(st.integers(0, 6), st.floats(0, 0.9), st.integers(0, 1), st.booleans(), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_what_remains_of_boxes(most: int, overlap: float, center: int, limited: bool, seed: int):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(0, 1, (2, 12, 4)).astype(np.float32)
    scores = rng.permutation(72).reshape(2, 3, 12).astype(np.float32)
    inputs = [boxes, scores, np.array([most]), np.array([overlap], np.float32)]
    inputs += [np.array([30], np.float32)] if limited else []
    assert_agrees("NonMaxSuppression", inputs, opset=11, center_point_box=center)


def test_equal_scores_keep_their_order():
    boxes = np.array([[[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]]], np.float32)
    inputs = [boxes, np.ones((1, 1, 3), np.float32), np.array([2])]
    [kept] = here(model_of("NonMaxSuppression", inputs, opset=11), inputs)
    assert kept.tolist() == [[0, 0, 0], [0, 0, 1]]


def test_grids_and_deformed_windows():
    theta = normal(2, 2, 3)
    assert_agrees("AffineGrid", [theta, np.array([2, 3, 4, 5])], opset=20, align_corners=1)
    x, w = normal(1, 4, 6, 6), normal(2, 2, 3, 3)
    offset, mask = normal(1, 2 * 18, 4, 4), normal(1, 2 * 9, 4, 4)
    assert_agrees("DeformConv", [x, w, offset, normal(2), mask], opset=19, group=2, offset_group=2)
    columns = normal(1, 5 * 6, 12)
    inputs = [columns, np.array([5, 5]), np.array([2, 3])]
    assert_agrees("Col2Im", inputs, opset=18, pads=[0, 0, 0, 0], strides=[1, 1])
