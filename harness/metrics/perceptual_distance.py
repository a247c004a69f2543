"""The perceptual distance of two images, as the TensorRT Hackathon 2023 measures it.

It is the Euclidean distance of the 2048 pool features of the InceptionV3 that pytorch-fid uses for FID. The contest's
``PD()`` takes them from ``fid_score.calculate_activation_statistics`` on one image. For one image the mean of these
statistics is the features themselves, so here they are computed directly, by the same network in the same arithmetic.
The features of torchmetrics' FID are others (another resize, another scaling): the contest's limit of 12 does not hold
for them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.metrics import image, networks

if TYPE_CHECKING:
    import torch

    from harness.metrics.image import Images


INCEPTION = networks.WeightsFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    origin="from the release fid_weights of the GitHub project mseitzer/pytorch-fid",
)


def perceptual_distance(
    actual: Images,
    expected: Images,
    *,
    device: str | torch.device | None = None,
    weights: str | Path | None = None,
    random_weights: bool = False,
) -> torch.Tensor:
    """Return the perceptual distance of each pair of RGB images, float64 [n]; 0 for identical images.

    ``device`` is where the network runs (None: the GPU where there is one), ``weights`` the file or folder of its
    weights (None: TORCH_HOME). Each image is run alone, as in the contest: a batch changes the last bits. Raises
    NotJudged where pytorch-fid, torchvision or the weights are missing, UsageError for what are no RGB images.
    """
    import numpy as np

    source = networks.find(INCEPTION, weights, random_weights=random_weights)
    network = _network(source, networks.device_or_default(device))

    def one(left: torch.Tensor, right: torch.Tensor) -> float:
        return float(np.linalg.norm(_features(network, left) - _features(network, right)))

    with networks.full_fp32():
        return image.per_pair(one, actual, expected)


def _features(network: torch.nn.Module, picture: torch.Tensor) -> Any:
    """Return the pool features of one image [3, h, w] as a float64 array [2048]."""
    if picture.shape[0] != 3:
        raise UsageError(f"perceptual distance: an image has {picture.shape[0]} channels; give RGB")
    device = next(network.parameters()).device
    (pooled,) = network(picture[None].to(device))
    return pooled.flatten().double().cpu().numpy()


@lru_cache(maxsize=2)
def _network(source: networks.Source, device: str) -> torch.nn.Module:
    """Return pytorch-fid's network, up to its last pooling, with the weights of ``source``."""
    module = networks.package("pytorch_fid.inception", "image")

    def build() -> torch.nn.Module:
        # pytorch-fid always loads its weights by URL. The plain torchvision network has parameters of the same names
        # and shapes: they stand in for the file, loaded from it or left random.
        plain = module._inception_v3(num_classes=1008, aux_logits=False, weights=None)
        load, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *_, **__: state(plain)
        try:
            network: torch.nn.Module = module.InceptionV3([module.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
        finally:
            module.load_state_dict_from_url = load
        return network

    def state(plain: torch.nn.Module) -> dict[str, Any]:
        if source.path is None:
            networks.randomise(plain)
        else:
            networks.load_strictly(plain, networks.read(source), source)
        return plain.state_dict()

    return networks.seeded(build).eval().to(device)
