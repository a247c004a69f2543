"""LPIPS, the learned perceptual image patch similarity of Zhang et al. 2018, by the lpips package (version 0.1).

The linear heads come with the package; the backbone is torchvision's classifier and needs a file of weights.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import NotJudged, UsageError, unknown_name
from harness.metrics import image, networks
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch

    from harness.metrics.image import Images


def _backbone(name: str, model: str) -> networks.WeightsFile:
    return networks.WeightsFile(name=name, origin=f"the ImageNet weights of torchvision.models.{model}")


BACKBONES = {
    "alex": _backbone("alexnet-owt-7be5be79.pth", "alexnet"),
    "vgg": _backbone("vgg16-397923af.pth", "vgg16"),
    "squeeze": _backbone("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1"),
}


def lpips(
    actual: Images,
    expected: Images,
    *,
    net: str = "alex",
    device: str | torch.device | None = None,
    weights: str | Path | None = None,
    random_weights: bool = False,
) -> torch.Tensor:
    """Return the LPIPS of each pair of RGB images, float64 [n]; 0 for identical images.

    ``net`` is the backbone: ``alex``, ``vgg`` or ``squeeze``; their scales differ. ``device`` is where it runs (None:
    the GPU where there is one), ``weights`` the file or folder of its weights (None: TORCH_HOME). Raises NotJudged
    where lpips, torchvision or the weights are missing, UsageError for an unknown backbone and what are no RGB images.
    """
    if net not in BACKBONES:
        raise unknown_name("LPIPS backbone", net, BACKBONES)
    source = networks.find(BACKBONES[net], weights, random_weights=random_weights)
    where = networks.device_or_default(device)
    network = _network(net, source, where)

    def one(left: torch.Tensor, right: torch.Tensor) -> float:
        if left.shape[0] != 3:
            raise UsageError(f"lpips: an image has {left.shape[0]} channels; give RGB")
        return float(network(left[None].to(where), right[None].to(where), normalize=True))

    with networks.full_fp32():
        return image.per_pair(one, actual, expected)


@lru_cache(maxsize=4)
def _network(net: str, source: networks.Source, device: str) -> torch.nn.Module:
    package = networks.package("lpips", "image")

    def build() -> Any:
        with warnings.catch_warnings():
            # lpips passes torchvision an argument that is deprecated there.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            network: Any = package.LPIPS(net=net, pnet_rand=True, verbose=False)
        networks.randomise(network.net)
        return network

    network: Any = networks.seeded(build)
    if source.path is not None:
        _load_backbone(network.net, networks.read(source), source)
    return cast("torch.nn.Module", network.eval().to(device))


def _load_backbone(backbone: torch.nn.Module, state: dict[str, Any], source: networks.Source) -> None:
    """Load a classifier's weights into the slices that lpips cuts its features into.

    A slice keeps the numbers of the layers: ``features.3.weight`` of the file is ``slice2.3.weight`` here.
    """
    wanted = {f"features.{name.partition('.')[2]}": name for name in backbone.state_dict()}
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise NotJudged(Sentence("metric_weights_lack", path=source.path, name=source.file.name, missing=missing[0]))
    networks.load_strictly(backbone, {name: state[key] for key, name in wanted.items()}, source)
