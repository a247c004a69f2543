"""The tensors that a tap delivers, gathered kernel by kernel and told apart."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import torch

from harness.backends import Kernel
from harness.layers.makers import Makers
from harness.layers.mapping import Decision, Expect, Expected, Fit, decide
from harness.layers.observer import CLOSE, LARGEST, Observer, _measure, _saturated
from harness.reference import Evaluators
from harness.verify import UNIT_ROUNDOFF


class KernelTaps:
    """Turns the tensors that a tap delivers into values, one kernel at a time."""

    def __init__(self, makers: Makers, observer: Observer) -> None:
        self.makers, self.observer = makers, observer
        self._writers: dict[str, list[Kernel]] = {}
        for kernel in makers.kernels:
            for name in kernel.writes:
                self._writers.setdefault(name, []).append(kernel)
        self._uses = Counter(value for candidates in makers.candidates for value in candidates.names)
        self._kernel: Kernel | None = None
        self._tensors: dict[str, torch.Tensor] = {}
        self._finished: set[int] = set()
        self.inputs: dict[str, torch.Tensor] = {}
        """Network inputs as the engine has them."""

    def on_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Take one tensor; those of one kernel follow each other, in the order of the kernels."""
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
        """Decide on the tensors of the kernel that has come to its end."""
        if self._kernel is None:
            return
        kernel, tensors = self._kernel, self._tensors
        self._kernel, self._tensors = None, {}
        candidates = self.makers.candidates[kernel.index]
        # What is computed to find out must not stay: it is computed from replays, and what follows from the engine's.
        evaluators, asked = self.observer.evaluators.fork(), set[str]()

        def expect(name: str) -> Expected | None:
            asked.add(name)
            return self._expect(evaluators, name)

        decisions = decide(kernel, tensors, candidates, expect, self._assume)
        if len(asked) == 1:  # nothing but what the comparison would compute again
            self.observer.evaluators.adopt(evaluators)
        found: list[tuple[Fit, dict[str, str]]] = []
        for name, decision in decisions.items():
            if not decision.fits:
                self.observer.stray(name, kernel, tensors[name], decision)
            for fit in decision.fits:
                if fit.value in self.makers.inputs:
                    copy = Decision(inner=True, reason=f"a copy of the network input {fit.value}")
                    self.observer.stray(name, kernel, tensors[name], copy)
                    continue
                record = {"kernel": kernel.name, "tap": name, "mapped_by": decision.mapped_by, "layout": fit.layout}
                found.append((fit, record))
        for fit, record in sorted(found, key=lambda pair: self.observer.depths[pair[0].value]):
            self.observer.see(fit.value, fit.tensor, **record)
        if kernel.index not in self._finished:
            self._finished.add(kernel.index)
            self._uses.subtract(candidates.names)
            self.observer.evaluators.done(value for value in candidates.names if self._uses[value] <= 0)

    def _assume(self, name: str, tensor: torch.Tensor) -> Expect:
        """Return what tells what tensors must resemble if this value were this tensor."""
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
            replay = _saturated(replay, low, LARGEST[precision])
        floor = _measure(low, replay).relative if low is not None and replay.is_floating_point() else 0.0
        # TensorRT may compute FP32 in TF32; that must not make its tensors strangers.
        roundoff = max(UNIT_ROUNDOFF[precision], UNIT_ROUNDOFF["tf32"])
        close = CLOSE * max(roundoff, floor if math.isfinite(floor) else 0.0)
        dtypes = frozenset(self.makers.dtypes.get(name, ())) or frozenset({replay.dtype})
        return Expected(replay=replay, close=min(close, 0.5), dtypes=dtypes)
