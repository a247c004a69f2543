"""An engine to be run on any inputs, beside PyTorch FP32: what a loop, a chain of engines or a sampler is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import torch

from harness.errors import EngineFailed
from harness.fields import require
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.tensors import Tensors
from harness.verify.inputs import given_inputs
from harness.verify.subject_graph import value_dtypes
from harness.verify.target import OpenTarget, Run


class OpenEngine:
    """One engine, built and loaded on first use. Use what :func:`open_engine` returns as a context manager.

    Tensors go in by name, nested or flat as those of a case, and come out by name on ``device``; floats are float32
    whatever the engine computes in. Runs follow each other on PyTorch's current stream, by events: nothing has to be
    waited for, and inputs may be dropped or overwritten at once.
    """

    def __init__(self, opened: OpenTarget, stack: contextlib.ExitStack | None = None) -> None:
        self._opened, self._stack = opened, stack or contextlib.ExitStack()

    @property
    def device(self) -> torch.device:
        """Where PyTorch computes, and where all outputs are."""
        return self._opened.run.prepared.graph.device

    def inputs(self, case: str = "") -> Tensors:
        """Return the inputs of a case by name, by default of the first."""
        return self._opened.inputs(case or self._first)

    def run(self, inputs: Mapping[str, Any]) -> Tensors:
        """Return what the engine gives for these inputs; for the target ``torch``, what PyTorch gives in its precision.

        Raises UsageError for a wrong name, dtype or shape, NotJudged where there is no engine here, EngineFailed where
        it does not run or gives other outputs than declared.
        """
        opened = self._opened
        if opened.is_pytorch:
            return self.run_floor(inputs)
        given = self._given("run", inputs)
        session = opened.load()
        outputs = opened.steps.run("running", lambda: session.run(opened.as_taken(given)))
        names = opened.run.prepared.graph.output_names
        if set(outputs) != set(names):
            raise EngineFailed(Sentence("outputs_in_place", name=self._name, outputs=list(outputs), names=list(names)))
        declared = opened.run.prepared.references.dtypes(self._first)
        return {name: outputs[name].to(self.device, declared[name]) for name in names}

    def run_reference(self, inputs: Mapping[str, Any]) -> Tensors:
        """Return what the subject gives in PyTorch FP32, without TF32: any sizes that ``forward`` takes.

        Raises UsageError for a wrong name or dtype and where ``forward`` raises, NotJudged where it cannot run here.
        """
        return self._opened.run.prepared.graph.forward(self._given("run_reference", inputs))

    def run_floor(self, inputs: Mapping[str, Any]) -> Tensors:
        """Return what PyTorch gives in the engine's precision: the graph run op by op, whose error is the floor.

        Raises as ``run_reference``.
        """
        given, prepared, plan = self._given("run_floor", inputs), self._opened.run.prepared, self._opened.plan
        dtypes = value_dtypes(prepared.graph, plan)
        outputs, _ = prepared.graph.run(given, dtype=plan.compute_dtype, dtypes=dtypes, tf32=plan.tf32)
        declared = prepared.references.dtypes(self._first)
        return {name: outputs[name].to(declared[name]) for name in prepared.graph.output_names}

    def close(self) -> None:
        """Free the engine's memory."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    @property
    def _first(self) -> str:
        return next(iter(self._opened.run.subject.cases))

    @property
    def _name(self) -> str:
        return f"{self._opened.run.subject.name} [{self._opened.target}]"

    def _given(self, method: str, inputs: Mapping[str, Any]) -> Tensors:
        """Return checked inputs on the device; only the engine is bound to shapes."""
        prepared = self._opened.run.prepared
        shapes = prepared.shapes if method == "run" else None
        given = given_inputs(inputs, self.inputs(), shapes, where=f"{self._name} {method}()")
        return {name: tensor.to(self.device) for name, tensor in given.items()}


def open_engine(subject: Subject, target: Target, *, settings: Settings | None = None) -> OpenEngine:
    """Build or find a subject's engine, load it, and return it to be run on any inputs.

        with open_engine(SUBJECT, Target("rtx", "fp16")) as engine:
            logits = engine.run({"ids": ids})["logits"]

    The engine is cached as those of ``parity verify``. Raises UsageError for a request that is wrong, NotJudged where
    the engine cannot be had here; EngineRefused, where it is refused, is one.
    """
    require(isinstance(subject, Subject), "open_engine(...): the subject", subject, "a Subject")
    require(isinstance(target, Target), "open_engine(...): the target", target, "Target('rtx', 'fp16')")
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(Run(subject, settings or Settings()).target(target))
        opened.check() if opened.is_pytorch else opened.load()
        return OpenEngine(opened, stack.pop_all())
