"""The part of ``reproduce.py`` that runs the graph in ONNX Runtime."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.bisect.reproducer.scripts.common import GRAPH, MODULES, OPTIMIZE, PROVIDER, TF32, Stop, main


class OnnxRuntimeEngine:
    """A session of graph.onnx with one execution provider."""

    def __init__(self, inputs: Mapping[str, Any], save: Path | None) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if OPTIMIZE else level.ORT_DISABLE_ALL
        if save is not None:
            options.optimized_model_filepath = str(save)
        settings = {"use_tf32": str(int(TF32))} if PROVIDER == "CUDAExecutionProvider" else {}
        try:
            self.session = ort.InferenceSession(str(GRAPH), options, providers=[(PROVIDER, settings)])
        except Exception as error:  # its exceptions have no common base below Exception
            raise Stop(f"ONNX Runtime refuses graph.onnx: {' '.join(str(error).split())}") from error
        if self.session.get_providers()[0] != PROVIDER:
            raise Stop(f"no GPU: onnxruntime fell back to {self.session.get_providers()[0]}")
        optimised = "optimised" if OPTIMIZE else "not optimised"
        self.versions = [f"onnxruntime {ort.__version__}, {PROVIDER}, graph {optimised}"]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once and return every output as a fresh array."""
        names = [output.name for output in self.session.get_outputs()]
        try:
            return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            raise Stop(f"ONNX Runtime cannot run graph.onnx: {' '.join(str(error).split())}") from error

    def close(self) -> None:
        """Free the model."""
        self.session = None


def import_onnxruntime() -> Any:
    """Return ONNX Runtime, once it has the execution provider."""
    try:
        ort = importlib.import_module(MODULES[0])
    except ImportError as error:
        raise Stop(f"{error}; install it with: pip install onnxruntime") from error
    if PROVIDER not in ort.get_available_providers():
        raise Stop(f"onnxruntime {ort.__version__} has no {PROVIDER}; install it with: pip install onnxruntime-gpu")
    return ort


if __name__ == "__main__":
    sys.exit(main(OnnxRuntimeEngine))
