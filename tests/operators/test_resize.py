"""Resize against ONNX Runtime, over its modes; and what ONNX's own reference has otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from single_node import assert_agrees, here, model_of

SCALES = st.sampled_from([0.3, 0.5, 0.6, 0.7, 1.0, 1.5, 2.0, 2.7, 3.0])


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 8 + width).standard_normal((1, 2, height, width), dtype=np.float32)


@st.composite
def resizes(draw: st.DrawFn) -> dict:
    opset = draw(st.sampled_from([11, 13, 18, 19]))
    places = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    if opset >= 19 and mode != "nearest":  # of a nearest pixel, a tie is decided by the order of its FP32 operations
        places.append("half_pixel_symmetric")
    chosen: dict = {"mode": mode, "opset": opset, "coordinate_transformation_mode": draw(st.sampled_from(places))}
    if mode == "nearest":
        modes = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        chosen["nearest_mode"] = draw(st.sampled_from(modes))
    elif opset >= 18:
        chosen["antialias"] = draw(st.integers(0, 1))
    if mode == "cubic" or chosen.get("antialias"):
        chosen["exclude_outside"] = draw(st.integers(0, 1))
    if mode == "cubic":
        chosen["cubic_coeff_a"] = draw(st.sampled_from([-0.75, -0.5]))
    return chosen


@given(resizes(), st.integers(1, 7), st.integers(1, 7), SCALES, SCALES)
@settings(deadline=None, max_examples=70)
def test_scales(chosen: dict, height: int, width: int, down: float, across: float):
    assume(min(height * down, width * across) >= 1)
    roi = np.zeros(0, np.float32) if chosen["opset"] == 11 else None
    assert_agrees("Resize", [image(height, width), roi, np.array([1, 1, down, across], np.float32)], **chosen)


@given(resizes(), st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=70)
def test_sizes(chosen: dict, height: int, width: int, high: int, wide: int):
    assume(chosen["mode"] != "nearest")  # ties again: 2 / (4 / 7) is 3.5 or not
    empty = np.zeros(0, np.float32) if chosen["opset"] == 11 else None
    assert_agrees("Resize", [image(height, width), empty, empty, np.array([1, 2, high, wide])], **chosen)


@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.integers(1, 6),
    st.integers(1, 9),
    st.sampled_from([-0.2871, 0.1393, 0.5347]),  # no place falls on a pixel's edge
)
@settings(deadline=None, max_examples=80)
def test_a_region_is_cropped_and_resized(mode: str, size: int, out: int, start: float):
    assume(size != out)  # ONNX Runtime leaves an axis of scale 1 as it is, whatever its region: the schema does not
    roi = np.array([0, 0, start, start, 1, 1, 0.9137, 1.2911], np.float32)
    assert_agrees(
        "Resize",
        [image(size, size), roi, None, np.array([1, 2, out, out])],
        opset=13,
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=9.0,
    )


@given(st.sampled_from(["nearest", "linear"]), st.integers(1, 7), SCALES)
@settings(deadline=None, max_examples=40)
def test_before_opset_11(mode: str, size: int, scale: float):
    assume(size * scale >= 1)
    assert_agrees("Resize", [image(size, size), np.array([1, 1, scale, scale], np.float32)], opset=10, mode=mode)
    if scale >= 1:
        for opset in (7, 9):
            by = {"scales": [1.0, 1.0, scale, scale]} if opset == 7 else {}
            more = [] if by else [np.array([1, 1, scale, scale], np.float32)]
            assert_agrees("Upsample", [image(size, size), *more], opset=opset, mode=mode, **by)


def test_a_size_is_rounded_as_fp32_has_it():
    inputs = [image(10, 7), None, np.array([1, 1, 0.7, 0.7], np.float32)]
    model = model_of("Resize", inputs, opset=13, mode="linear")
    assert here(model, inputs)[0].shape == here(model, inputs, dtype=torch.float64)[0].shape == (1, 2, 7, 4)
    assert_agrees("Resize", inputs, opset=13, mode="linear")


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_a_scale_that_keeps_the_size(mode: str):
    """PyTorch copies but in the cubic mode; ONNX Runtime copies in all."""
    x = image(6, 6)
    inputs = [x, None, np.array([1, 1, 1.1, 1.1], np.float32)]
    [got] = here(model_of("Resize", inputs, opset=13, mode=mode), inputs)
    theirs = {"nearest": "nearest-exact", "linear": "bilinear", "cubic": "bicubic"}[mode]
    want = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=1.1, mode=theirs)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


def test_align_corners_is_pytorchs():
    """ONNX's reference divides by the size before it is rounded down (2.4 columns), PyTorch by what there is."""
    x = image(4, 5)
    model = model_of(
        "Resize",
        [x, None, np.array([1, 1, 0.6, 0.6], np.float32)],
        opset=19,
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    [got] = here(model, [x, None, np.array([1, 1, 0.6, 0.6], np.float32)])
    want = torch.nn.functional.interpolate(torch.from_numpy(x), size=(2, 3), mode="bilinear", align_corners=True)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)
