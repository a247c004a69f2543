"""ONNX Runtime on the CPU, with faults written into the graph that it is given, and exports that are wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import onnx_ir as ir

from benchmarks.planted.rewriting import Rewrite, rewrite
from harness.backends import BuildReport, BuildRequest
from harness.backends.onnxruntime import OnnxRuntimeBackend

if TYPE_CHECKING:
    from harness.settings import Settings
    from harness.tensors import Tensors

PLANTED = "PLANTED"
"""The environment variable that plants the same in the script of a reproducer; see site/sitecustomize.py."""


class PlantedEngine(OnnxRuntimeBackend):
    """Bears the name ``ort-cpu``, so that a reproducer is written as for that."""

    def __init__(self, wanted: Rewrite, folder: Path, *, optimised: bool = True, stale: bool = False) -> None:
        super().__init__("ort-cpu", device="cpu")
        self.optimised, self.stale = optimised, stale
        self.wanted = dataclasses.replace(wanted, weights=str(folder / "whole.onnx"))

    def cache_key(self) -> dict[str, str]:
        """Return the version and what is planted."""
        return {**super().cache_key(), "planted": repr(self.wanted), "optimised": repr(self.optimised)}

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        """Build what becomes of the graph; the first graph is the whole one."""
        with tempfile.TemporaryDirectory() as scratch:
            model = ir.external_data.load_to_model(ir.load(request.onnx))
            whole = Path(self.wanted.weights)
            if not whole.exists():
                whole.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(request.onnx, whole)
            rewrite(model, self.wanted)
            graph = Path(scratch) / "graph.onnx"
            ir.save(model, graph)
            return super().build(dataclasses.replace(request, onnx=graph), engine, settings)

    def load(self, engine: Path) -> Any:
        """Load the engine, with graph optimisations or without."""
        import onnxruntime

        if self.stale:
            session = super().load(engine)
            session.run = _one_behind(session.run)
            return session
        if self.optimised:
            return super().load(engine)
        make = onnxruntime.SessionOptions

        def unoptimised() -> Any:
            options = make()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            return options

        with mock.patch.object(onnxruntime, "SessionOptions", unoptimised):
            return super().load(engine)

    @contextmanager
    def in_scripts(self) -> Iterator[None]:
        """Plant the same in Python processes that are started meanwhile."""
        here = Path(__file__).parent
        path = os.pathsep.join([str(here / "site"), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
        wanted = json.dumps(dataclasses.asdict(self.wanted))
        with mock.patch.dict(os.environ, {PLANTED: wanted, "PYTHONPATH": path}):
            yield


def _one_behind(run: Callable[[Tensors], Tensors]) -> Callable[[Tensors], Tensors]:
    """Return what gives the outputs of the call before; the first gives its own."""
    before: list[Tensors] = []

    def stale(inputs: Tensors) -> Tensors:
        before.append({name: tensor.clone() for name, tensor in run(inputs).items()})
        return before.pop(0) if len(before) > 1 else {name: tensor.clone() for name, tensor in before[0].items()}

    return stale


def plant_in_onnxruntime(wanted: Rewrite) -> None:
    """Let every session of this process be built from what becomes of its graph."""
    import onnxruntime

    make = onnxruntime.InferenceSession

    def session(graph: str, *arguments: Any, **options: Any) -> Any:
        model = ir.external_data.load_to_model(ir.load(graph))
        rewrite(model, wanted)
        return make(ir.to_proto(model).SerializeToString(), *arguments, **options)

    onnxruntime.InferenceSession = session
