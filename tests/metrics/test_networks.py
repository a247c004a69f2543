"""Metrics with a network: which weights they accept, and that they agree with the packages they come from."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import noise

from harness.errors import NotJudged, UsageError
from harness.metrics import lpips as lpips_module
from harness.metrics import networks
from harness.metrics import perceptual_distance as pd_module
from harness.metrics.binding import Metric, measure
from harness.metrics.lpips import BACKBONES, lpips
from harness.metrics.perceptual_distance import INCEPTION, perceptual_distance
from harness.metrics.remarks import collect_remarks

WITH_NETWORK = [(perceptual_distance, INCEPTION.name), (lpips, BACKBONES["alex"].name)]


def needs_torchvision() -> None:
    """Skip where the packages behind the networks cannot be imported."""
    try:
        for name in ("torchvision", "lpips", "pytorch_fid.inception", "PIL.Image"):
            networks.package(name, "image")
    except NotJudged as reason:
        pytest.skip(str(reason))


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the empty folder in which the metrics look for weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a network in the place of the large ones: it averages each channel, and hands back what it got."""

    class Pool(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))

        def forward(self, left: torch.Tensor, right: torch.Tensor | None = None, *, normalize: bool = False) -> Any:
            pooled = [tensor.mean(dim=(2, 3)) * self.scale for tensor in (left, right) if tensor is not None]
            return (pooled[0] - pooled[1]).norm() if normalize else pooled

    for module in (pd_module, lpips_module):
        monkeypatch.setattr(module, "_network", lambda *arguments: Pool().to(arguments[-1]))


# Weights


@pytest.mark.parametrize(("metric", "name"), WITH_NETWORK)
def test_missing_weights_are_not_judged(metric: Callable[..., torch.Tensor], name: str, checkpoints: Path):
    with pytest.raises(NotJudged) as caught:
        metric(noise(3, 64, 64), noise(3, 64, 64))
    assert name in str(caught.value)
    assert f"into {checkpoints}" in str(caught.value)
    bound = Metric("m", metric, at_most=1e9, why="a test")
    result = measure(bound, noise(3, 64, 64), noise(3, 64, 64))
    assert (result.verdict, result.note) == ("not_judged", "")
    assert math.isnan(result.actual)


@pytest.mark.parametrize(("metric", "name"), WITH_NETWORK)
def test_file_with_another_hash_is_refused(metric: Callable[..., torch.Tensor], name: str, checkpoints: Path):
    needs_torchvision()
    torch.save({}, checkpoints / name)
    with pytest.raises(NotJudged, match="is refused: its sha256 begins with"):
        metric(noise(3, 64, 64), noise(3, 64, 64))
    with pytest.raises(NotJudged, match="is refused"):
        metric(noise(3, 64, 64), noise(3, 64, 64), weights=checkpoints)


def test_every_name_carries_its_hash():
    files = (INCEPTION, *BACKBONES.values())
    assert [file.prefix for file in files] == ["6726825d", "7be5be79", "397923af", "b8a52dc0"]


def saved(folder: Path, value: object, *, honest: bool = True) -> networks.WeightsFile:
    """Save a value under a name that carries its hash, or another one."""
    torch.save(value, folder / "new")
    digest = hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
    file = networks.WeightsFile(name=f"tiny-{digest if honest else '00000000'}.pth", origin="from this test")
    (folder / "new").rename(folder / file.name)
    return file


def test_the_right_file_is_read(checkpoints: Path, tmp_path: Path):
    state = {"w": torch.arange(3.0)}
    file = saved(checkpoints, state)
    elsewhere = tmp_path / "renamed.pth"
    elsewhere.write_bytes((checkpoints / file.name).read_bytes())
    for weights in (None, checkpoints, str(checkpoints / file.name), elsewhere):
        found = networks.read(networks.find(file, weights, random_weights=False))
        assert torch.equal(found["w"], state["w"])


def test_a_replaced_file_is_another_source(checkpoints: Path):
    file = saved(checkpoints, {"w": torch.zeros(1)})
    before = networks.find(file, None, random_weights=False)
    assert before == networks.find(file, None, random_weights=False)
    path = checkpoints / file.name
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    assert networks.find(file, None, random_weights=False) != before


def test_wrong_hash_needs_the_callers_word(checkpoints: Path):
    file = saved(checkpoints, {"w": torch.ones(1)}, honest=False)
    with pytest.raises(NotJudged, match="begins with"):
        networks.read(networks.find(file, None, random_weights=False))
    with collect_remarks() as remarks:
        source = networks.find(file, checkpoints, random_weights=True)
    assert float(networks.read(source)["w"]) == 1
    assert remarks == [networks.RANDOM]


def test_files_that_hold_no_weights(checkpoints: Path):
    for value, words in ((torch.ones(1), "holds a Tensor"), (subprocess.run, "no weights that can be read")):
        file = saved(checkpoints, value)
        with pytest.raises(NotJudged, match=words):
            networks.read(networks.find(file, None, random_weights=False))


def test_a_file_that_torch_refuses_without_a_word(checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **options: Any) -> None:
        raise EOFError

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(NotJudged, match="no weights that can be read: EOFError"):
        networks.read(networks.find(saved(checkpoints, {}), None, random_weights=False))


def test_weights_of_another_network_are_refused(tmp_path: Path):
    file = networks.WeightsFile(name="tiny-0.pth", origin="from this test")
    source = networks.Source(file=file, path=tmp_path)
    with pytest.raises(NotJudged, match="does not fit the network"):
        networks.load_strictly(torch.nn.Linear(1, 1), {"weight": torch.ones(2, 2)}, source)


def test_random_weights_are_the_same_and_disturb_nothing():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (networks.seeded(lambda: torch.nn.Linear(4, 4)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_tf32_is_off_inside_and_as_before_outside():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    with networks.full_fp32():
        assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == (False, False, False)
        assert torch.is_inference_mode_enabled()
    assert (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == before


def test_missing_packages_are_not_judged(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ImportError("No module named 'torchvision'")

    monkeypatch.setattr(networks.importlib, "import_module", missing)
    pd_module._network.cache_clear()
    lpips_module._network.cache_clear()
    for metric in (perceptual_distance, lpips):
        with (
            pytest.warns(UserWarning, match="random weights"),
            pytest.raises(NotJudged, match=r"torchvision.*pip install '\.\[image\]'"),
        ):
            metric(noise(3, 64, 64), noise(3, 64, 64), random_weights=True)


# What the functions do around their network


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.filterwarnings("ignore:computed on random weights")
@pytest.mark.parametrize("metric", [perceptual_distance, lpips])
def test_distance_of_a_tiny_network(metric: Callable[..., torch.Tensor]):
    black = torch.zeros(2, 3, 16, 16)
    grey = torch.stack([black[0], black[1] + 0.5])
    values = metric(grey, black, random_weights=True)
    assert values.tolist() == pytest.approx([0, 0.5 * math.sqrt(3)])
    assert values.dtype == torch.float64
    bad = grey.clone()
    bad[0, 0, 0, 0] = math.nan
    values = metric(bad, black, random_weights=True)
    assert math.isnan(float(values[0]))
    with pytest.raises(UsageError, match="1 channels; give RGB"):
        metric(black[:, :1], black[:, :1], random_weights=True)


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("metric", [perceptual_distance, lpips])
def test_random_weights_are_said(metric: Callable[..., torch.Tensor]):
    picture = noise(3, 16, 16)
    bound = Metric("m", lambda a, e: metric(a, e, random_weights=True), at_most=1, why="a test")
    assert "random weights" in measure(bound, picture, picture).note
    with pytest.warns(UserWarning, match="random weights"):
        metric(picture, picture, random_weights=True)


def test_unknown_backbone():
    with pytest.raises(UsageError, match="did you mean alex"):
        lpips(noise(3, 64, 64), noise(3, 64, 64), net="alx")


# Against the packages; the weights are random and lie where trained ones would


def pictures(folder: Path) -> list[Path]:
    """Write two pictures as PNG and one as JPEG, 64x96."""
    image = networks.package("PIL.Image", "image")
    paths = [folder / name for name in ("a.png", "b.png", "c.jpg")]
    for seed, path in enumerate(paths):
        pixels = torch.nn.functional.interpolate(noise(1, 3, 8, 12, seed=seed), scale_factor=8, mode="bilinear")[0]
        image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy()).save(path)
    return paths


def random_state(build: Callable[[], torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Return weights that are not those made without a file, in a network that keeps the size of its features."""

    def other() -> torch.nn.Module:
        network = build()
        torch.rand(7)
        networks.randomise(network)
        return network

    return networks.seeded(other).state_dict()


@pytest.mark.filterwarnings("ignore:computed on random weights")
def test_perceptual_distance_is_bit_equal_to_that_of_pytorch_fid(checkpoints: Path, tmp_path: Path):
    needs_torchvision()
    import numpy as np

    inception = networks.package("pytorch_fid.inception", "image")
    fid_score = networks.package("pytorch_fid.fid_score", "image")
    state = random_state(lambda: inception._inception_v3(num_classes=1008, aux_logits=False, weights=None))
    torch.save(state, checkpoints / INCEPTION.name)
    paths = pictures(tmp_path)
    model = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the covariance of one image
        means = [
            fid_score.calculate_activation_statistics([str(path)], model, batch_size=1, device="cpu", num_workers=0)[0]
            for path in paths
        ]
    arguments: dict[str, Any] = {"device": "cpu", "weights": checkpoints, "random_weights": True}
    ours = perceptual_distance(paths[1:], [paths[0], paths[0]], **arguments)
    assert ours.tolist() == [float(np.linalg.norm(mean - means[0])) for mean in means[1:]]
    assert float(ours.min()) > 0.01, "distances of networks without features would agree too"
    assert perceptual_distance(paths, paths, **arguments).tolist() == [0, 0, 0]
    made_here = perceptual_distance(paths[1:], [paths[0], paths[0]], device="cpu", random_weights=True)
    assert made_here.tolist() != ours.tolist()


@pytest.mark.parametrize("net", ["alex", "squeeze"])
@pytest.mark.filterwarnings("ignore:computed on random weights")
def test_lpips_is_that_of_the_package(net: str, checkpoints: Path, tmp_path: Path):
    needs_torchvision()
    package, models = networks.package("lpips", "image"), networks.package("torchvision.models", "image")
    build = {"alex": models.alexnet, "squeeze": models.squeezenet1_1}[net]
    torch.save(random_state(lambda: build(weights=None)), checkpoints / BACKBONES[net].name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torchvision says of the arguments of lpips
        theirs = package.LPIPS(net=net, verbose=False)
    left, right = noise(2, 3, 64, 96), noise(2, 3, 64, 96, seed=1)
    arguments: dict[str, Any] = {"net": net, "device": "cpu", "weights": checkpoints, "random_weights": True}
    ours = lpips(left, right, **arguments)
    with torch.no_grad():
        wanted = [float(theirs(a[None], b[None], normalize=True)) for a, b in zip(left, right, strict=True)]
    assert ours.tolist() == wanted
    assert min(wanted) > 0
    assert lpips(left, left, **arguments).tolist() == [0, 0]
    assert lpips(left, right, net=net, device="cpu", random_weights=True).tolist() != wanted


@pytest.mark.filterwarnings("ignore:computed on random weights")
def test_backbone_without_a_layer_is_refused(checkpoints: Path):
    needs_torchvision()
    torch.save({"features.0.weight": torch.zeros(1)}, checkpoints / BACKBONES["alex"].name)
    with pytest.raises(NotJudged, match=r"it has no features\.0\.bias"):
        lpips(noise(3, 64, 64), noise(3, 64, 64), weights=checkpoints, random_weights=True)
