"""The networks of one variant, opened: engines through the harness's sessions, or PyTorch modules."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import torch

from harness import EngineFailed, NotJudged, Settings, Target, UsageError
from harness.pytorch import tf32_allowed
from harness.verify import Run, compute_device
from suites.canny2image.models import BATCHED, subject
from suites.canny2image.sizes import Size
from suites.canny2image.variants import Variant

Tensors = Mapping[str, torch.Tensor]
Network = Callable[[Tensors], dict[str, torch.Tensor]]
"""Takes and gives float32 (token ids and time steps are int64), whatever it computes in."""

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Networks:
    """Opens the networks of variants; what is traced and exported once serves all of them."""

    def __init__(self, size: Size, settings: Settings) -> None:
        self.size, self.settings = size, settings
        self.device = compute_device(settings)
        self._run = cache(self._new_run)
        self._module = cache(self._new_module)

    @contextlib.contextmanager
    def open(self, variant: Variant, backend: str) -> Iterator[dict[str, Network]]:
        """Open what a variant runs on ``backend``, unless it names its own; leaving frees the engines.

        Raises NotJudged, EngineRefused or UsageError when one cannot be built or loaded here.
        """
        with contextlib.ExitStack() as stack:
            yield {
                network: self._open(stack, network, variant, variant.backend or backend)
                for network in variant.networks()
            }

    def _open(self, stack: contextlib.ExitStack, network: str, variant: Variant, backend: str) -> Network:
        precision = variant.precision_of(network)
        batch = 1 if variant.batch == "1 twice" or network not in BATCHED else 2
        if backend == "torch":
            return self._pytorch(network, precision, batch)
        opened = stack.enter_context(self._run(network, batch).target(Target(backend, precision)))
        session = opened.load()

        def run(inputs: Tensors) -> dict[str, torch.Tensor]:
            outputs: dict[str, torch.Tensor] = opened.steps.run(
                f"running the {network} on", lambda: session.run(inputs)
            )
            return {name: tensor.to(self.device) for name, tensor in outputs.items()}

        return run

    def _new_run(self, network: str, batch: int) -> Run:
        return Run(subject(network, size=self.size, batch=batch), self.settings)

    def _new_module(self, network: str, batch: int) -> torch.nn.Module:
        build = subject(network, size=self.size, batch=batch).build
        assert build is not None
        return build().to(self.device).requires_grad_(False)

    def _pytorch(self, network: str, precision: str, batch: int) -> Network:
        if precision not in _DTYPES:
            raise UsageError(f"the torch backend of a study runs {', '.join(_DTYPES)}, not {precision!r}")
        if precision == "tf32" and self.device.type != "cuda":
            raise NotJudged("TF32 exists only on NVIDIA GPUs, and there is no GPU here")
        dtype, module = _DTYPES[precision], self._module(network, batch)
        if dtype != torch.float32:
            module = copy.deepcopy(module).to(dtype)

        def run(inputs: Tensors) -> dict[str, torch.Tensor]:
            cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
            with tf32_allowed(precision == "tf32"):
                outputs = module(**cast)
            return {name: tensor.float() for name, tensor in outputs.items()}

        return run


def check_finite(network: str, inputs: Tensors, outputs: Tensors, *, where: str) -> None:
    """Raise EngineFailed when a network gave NaN or infinities, and say whether its inputs were finite.

    Of no inputs nothing is said. ``where`` is put behind the output's name.
    """
    for name, tensor in outputs.items():
        finite = tensor.isfinite()
        if bool(finite.all()):
            continue
        nan, wrong = int(tensor.isnan().sum()), int((~finite).sum())
        clean = all(bool(value.isfinite().all()) for value in inputs.values())
        source = f", from inputs that were {'finite' if clean else 'not finite'}" if inputs else ""
        place = f"{name!r} {where}" if where else repr(name)
        values = f"{nan} NaN and {wrong - nan} infinite values of {tensor.numel()}"
        raise EngineFailed(f"the {network} gave {values} in {place}{source}")
