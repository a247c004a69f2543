"""PSNR and SSIM by hand, and how images are read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from fake import noise
from PIL import Image

from harness.errors import UsageError
from harness.metrics.binding import Metric, measure
from harness.metrics.image import load, psnr, ssim

NAN, INF = float("nan"), float("inf")
METRICS = [psnr, ssim]


def test_psnr_by_hand():
    black = torch.zeros(2, 3, 8, 8)
    grey = torch.stack([black[0] + 0.1, black[1] + 0.5])
    assert psnr(grey, black).tolist() == pytest.approx([20, -20 * math.log10(0.5)])
    one_pixel = black.clone()
    one_pixel[0, 0, 0, 0] = 1
    assert float(psnr(one_pixel, black)[0]) == pytest.approx(10 * math.log10(3 * 64))
    assert psnr(black, black).tolist() == [INF, INF]


def test_psnr_of_a_set_is_that_of_its_mean_squared_error():
    right = torch.zeros(4, 3, 8, 8)
    left = right + torch.tensor([0.0, 0.4, 0.4, 0.4])[:, None, None, None]
    assert float(psnr(left, right, pooled=True)) == pytest.approx(-10 * math.log10(0.75 * 0.16), abs=1e-6)
    assert measure(Metric("m", psnr, at_least=30, over="mean", why="a test"), left, right).verdict == "fail"
    assert psnr(right, right, pooled=True).tolist() == [INF]
    assert psnr(right[:0], right[:0], pooled=True).tolist() == []


def test_psnr_and_ssim_are_those_of_scikit_image():
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    right = noise(3, 64, 96)
    left = 0.8 * right + 0.2 * noise(3, 64, 96, seed=1)
    arrays = [tensor.permute(1, 2, 0).double().numpy() for tensor in (right, left)]
    assert float(psnr(left, right)) == pytest.approx(skimage.peak_signal_noise_ratio(*arrays, data_range=1))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    # scikit-image leaves out the border that a window would reach over.
    structural = skimage.structural_similarity(*arrays, data_range=1, channel_axis=2, **settings)
    assert float(ssim(left, right)) == pytest.approx(structural, abs=1e-12)


def test_ssim_by_hand():
    # Of two constant images only the means are compared: (2ab + c) / (a^2 + b^2 + c).
    dark, bright = torch.full((1, 3, 16, 16), 0.25), torch.full((1, 3, 16, 16), 0.75)
    assert float(ssim(dark, bright)) == pytest.approx((2 * 0.1875 + 1e-4) / (0.625 + 1e-4), abs=1e-6)
    picture = noise(2, 3, 16, 16)
    assert ssim(picture, picture).tolist() == pytest.approx([1, 1])
    assert float(ssim(picture[0], 1 - picture[0])) < 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_never_passes(metric, value: float):
    good = noise(2, 3, 16, 16)
    bad = good.clone()
    bad[1, 2, 3, 4] = value
    for pair in ((bad, good), (good, bad), (bad, bad)):
        values = metric(*pair)
        assert not math.isnan(float(values[0]))
        assert math.isnan(float(values[1]))
    bound = Metric("m", metric, at_least=-1e9, why="a test")
    assert measure(bound, bad, good).verdict == "fail"
    assert measure(bound, good, good).verdict == "pass"


@pytest.mark.parametrize("metric", METRICS)
def test_images_that_do_not_belong_together(metric):
    with pytest.raises(UsageError, match="2 images against 1"):
        metric(noise(2, 3, 16, 16), noise(1, 3, 16, 16))
    with pytest.raises(UsageError, match="image 0 is"):
        metric(noise(3, 16, 16), noise(3, 16, 17))
    bound = Metric("m", metric, at_least=0, why="a test")
    assert measure(bound, noise(3, 16, 16), noise(3, 16, 17)).verdict == "fail"
    assert measure(bound, torch.zeros(0, 3, 16, 16), torch.zeros(0, 3, 16, 16)).verdict == "fail"


def test_small_images_have_no_ssim():
    with pytest.raises(UsageError, match="10x16 is smaller"):
        ssim(noise(3, 10, 16), noise(3, 10, 16))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.full((3, 4, 4), 1.5), r"run from 1.5 to 1.5"),
        (torch.full((3, 4, 4), -1.0), r"scale and clamp"),
        (torch.zeros(3, 4, 4).long(), r"torch.int64 is not supported"),
        (torch.zeros(4, 4), r"\[4, 4\] is no image"),
        ([torch.zeros(2, 3, 4, 4)], r"holds a batch"),
    ],
)
def test_tensors_that_are_no_images(image: object, words: str):
    with pytest.raises(UsageError, match=words):
        load(image)


def test_tensors_of_bytes_and_halves():
    picture = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    (read,) = load(picture)
    assert torch.equal(read, picture.float() / 255)
    assert load(picture.half() / 255)[0].dtype == torch.float32
    assert len(load(picture[None].repeat(5, 1, 1, 1))) == 5
    assert len(load([picture, picture[:, :2]])) == 2


def test_files_are_read_as_rgb(tmp_path: Path):
    picture = (noise(3, 6, 5) * 255).byte()
    file = tmp_path / "a.png"
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file)
    for path in (file, str(file), [file]):
        assert torch.equal(load(path)[0], picture.float() / 255)
    Image.fromarray(picture[0].numpy()).save(tmp_path / "grey.png")
    grey = load(tmp_path / "grey.png")[0]
    assert torch.equal(grey, (picture[:1].float() / 255).expand(3, 6, 5))
    assert psnr([file, picture], [picture, file]).tolist() == [INF, INF]


def test_files_that_are_no_images(tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for path in (broken, tmp_path / "missing.png", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            load(path)
