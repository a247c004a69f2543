"""TensorRT and TensorRT for RTX, which share one Python API.

The graph is built in a child process; the engine is loaded and run here.
"""

from __future__ import annotations

from harness.backends.tensorrt.backend import TensorRTBackend

__all__ = ["TensorRTBackend"]
