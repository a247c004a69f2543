"""The networks behind a metric: where their weights lie, whether they are the right ones, and how they are run.

Nothing is downloaded. The weights lie in ``hub/checkpoints`` under TORCH_HOME, as PyTorch's own downloads do, or where
the caller says. torch.hub does not check the hash of a file that exists; here every file is checked before it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import NotJudged, first_line, install_hint
from harness.metrics.remarks import remark
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch


RANDOM = Sentence("random_network")
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file of weights that others published."""

    name: str
    """Its name; the hexadecimal digits after its last hyphen are the first of its sha256."""
    origin: str
    """Where to get it, in words."""

    @property
    def prefix(self) -> str:
        """The digits that the sha256 begins with."""
        return Path(self.name).stem.rpartition("-")[2]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one network's weights come from, found but not yet read. Equal sources give equal weights."""

    file: WeightsFile
    """Which file it must be."""
    path: Path | None
    """None: random weights are made here."""
    modified_ns: int = 0
    """Tells a file from one that took its place."""
    random: bool = False
    """The caller said that the weights are random: nothing is checked."""


def find(file: WeightsFile, weights: str | Path | None, *, random_weights: bool) -> Source:
    """Return where the weights come from: ``weights`` (a file, or the folder it lies in), or TORCH_HOME.

    With ``random_weights`` the file at ``weights`` is taken as it is, and without ``weights`` nothing is looked for: a
    network with seeded random weights is made. Either way the metric carries a remark. Raises NotJudged when the file
    is not there.
    """
    if random_weights:
        remark(RANDOM, warn=True)
        if weights is None:
            return Source(file=file, path=None, random=True)
    path = checkpoints() if weights is None else Path(weights)
    if path.is_dir() or weights is None:
        path = path / file.name
    if not path.is_file():
        raise NotJudged(
            Sentence("no_metric_weights", path=path, name=file.name, origin=file.origin, parent=path.parent)
        )
    return Source(file=file, path=path.resolve(), modified_ns=path.stat().st_mtime_ns, random=random_weights)


def checkpoints() -> Path:
    """Return the folder in which PyTorch keeps downloaded weights."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def read(source: Source) -> dict[str, Any]:
    """Return the state dict in a file.

    Raises NotJudged when it is not the file it is named for, or holds no weights.
    """
    import torch

    assert source.path is not None
    data = source.path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if not source.random and not sha256.startswith(source.file.prefix):
        raise NotJudged(
            Sentence(
                "metric_weights_other",
                path=source.path,
                sha256=sha256[:8],
                name=source.file.name,
                prefix=source.file.prefix,
                origin=source.file.origin,
            )
        )
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a different kind for every way in which a file can be wrong
        raise NotJudged(Sentence("metric_weights_unread", path=source.path, said=first_line(error))) from error
    if not isinstance(state, dict):
        raise NotJudged(Sentence("metric_weights_type", path=source.path, name=type(state).__name__))
    return state


def seeded(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Return ``build()`` with the same random weights every time, leaving torch's random state as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)  # torch.manual_seed would seed the GPU's generators for good
        return build()


def randomise(network: torch.nn.Module) -> None:
    """Give every convolution weights that keep the size of what passes through it (He et al. 2015).

    With PyTorch's own initial weights two different pictures are 1e-7 apart for InceptionV3: every limit would pass.
    """
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def load_strictly(module: torch.nn.Module, state: dict[str, Any], source: Source) -> None:
    """Load a state dict, all of it. Raises NotJudged when names or shapes differ."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        wrong = " ".join(str(error).split())[:300]
        raise NotJudged(Sentence("metric_weights_fit", path=source.path, name=source.file.name, wrong=wrong)) from error


def package(name: str, extra: str) -> Any:
    """Import a module that an optional package provides. Raises NotJudged where it, or what it needs, is not there."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision built for another torch raises RuntimeError
        reason = first_line(error)
        raise NotJudged(
            Sentence("cannot_import", name=name, reason=reason, install_hint=install_hint(extra))
        ) from error


def device_or_default(device: str | torch.device | None) -> str:
    """Return the device named, or the GPU where there is one."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(device)


@contextlib.contextmanager
def full_fp32() -> Iterator[None]:
    """Run a metric's network without gradients and without TF32, which PyTorch allows in convolutions by default."""
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    # Benchmarking picks a convolution by its time, so that the same image could get other bits in the next run.
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    try:
        with torch.inference_mode():
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
