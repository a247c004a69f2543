"""ONNX Runtime on the CPU or a GPU: the optimised graph is the engine's file."""

from __future__ import annotations

from harness.backends.onnxruntime.backend import OnnxRuntimeBackend

__all__ = ["OnnxRuntimeBackend"]
