"""What a system does with its networks, step by step. Reference and variants are this code on different networks."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import EngineFailed, EngineRefused, NotJudged, ParityError, first_line
from harness.sentences import Sentence
from harness.structure import flatten_inputs
from harness.systems.variant import Variant
from harness.tensors import Tensors

Network = Callable[[Mapping[str, Any]], Tensors]
"""Takes the inputs of ``forward`` and gives its outputs by path, floats as float32, whatever it computes in."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a system that is stepped through."""

    number: int
    """What tells it from others: the time step of a sampler, the place of a token."""
    value: torch.Tensor
    """What is held against the reference's: latents, logits."""
    state: Any = None
    """What the next step starts from, where that is not ``value``: the tokens so far."""


class Pipeline(ABC):
    """The networks of one variant, and the CUDA graphs captured of them. A system's own gives ``make``."""

    def __init__(self, networks: Mapping[str, Network], variant: Variant, device: torch.device) -> None:
        if variant.cuda_graph and device.type != "cuda":
            raise NotJudged(Sentence("variant_replays", name=variant.name))
        self.networks, self.variant, self.device = networks, variant, device
        self.stages_ms: dict[str, float] | None = None
        """Where to add each stage's time; None (the default) leaves the GPU's queue alone."""
        self.where = ""
        """Where in the pipeline the next call is, for what is said of outputs that are not finite."""
        self._graphs: dict[Hashable, _Graph] = {}
        self.is_checked = False
        """Whether every output is looked at."""

    @abstractmethod
    def make(self, case: Any) -> Any:
        """Return what the system makes of one case: what its product records, such as a picture or a text."""

    def trajectory(self, case: Any, *, forced: Sequence[Step] | None = None) -> list[Step]:
        """Return every step that is taken on one case, without CUDA graphs; nothing for a system without steps.

        ``forced`` are the reference's steps: each step then starts from the state that the reference had before it.
        """
        return []

    def call(self, network: str, inputs: Mapping[str, Any]) -> Tensors:
        """Run one network. Raises EngineFailed when it does not run, or, while ``checked``, when it is not finite."""
        try:
            outputs = self.networks[network](inputs)
        except EngineFailed as error:
            raise EngineFailed(
                Sentence("network_error", network=network, error=error), failure=error.failure
            ) from error
        if self.is_checked:
            check_finite(network, inputs, outputs, where=self.where)
        return outputs

    def replay(self, key: Hashable, function: Callable[..., Any], tensors: Mapping[str, torch.Tensor]) -> Any:
        """Return ``function(**tensors)``, replayed from a CUDA graph where the variant says so.

        Whatever changes between two calls of one key must be among ``tensors``: a graph reads the memory that it was
        captured with. It writes its results into the same memory each time.
        """
        if not self.variant.cuda_graph or self.is_checked:
            return function(**tensors)
        if key not in self._graphs:
            self._graphs[key] = _Graph(function, tensors)
        return self._graphs[key](tensors)

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """Check every output of every network in here, without CUDA graphs: EngineFailed names the first not finite."""
        self.is_checked, self.where = True, ""
        try:
            yield
        finally:
            self.is_checked = False

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done in here as one stage, where stages are timed."""
        if self.stages_ms is None:
            yield
            return
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class _Graph:
    """A CUDA graph of a function of tensors; inputs are copied in, outputs stay where they are."""

    def __init__(self, function: Callable[..., Any], tensors: Mapping[str, torch.Tensor]) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in tensors.items()}
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is made at a first run (kernels, workspaces) cannot be captured
            for _ in range(2):
                function(**self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.outputs = function(**self.inputs)
        except (ParityError, RuntimeError) as error:  # it ran before, so what is wrong is the capture
            raise EngineRefused(Sentence("no_graph_captured", said=first_line(error))) from error

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        for name, tensor in tensors.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        return self.outputs


def check_finite(network: str, inputs: Mapping[str, Any], outputs: Tensors, *, where: str) -> None:
    """Raise EngineFailed when a network gave NaN or infinities, and say whether its inputs were finite.

    Of no inputs nothing is said. ``where`` is put behind the output's name.
    """
    for name, tensor in outputs.items():
        finite = tensor.isfinite()
        if bool(finite.all()):
            continue
        nan, wrong = int(tensor.isnan().sum()), int((~finite).sum())
        given = flatten_inputs(inputs, network)[0] if inputs else {}
        clean = all(bool(value.isfinite().all()) for value in given.values())
        source = Sentence("from_finite") if clean else Sentence("from_not_finite")
        place = f"{name!r} {where}" if where else repr(name)
        raise EngineFailed(
            Sentence(
                "network_gave", network=network, nan=nan, infinite=wrong - nan, count=tensor.numel(), place=place,
                source=source if given else "",
            )
        )  # fmt: skip
