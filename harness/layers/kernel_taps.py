"""The tensors that a tap delivers: gathered kernel by kernel, mapped to values, and given to the observer."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import torch

from harness.backends import Kernel
from harness.compare import UNIT_ROUNDOFF
from harness.layers.engine_kernels import EngineKernels
from harness.layers.layouts import Expected
from harness.layers.local_error import LARGEST, local_error, saturated
from harness.layers.mapping import Decision, Expect, decide
from harness.layers.observer import Observer
from harness.reference import Evaluators
from harness.sentences import Sentence

CLOSE = 10.0
"""A tensor this many local floors away from a replay is still that value: kernels that were right stayed below 3."""


class KernelTaps:
    """Maps the tensors that a tap delivers to values, one kernel at a time."""

    def __init__(self, kernels: EngineKernels, observer: Observer) -> None:
        self.kernels, self.observer = kernels, observer
        self._writers: dict[str, list[Kernel]] = {}
        for kernel in kernels.kernels:
            for name in kernel.writes:
                self._writers.setdefault(name, []).append(kernel)
        self._uses = Counter(value for candidates in kernels.candidates for value in candidates.names)
        self._kernel: Kernel | None = None
        self._tensors: dict[str, torch.Tensor] = {}
        self._finished: set[int] = set()
        self.inputs: dict[str, torch.Tensor] = {}
        """Network inputs as the engine has them."""

    def on_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Keep one tensor; those of one kernel arrive one after the other, in the order of the kernels."""
        writers = self._writers.get(name)
        if writers is None:
            self.inputs[name] = tensor
            return
        # Kernels that write parts of one buffer deliver it once each.
        kernel = writers.pop(0) if len(writers) > 1 else writers[0]
        if self._kernel is not None and kernel.index != self._kernel.index:
            self.flush()
        self._kernel = kernel
        self._tensors[name] = tensor.to(self.observer.device)

    def flush(self) -> None:
        """Decide on the tensors of the kernel that has come to its end, and give them to the observer."""
        if self._kernel is None:
            return
        kernel, tensors = self._kernel, self._tensors
        self._kernel, self._tensors = None, {}
        self._add(kernel, tensors, self._decide(kernel, tensors))
        if kernel.index not in self._finished:
            self._finished.add(kernel.index)
            names = self.kernels.candidates[kernel.index].names
            self._uses.subtract(names)
            self.observer.evaluators.done(value for value in names if self._uses[value] <= 0)

    def _decide(self, kernel: Kernel, tensors: dict[str, torch.Tensor]) -> dict[str, Decision]:
        # Candidates are computed in a fork: they are replays, and later kernels must read the engine's own values.
        evaluators, asked = self.observer.evaluators.fork(), set[str]()

        def expect(name: str) -> Expected | None:
            asked.add(name)
            return self._expect(evaluators, name)

        decisions = decide(tensors, self.kernels.candidates[kernel.index], expect, self._assume)
        if len(asked) == 1:  # the fork holds only what the comparison needs: it need not be computed again
            self.observer.evaluators.adopt(evaluators)
        return decisions

    def _add(self, kernel: Kernel, tensors: dict[str, torch.Tensor], decisions: dict[str, Decision]) -> None:
        """Give the observer what is no value, then the values in dataflow order."""
        found = []
        for name, decision in decisions.items():
            if not decision.fits:
                self.observer.add_extra_tensor(name, kernel, tensors[name], decision)
            for fit in decision.fits:
                if fit.value in self.kernels.inputs:
                    copy = Decision(inner=True, reason=Sentence("copy_of_input", value=fit.value))
                    self.observer.add_extra_tensor(name, kernel, tensors[name], copy)
                else:
                    found.append((self.observer.depths[fit.value], name, decision.mapped_by, fit))
        for _, name, mapped_by, fit in sorted(found, key=lambda entry: entry[0]):
            self.observer.add_value(
                fit.value, fit.tensor, kernel=kernel.name, tap=name, mapped_by=mapped_by, layout=fit.layout
            )

    def _assume(self, name: str, tensor: torch.Tensor) -> Expect:
        """Return what computes the candidates when this value is this tensor."""
        evaluators = self.observer.evaluators.fork()
        evaluators.observe(name, tensor)
        return partial(self._expect, evaluators)

    def _expect(self, evaluators: Evaluators, name: str) -> Expected | None:
        """Return what a tensor must resemble to be this value; None when nothing computes it or it is empty."""
        precision = self.observer.precision
        replay = evaluators.value(evaluators.replay, name)
        if replay is None or not replay.numel():
            return None
        low = evaluators.value(evaluators.replay_low, name)
        if low is not None and replay.is_floating_point():
            replay = saturated(replay, low, LARGEST[precision])
        floor = local_error(low, replay).relative if low is not None and replay.is_floating_point() else 0.0
        # TensorRT may compute FP32 in TF32; its tensors must still be recognised.
        roundoff = max(UNIT_ROUNDOFF[precision], UNIT_ROUNDOFF["tf32"])
        close = CLOSE * max(roundoff, floor if math.isfinite(floor) else 0.0)
        dtypes = frozenset(self.kernels.dtypes.get(name, ())) or frozenset({replay.dtype})
        return Expected(replay=replay, close=min(close, 0.5), dtypes=dtypes)
