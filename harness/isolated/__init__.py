"""ONNX graphs run by ONNX Runtime or ``onnx.reference``, or given shapes by ``onnx``, in a process of their own.

A graph is somebody else's: it may take all memory, have no end, or bring the library down. There it ends that process,
within a limit of memory and time, and here it is a sentence.
"""

from __future__ import annotations

from harness.errors import NoMemory
from harness.isolated.models import Crashed, Model, Raised, infer_shapes, start_ahead

__all__ = ["Crashed", "Model", "NoMemory", "Raised", "infer_shapes", "start_ahead"]
