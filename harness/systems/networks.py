"""The networks of one variant, opened: engines through the harness's sessions, or PyTorch modules."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from harness.errors import NotJudged, UsageError
from harness.pytorch import build_module, tf32_allowed
from harness.sentences import Sentence
from harness.settings import Settings
from harness.structure import flatten_inputs, flatten_outputs
from harness.subject import Subject, Target
from harness.systems.pipeline import Network
from harness.systems.system import System
from harness.systems.variant import Variant
from harness.tensors import Tensors
from harness.verify import OpenEngine, Run, compute_device, structured_inputs

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Networks:
    """Opens the networks of a system's variants; what is built, traced and exported once serves all of them."""

    def __init__(self, system: System, settings: Settings) -> None:
        self.system, self.settings = system, settings
        self.device = compute_device(settings)
        self._runs: dict[str, Run] = {}
        self._modules: dict[str, torch.nn.Module] = {}

    @contextlib.contextmanager
    def open(self, variant: Variant, backend: str) -> Iterator[dict[str, Network]]:
        """Open what a variant runs on ``backend``, unless it names its own; leaving frees the engines.

        Raises NotJudged, EngineRefused or UsageError when one cannot be built or loaded here.
        """
        with contextlib.ExitStack() as stack:
            yield {
                network: self._open(stack, network, variant, variant.backend or backend)
                for network in self.system.networks(variant)
            }

    def _open(self, stack: contextlib.ExitStack, network: str, variant: Variant, backend: str) -> Network:
        subject, precision = self.system.subject(network, variant), variant.precision_of(network)
        if backend == "torch":
            return self._pytorch(network, subject, precision)
        if subject.name not in self._runs:
            self._runs[subject.name] = Run(subject, self.settings)
        opened = stack.enter_context(self._runs[subject.name].target(Target(backend, precision)))
        opened.load()
        return OpenEngine(opened).run

    def _pytorch(self, network: str, subject: Subject, precision: str) -> Network:
        """Return a module run as its users run it: cast to the precision as a whole."""
        if precision not in _DTYPES:
            raise UsageError(f"the torch backend of a study runs {', '.join(_DTYPES)}, not {precision!r}")
        if precision == "tf32" and self.device.type != "cuda":
            raise NotJudged(Sentence("tf32_no_gpu"))
        if subject.onnx is not None:
            raise NotJudged(Sentence("study_onnx_file", name=subject.name))
        if subject.name not in self._modules:
            self._modules[subject.name] = build_module(subject).to(self.device).requires_grad_(False)
        dtype, module = _DTYPES[precision], self._modules[subject.name]
        structure = structured_inputs(subject, next(iter(subject.cases)))[1]
        if dtype != torch.float32:
            module = copy.deepcopy(module).to(dtype)

        def run(inputs: Mapping[str, Any]) -> Tensors:
            given, _ = flatten_inputs(inputs, f"the {network}")  # flat ones, too, are nested as those of a case
            cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in given.items()}
            with tf32_allowed(precision == "tf32"):
                outputs = flatten_outputs(module(**structure.build(cast)), taken=given)
            return {name: t.float() if t.is_floating_point() else t for name, t in outputs.items()}

        return run
